//! TLS, and clients that have to show a certificate.

use std::{
    fs,
    io::{Read as _, Write as _},
};

use nodemedic_tests::http::{Response, get};

use super::{
    certificates::{Authority, Identity, post},
    setup::{Collector, Setup, TOKEN, payload, request, shown},
};
use crate::agent::{assert_refused, nodemedic};

const LONG: i32 = 2100;
const OVER: i32 = 2001;

fn write(setup: &Setup, identity: &Identity) {
    setup.file("tls.crt", &identity.certificate_pem(), 0o644);
    setup.secret("tls.key", &identity.key_pem());
}

/// The web configuration, with more lines in `tls_server_config`.
fn web_config(setup: &Setup, more: &str) -> String {
    let text = format!("tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n{more}");
    let file = setup.file("web.yaml", &text, 0o644);
    format!("web_config = {file:?}\n")
}

const MUTUAL: &str =
    "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: clients.crt\n";

/// An agent that knows its clients by their certificates, beyond the loopback too.
fn mutual(servers: &Authority, clients: &Authority) -> Collector {
    let setup = Setup::new();
    write(&setup, &servers.vouch("agent", LONG));
    setup.file("clients.crt", &clients.pem(), 0o644);
    let line = web_config(&setup, MUTUAL);
    setup.start(&line)
}

fn ask(
    agent: &Collector,
    servers: &Authority,
    client: Option<&Identity>,
) -> std::io::Result<Response> {
    let request = request("POST", "/alertmanager", None, &payload(&[]).to_string());
    post(agent.connect(), servers, client, &request)
}

#[test]
fn a_client_with_the_right_certificate_comes_in_and_no_other() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let agent = mutual(&servers, &clients);
    let right = clients.vouch("alertmanager", LONG);
    assert_eq!(ask(&agent, &servers, Some(&right)).unwrap().status, 200);
    let strangers = Authority::new("clients");
    for (who, client) in [
        ("none", None),
        ("expired", Some(clients.vouch("alertmanager", OVER))),
        (
            "of another authority",
            Some(strangers.vouch("alertmanager", LONG)),
        ),
        (
            "of the server's authority",
            Some(servers.vouch("alertmanager", LONG)),
        ),
    ] {
        let answer = ask(&agent, &servers, client.as_ref());
        assert!(answer.is_err(), "{who}: {answer:?}");
    }
    assert_eq!(ask(&agent, &servers, Some(&right)).unwrap().status, 200);
}

#[test]
fn with_a_token_too_both_are_needed() {
    let servers = Authority::new("servers");
    let setup = Setup::new();
    write(&setup, &servers.vouch("agent", LONG));
    let line = web_config(&setup, "  min_version: TLS13\n");
    let agent = setup.guarded(&line);
    let body = payload(&[]).to_string();
    for (token, status) in [(Some(TOKEN), 200), (Some("wrong"), 401), (None, 401)] {
        let request = request("POST", "/alertmanager", token, &body);
        let answer = post(agent.connect(), &servers, None, &request).unwrap();
        assert_eq!(answer.status, status, "{token:?}");
    }
}

#[test]
fn in_the_clear_nobody_is_understood() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let agent = mutual(&servers, &clients);
    let mut stream = agent.connect();
    let request = request("POST", "/alertmanager", None, &payload(&[]).to_string());
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/"));
}

#[test]
fn a_handshake_that_stalls_is_ended_and_holds_nobody_up() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let agent = mutual(&servers, &clients);
    let mut stalled = agent.connect();
    let right = clients.vouch("alertmanager", LONG);
    assert_eq!(ask(&agent, &servers, Some(&right)).unwrap().status, 200);
    // The agent's limit ends it, and not the one of the test.
    let ended = stalled.read_to_end(&mut Vec::new());
    assert!(!ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
}

#[test]
fn certificates_that_are_renewed_hold_at_once_and_half_renewed_ones_do_no_harm() {
    let (old, clients) = (Authority::new("old"), Authority::new("clients"));
    let agent = mutual(&old, &clients);
    let right = clients.vouch("alertmanager", LONG);
    assert_eq!(ask(&agent, &old, Some(&right)).unwrap().status, 200);
    let new = Authority::new("new");
    let renewed = new.vouch("agent", LONG);
    // The key comes before its certificate.
    agent.setup.secret("tls.key", &renewed.key_pem());
    assert_eq!(ask(&agent, &old, Some(&right)).unwrap().status, 200);
    agent.agent.until_log("the old ones stay");
    agent
        .setup
        .file("tls.crt", &renewed.certificate_pem(), 0o644);
    assert!(ask(&agent, &old, Some(&right)).is_err());
    assert_eq!(ask(&agent, &new, Some(&right)).unwrap().status, 200);
    // Who vouches for clients may change, too.
    fs::write(
        agent.setup.path("clients.crt"),
        Authority::new("others").pem(),
    )
    .unwrap();
    assert!(ask(&agent, &new, Some(&right)).is_err());
}

#[test]
fn a_web_configuration_that_cannot_be_used_is_said_with_the_reason() {
    let setup = Setup::new();
    let authority = Authority::new("servers");
    write(&setup, &authority.vouch("agent", LONG));
    setup.file(
        "other.key",
        &authority.vouch("other", LONG).key_pem(),
        0o600,
    );
    setup.file("open.key", &authority.vouch("other", LONG).key_pem(), 0o644);
    setup.file("empty.crt", "", 0o644);
    for (text, why) in [
        ("", "tls_server_config"),
        ("tls_server_config: {cert_file: tls.crt}", "key_file"),
        (
            "tls_server_config: {cert_file: tls.crt, key_file: tls.key, ciphers: []}",
            "min_version",
        ),
        (
            "tls_server_config: {cert_file: absent, key_file: tls.key}",
            "No such file",
        ),
        (
            "tls_server_config: {cert_file: empty.crt, key_file: tls.key}",
            "no certificate",
        ),
        (
            "tls_server_config: {cert_file: tls.crt, key_file: empty.crt}",
            "chmod 0400",
        ),
        (
            "tls_server_config: {cert_file: tls.crt, key_file: open.key}",
            "chmod 0400",
        ),
        (
            "tls_server_config: {cert_file: tls.crt, key_file: other.key}",
            "other.key",
        ),
        (
            "tls_server_config: {cert_file: tls.crt, key_file: tls.key, client_auth_type: Maybe}",
            "RequireAndVerifyClientCert",
        ),
        (
            "tls_server_config: {cert_file: tls.crt, key_file: tls.key, client_ca_file: tls.crt}",
            "client_auth_type",
        ),
    ] {
        let file = setup.file("web.yaml", text, 0o644);
        let config = shown(&setup.config(&format!("web_config = {file:?}")));
        let output = nodemedic(&["run", "--check-config", "--config", &config]);
        assert_refused(&output, 64, &["[webhook] web_config", why]);
    }
}

#[test]
fn half_handshakes_reach_neither_the_health_checks_nor_another_host() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let agent = mutual(&servers, &clients);
    let begin = |_| {
        let mut stream = agent.connect();
        // The head of a message of 512 bytes that never comes.
        let _ = stream.write_all(&[22, 3, 1, 2, 0]);
        stream
    };
    let _flood: Vec<_> = (0..128).map(begin).collect();
    let health = agent.agent.listener("health");
    assert_eq!(get(health, "/healthz").unwrap(), "ok\n");
    let client = clients.vouch("alertmanager", LONG);
    let request = request("POST", "/alertmanager", None, &payload(&[]).to_string());
    let stream = crate::flood::from("127.0.0.2", agent.address);
    let answer = post(stream, &servers, Some(&client), &request);
    assert_eq!(answer.unwrap().status, 200);
}
