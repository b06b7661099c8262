//! Which agent gets what.

use serde_json::Value;

use super::setup::{Node, Station, alert, nobody, of_nodes, place, post};
use crate::webhook::{
    certificates::Authority,
    setup::{NODE, Setup, TOKEN, connect, exchange, metric, payload, request, webhook_address},
};

const UNDONE: &str = "nodemedic_webhook_alerts_total{decision=\"nothing_to_undo\"} ";
const REFUSED: &str = "nodemedic_webhook_alerts_total{decision=\"refused\"} ";

#[test]
fn an_alert_goes_to_the_agent_of_its_node_and_no_other() {
    let (first, second) = (Node::start("node-1"), Node::start("node-2"));
    let station = Station::of(&[first.place(), second.place()], "");
    let answer = station.post(&[alert("resolved", "node-1:19110")]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let reply: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(reply["alerts"][0]["decision"], "nothing_to_undo");
    assert_eq!(reply["alerts"][0]["node"], "node-1");
    assert_eq!(metric(&first.agent, UNDONE), 1.0);
    assert_eq!(metric(&second.agent, UNDONE), 0.0);
    // A group may have several nodes: one payload an agent.
    let mut other = alert("firing", "node-2");
    other["fingerprint"] = "another".into();
    other["labels"]["ailment"] = "other".into();
    let both = [
        alert("resolved", "node-1"),
        alert("resolved", "node-2"),
        other,
    ];
    assert_eq!(station.post(&both).status, 200);
    assert_eq!(metric(&first.agent, UNDONE), 2.0);
    assert_eq!(metric(&second.agent, UNDONE), 1.0);
    assert_eq!(metric(&first.agent, REFUSED), 0.0);
    assert_eq!(metric(&second.agent, REFUSED), 1.0);
    let undone = "nodemedic_dispatch_alerts_total{decision=\"nothing_to_undo\"} ";
    assert_eq!(metric(&station.dispatcher, undone), 3.0);
    let idle = "nodemedic_dispatch_agents{state=\"idle\"} ";
    assert_eq!(metric(&station.dispatcher, idle), 2.0);
}

#[test]
fn what_goes_nowhere_is_told_and_what_may_go_later_is_to_come_again() {
    let node = Node::start("node-1");
    let station = Station::of(&[node.place(), nobody("node-2")], "max_percent = 100");
    let answer = station.post(&[alert("resolved", "node-9"), alert("resolved", "")]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        of_nodes(&answer, &["node-9", ""]),
        ["unknown_node", "no_node"]
    );
    station.dispatcher.until_log("alert: unknown_node");
    let answer = station.post(&[alert("resolved", "node-1"), alert("resolved", "node-2")]);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(
        of_nodes(&answer, &["node-1", "node-2"]),
        ["nothing_to_undo", "unreachable"]
    );
    station.dispatcher.until_log("alert: unreachable");
    for (decision, count) in [
        ("unknown_node", 1.0),
        ("no_node", 1.0),
        ("unreachable", 1.0),
    ] {
        let series = format!("nodemedic_dispatch_alerts_total{{decision=\"{decision}\"}} ");
        assert_eq!(metric(&station.dispatcher, &series), count, "{decision}");
    }
}

#[test]
fn an_agent_that_does_not_take_it_is_told_of() {
    let node = Node::start("node-1");
    let setup = Setup::new();
    setup.secret("wrong", "password");
    let wrong = setup.path("wrong");
    let own = setup.secret("own", TOKEN);
    let text = format!(
        "[dispatch]\ntoken_file = {own:?}\nagent_token_file = {wrong:?}\nagents = [{:?}]\n",
        node.place()
    );
    let config = setup.file("dispatch.toml", &text, 0o644);
    let dispatcher = crate::agent::Agent::dispatcher(&["--config", config.to_str().unwrap()]);
    let answer = post(webhook_address(&dispatcher), &[alert("resolved", "node-1")]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(of_nodes(&answer, &["node-1"]), ["rejected"]);
    assert!(answer.body.contains("401"), "{answer:?}");
}

#[test]
fn agents_are_found_by_a_name_and_say_which_node_they_are() {
    let node = Node::start("node-1");
    let (report, webhook) = (node.agent.address.port(), node.webhook.port());
    let lines =
        format!("service = \"localhost\"\nreport_port = {report}\nwebhook_port = {webhook}\n");
    let station = Station::start(Setup::new(), &lines);
    let answer = station.post(&[alert("resolved", "node-1")]);
    assert_eq!(of_nodes(&answer, &["node-1"]), ["nothing_to_undo"]);
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn towards_agents_there_is_tls_with_certificates_of_both_sides() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let setup = Setup::new();
    let agent = servers.vouch("agent", 2100);
    setup.file("tls.crt", &agent.certificate_pem(), 0o644);
    setup.secret("tls.key", &agent.key_pem());
    setup.file("clients.crt", &clients.pem(), 0o644);
    let web = setup.file(
        "web.yaml",
        "tls_server_config: {cert_file: tls.crt, key_file: tls.key, client_ca_file: clients.crt, \
         client_auth_type: RequireAndVerifyClientCert}",
        0o644,
    );
    let agent = setup.start(&format!("web_config = {web:?}"));
    agent.agent.until_read();
    let place = place(NODE, agent.agent.address, agent.address);
    let place = place.replace(
        &format!("http://{}", agent.address),
        &format!("https://{}", agent.address),
    );

    let dispatch = |authority: &Authority, name: &str| {
        let setup = Setup::new();
        let own = clients.vouch("dispatch", 2100);
        let certificate = setup.file("own.crt", &own.certificate_pem(), 0o644);
        let key = setup.secret("own.key", &own.key_pem());
        let ca = setup.file("servers.crt", &authority.pem(), 0o644);
        let lines = format!(
            "agents = [{place:?}]\nagent_ca_file = {ca:?}\nagent_cert_file = {certificate:?}\n\
             agent_key_file = {key:?}\nagent_server_name = {name:?}"
        );
        let station = Station::start(setup, &lines);
        of_nodes(&station.post(&[alert("resolved", NODE)]), &[NODE])
    };
    assert_eq!(dispatch(&servers, ""), ["nothing_to_undo"]);
    assert_eq!(dispatch(&servers, "agent"), ["nothing_to_undo"]);
    assert_eq!(dispatch(&servers, "somebody"), ["unreachable"]);
    assert_eq!(dispatch(&Authority::new("servers"), ""), ["unreachable"]);
}

/// It has the gate of an agent's webhook.
#[test]
fn who_comes_in_is_asked_for_the_token() {
    let station = Station::of(&[nobody("node-1")], "");
    let body = payload(&[]).to_string();
    for (token, status) in [(None, 401), (Some("wrong"), 401), (Some(TOKEN), 200)] {
        let request = request("POST", "/alertmanager", token, &body);
        let answer = exchange(connect(station.address), &request);
        assert_eq!(answer.status, status, "{token:?}");
    }
    let request = request("POST", "/alertmanager", Some(TOKEN), "{\"version\": \"3\"}");
    assert_eq!(exchange(connect(station.address), &request).status, 400);
    let refused = "nodemedic_dispatch_requests_total{code=\"401\"} ";
    assert_eq!(metric(&station.dispatcher, refused), 2.0);
}

/// While a name cannot be looked up, an alert of any node may be of an agent that has it.
#[test]
fn while_the_agents_are_not_known_alerts_are_to_come_again() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let node = Node::start("node-1");
    let (report, webhook) = (node.agent.address.port(), node.webhook.port());
    let setup = Setup::new();
    let hosts = setup.file("hosts", "127.0.0.1 localhost\n", 0o644);
    let lines = format!(
        "service = \"agents.invalid\"\nreport_port = {report}\nwebhook_port = {webhook}\n\
         resolve_every = \"1s\""
    );
    let station = Station::start_with_hosts(setup, &lines, &hosts);
    let both = [alert("resolved", "node-1"), alert("firing", "node-9")];
    let answer = station.post(&both);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.headers.contains("retry-after: "), "{answer:?}");
    assert_eq!(
        of_nodes(&answer, &["node-1", "node-9"]),
        ["unreachable", "unreachable"]
    );
    assert!(answer.body.contains("look up agents.invalid"), "{answer:?}");
    let health = station.dispatcher.listener("health");
    assert_eq!(request_of(health, "/readyz").status, 503);
    assert_eq!(request_of(health, "/healthz").status, 200);
    // And once it can be, as before.
    let text = "127.0.0.1 localhost agents.invalid\n";
    std::fs::write(&hosts, text).unwrap();
    let answer = nodemedic_tests::eventually::eventually(crate::agent::LIMIT, "agents", || {
        let answer = station.post(&both);
        anyhow::ensure!(answer.status == 200, "{answer:?}");
        Ok(answer)
    });
    let answer = answer.unwrap();
    assert_eq!(
        of_nodes(&answer, &["node-1", "node-9"]),
        ["nothing_to_undo", "unknown_node"]
    );
    assert_eq!(request_of(health, "/readyz").status, 200);
}

fn request_of(address: std::net::SocketAddr, path: &str) -> nodemedic_tests::http::Response {
    nodemedic_tests::http::request("GET", address, path, "").unwrap()
}
