//! The token.

use std::fs;

use super::setup::{Setup, TOKEN, exchange, payload, refuses, shown};

#[test]
fn without_the_token_nobody_learns_or_does_anything() {
    let agent = Setup::new().guarded("");
    let body = payload(&[]).to_string();
    for token in [None, Some(""), Some("hunter"), Some("hunter22")] {
        for (method, path) in [
            ("POST", "/alertmanager"),
            ("GET", "/"),
            ("GET", "/alertmanager"),
        ] {
            let answer = agent.ask(method, path, token, &body);
            assert_eq!(answer.status, 401, "{token:?} {method} {path}");
            assert!(
                answer.headers.contains("www-authenticate: Bearer"),
                "{answer:?}"
            );
        }
    }
    assert_eq!(agent.post(&body).status, 200);
    assert!(!agent.agent.log().contains(TOKEN), "{}", agent.agent.log());
}

#[test]
fn a_token_that_is_renewed_holds_at_once() {
    let agent = Setup::new().guarded("");
    let body = payload(&[]).to_string();
    assert_eq!(agent.post(&body).status, 200);
    // As a kubelet does it: another file in its place.
    let new = agent.setup.secret("new", "correct-horse\n");
    fs::rename(new, agent.setup.path("token")).unwrap();
    assert_eq!(agent.post(&body).status, 401);
    let answer = agent.ask("POST", "/alertmanager", Some("correct-horse"), &body);
    assert_eq!(answer.status, 200);
}

#[test]
fn a_token_that_others_can_read_is_none() {
    let agent = Setup::new().guarded("");
    let body = payload(&[]).to_string();
    agent.setup.file("token", TOKEN, 0o644);
    let answer = agent.post(&body);
    assert_eq!(answer.status, 503);
    agent.agent.until_log("chmod 0400");
    agent.setup.secret("token", TOKEN);
    assert_eq!(agent.post(&body).status, 200);
}

/// What `run` and `run --check-config` say before anything else happens.
fn refusal(setup: &Setup, webhook: &str, texts: &[&str]) {
    let config = setup.config(webhook);
    for more in [&[][..], &["--check-config"]] {
        refuses(setup, &config, more, 64, texts);
    }
}

#[test]
fn a_file_that_is_no_secret_keeps_the_agent_from_its_start() {
    let setup = Setup::new();
    let readable = setup.file("readable", TOKEN, 0o640);
    let empty = setup.secret("empty", "\n");
    let absent = setup.path("absent");
    for (file, why) in [
        (readable, "chmod 0400"),
        (empty, "no token"),
        (absent, "No such file"),
    ] {
        let line = format!("token_file = {file:?}");
        refusal(&setup, &line, &["[webhook] token_file", &shown(&file), why]);
    }
}

#[test]
fn where_others_can_come_there_has_to_be_a_token_or_a_certificate() {
    let setup = Setup::new();
    let config = setup.file(
        "open.toml",
        "[webhook]\nenabled = true\nlisten = \"0.0.0.0:0\"\n",
        0o644,
    );
    let texts = ["0.0.0.0:0", "token_file", "RequireAndVerifyClientCert"];
    refuses(&setup, &config, &[], 64, &texts);
}

/// A page in a browser on the node must not be the sender.
#[test]
fn without_a_token_what_a_browser_can_send_is_refused() {
    let open = Setup::new().start("");
    open.agent.until_log("every process of this node can post");
    let guarded = Setup::new().guarded("");
    let body = payload(&[]).to_string();
    let length = body.len();
    let post = |agent: &super::setup::Collector, headers: &str| {
        let request = format!(
            "POST /alertmanager HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        );
        exchange(agent.connect(), &request).status
    };
    let json = "Content-Type: application/json\r\n";
    for (headers, status) in [
        (json.to_owned(), 200),
        (
            "content-type: Application/JSON; charset=utf-8\r\n".to_owned(),
            200,
        ),
        (String::new(), 415),
        ("Content-Type: text/plain\r\n".to_owned(), 415),
        (
            "Content-Type: application/x-www-form-urlencoded\r\n".to_owned(),
            415,
        ),
        (format!("{json}Origin: http://evil.example\r\n"), 403),
        (format!("{json}Origin: null\r\n"), 403),
        (format!("{json}Sec-Fetch-Site: same-origin\r\n"), 403),
    ] {
        assert_eq!(post(&open, &headers), status, "{headers}");
        assert_eq!(post(&guarded, &headers), 200, "with a token: {headers}");
    }
    let refused = "nodemedic_webhook_requests_total{code=\"415\"} ";
    assert_eq!(open.metric(refused), 3.0);
}
