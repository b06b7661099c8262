//! What is sent, right and wrong.

use nodemedic_tests::{eventually::eventually, http::Response};
use serde_json::{Value, json};

use super::setup::{Collector, NODE, Setup, TOKEN, alert, decisions, exchange, payload, request};
use crate::agent::LIMIT;

/// The answer once the ailment has been measured.
fn settled(agent: &Collector, body: &str) -> Response {
    eventually(LIMIT, "an answer that is no 503", || {
        let answer = agent.post(body);
        anyhow::ensure!(answer.status != 503, "{answer:?}");
        Ok(answer)
    })
    .unwrap()
}

#[test]
fn each_alert_is_answered_with_what_was_decided() {
    let agent = Setup::new().guarded("");
    let named = format!("{NODE}:19110");
    let body = payload(&[
        alert("firing", "node-8:19110", "udp_conntrack"),
        alert("firing", &named, "other"),
        alert("resolved", NODE, "udp_conntrack"),
        json!({"status": "firing", "labels": {"alertname": "Nameless"}, "startsAt": "1",
               "fingerprint": "2"}),
    ])
    .to_string();
    let answer = agent.post(&body);
    assert_eq!(answer.status, 200, "{answer:?}");
    let reply: Value = serde_json::from_str(&answer.body).unwrap();
    let why = reply["alerts"].to_string();
    assert!(why.contains("has no treatment; these have"), "{why}");
    assert!(why.contains("udp_conntrack"), "{why}");
    // What is resolved comes first.
    assert_eq!(
        decisions(&answer),
        ["nothing_to_undo", "other_node", "refused", "no_node"]
    );
    for decision in ["nothing_to_undo", "other_node", "refused", "no_node"] {
        let series = format!("nodemedic_webhook_alerts_total{{decision=\"{decision}\"}} ");
        assert_eq!(agent.metric(&series), 1.0, "{decision}");
    }
    let begun = "nodemedic_webhook_alerts_total{decision=\"begun\"} ";
    assert_eq!(agent.metric(begun), 0.0);
    assert_eq!(
        agent.metric("nodemedic_webhook_requests_total{code=\"200\"} "),
        1.0
    );
    agent.agent.until_log("alert: refused");
}

/// Whatever this machine is like, the same payload has the same answer again.
#[test]
fn a_payload_that_is_sent_again_changes_nothing() {
    let agent = Setup::new().guarded("");
    let body = payload(&[alert("firing", NODE, "udp_conntrack")]).to_string();
    let first = decisions(&settled(&agent, &body));
    assert!(
        ["refused", "dry-run"].contains(&first[0].as_str()),
        "{first:?}"
    );
    assert_eq!(decisions(&settled(&agent, &body)), first);
}

#[test]
fn what_is_no_payload_is_refused_with_what_to_do() {
    let agent = Setup::new().guarded("");
    let good = payload(&[alert("firing", NODE, "other")]);
    let with = |key: &str, value: Value| {
        let mut changed = good.clone();
        changed[key] = value;
        changed.to_string()
    };
    let truncated = &good.to_string()[..300];
    for (body, why) in [
        (with("version", json!("3")), "webhook_configs"),
        (with("version", json!(4)), "webhook_configs"),
        (with("alerts", json!("none")), "webhook_configs"),
        (with("alerts", json!([{}])), "missing field"),
        (
            with("alerts", json!([{"labels": {"a": 1}}])),
            "its label a is 1",
        ),
        (truncated.to_owned(), "webhook_configs"),
        (String::new(), "webhook_configs"),
        ("\u{0}\u{1}".to_owned(), "webhook_configs"),
    ] {
        let answer = agent.post(&body);
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.body.contains(why), "{body}: {answer:?}");
    }
    assert_eq!(
        agent.metric("nodemedic_webhook_requests_total{code=\"400\"} "),
        8.0
    );
}

/// The first alert of another node is said loudly, with the label that was looked at.
#[test]
fn an_alert_that_fits_nobody_is_a_warning_and_one_in_capitals_fits() {
    let agent = Setup::new().guarded("");
    let capitals = format!("{}.example.com:9100", NODE.to_uppercase());
    let body = payload(&[
        alert("resolved", &capitals, "other"),
        alert("firing", "192.0.2.7:9100", "other"),
    ]);
    let answer = agent.post(&body.to_string());
    assert_eq!(decisions(&answer), ["nothing_to_undo", "other_node"]);
    agent.agent.until_log("alert: other_node");
    let log = agent.agent.log();
    let line = log.lines().find(|line| line.contains("alert: other_node"));
    let line = line.unwrap();
    assert!(line.contains("WARN"), "{line}");
    assert!(line.contains("its label instance is"), "{line}");
}

/// Grafana's own alerting, and what Go writes for nothing.
#[test]
fn other_senders_are_understood() {
    let agent = Setup::new().guarded("");
    let mut of_grafana = payload(&[alert("resolved", NODE, "other")]);
    of_grafana["version"] = json!("1");
    of_grafana["orgId"] = json!(1);
    let answer = agent.post(&of_grafana.to_string());
    assert_eq!(decisions(&answer), ["nothing_to_undo"]);
    let mut nothing = payload(&[]);
    nothing["alerts"] = Value::Null;
    assert_eq!(agent.post(&nothing.to_string()).status, 200);
    let mut odd = payload(&[
        alert("firing", NODE, "other"),
        alert("firing", NODE, "other"),
    ]);
    odd["alerts"][1]["status"] = json!("suppressed");
    let answer = agent.post(&odd.to_string());
    assert_eq!(answer.status, 400);
    assert!(
        answer.body.contains("alert 2 of 2: its status"),
        "{answer:?}"
    );
    // Nothing of it was decided.
    let refused = "nodemedic_webhook_alerts_total{decision=\"refused\"} ";
    assert_eq!(agent.metric(refused), 0.0);
}

#[test]
fn only_a_post_of_its_path_is_taken() {
    let agent = Setup::new().guarded("");
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let answer = agent.ask(method, "/alertmanager", Some(TOKEN), "");
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.headers.contains("allow: POST"), "{answer:?}");
    }
    for path in [
        "/",
        "/alertmanager/",
        "/metrics",
        "/report",
        "/../alertmanager",
    ] {
        let answer = agent.ask("POST", path, Some(TOKEN), "{}");
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body.contains("/alertmanager"), "{answer:?}");
    }
}

#[test]
fn alerts_that_were_cut_off_are_said_loudly() {
    let agent = Setup::new().guarded("");
    let mut body = payload(&[alert("firing", "node-8", "other")]);
    body["truncatedAlerts"] = json!(7);
    let answer = agent.post(&body.to_string());
    assert_eq!(answer.status, 200);
    let reply: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(reply["truncatedAlerts"], 7);
    assert!(reply["warning"].as_str().unwrap().contains("max_alerts: 0"));
    agent.agent.until_log("7 alerts were cut off");
    assert_eq!(
        agent.metric("nodemedic_webhook_truncated_alerts_total "),
        7.0
    );
}

#[test]
fn a_body_that_ends_before_its_end_does_nothing() {
    let agent = Setup::new().guarded("");
    let body = payload(&[alert("firing", NODE, "other")]).to_string();
    let whole = request("POST", "/alertmanager", Some(TOKEN), &body);
    let half = &whole[..whole.len() - 10];
    let stream = agent.connect();
    let other = stream.try_clone().unwrap();
    std::io::Write::write_all(&mut &stream, half.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let answer = exchange(other, "");
    assert_eq!(answer.status, 400, "{answer:?}");
    let refused = "nodemedic_webhook_alerts_total{decision=\"refused\"} ";
    assert_eq!(agent.metric(refused), 0.0);
}

#[test]
fn ten_thousand_alerts_at_once_are_bounded_work() {
    let agent = Setup::new().guarded("");
    let many: Vec<_> = (0..10_000)
        .map(|_| alert("firing", NODE, "other"))
        .collect();
    let body = payload(&many).to_string();
    let answer = agent.post(&body);
    assert_eq!(answer.status, 413, "{}", answer.body);
    assert!(answer.body.contains("max_body_bytes"), "{answer:?}");

    let agent = Setup::new().guarded("max_body_bytes = 16_000_000");
    let answer = agent.post(&body);
    assert_eq!(answer.status, 200);
    let decided = decisions(&answer);
    let refused = decided.iter().filter(|it| *it == "refused").count();
    assert_eq!((decided.len(), refused), (1_000, 100));
    assert!(answer.body.contains("\"unlistedAlerts\":9000"));
    let log = agent.agent.log();
    assert_eq!(log.matches("alert: too_many").count(), 1, "{log}");
    assert!(log.contains("\"others\":9899"), "{log}");
    // And it is still there.
    assert_eq!(agent.post(&payload(&[]).to_string()).status, 200);
}

#[test]
fn a_count_of_truncated_alerts_that_cannot_be_is_not_added_up() {
    let agent = Setup::new().guarded("");
    let mut truncated = payload(&[]);
    truncated["truncatedAlerts"] = json!(u64::MAX);
    for _ in 0..2 {
        assert_eq!(agent.post(&truncated.to_string()).status, 200);
    }
    let series = "nodemedic_webhook_truncated_alerts_total ";
    assert_eq!(agent.metric(series), 2e6);
    truncated["truncatedAlerts"] = json!(3);
    assert_eq!(agent.post(&truncated.to_string()).status, 200);
    assert_eq!(agent.metric(series), 2_000_003.0);
}

#[test]
fn too_many_requests_are_to_come_again() {
    let agent = Setup::new().guarded("max_requests_per_minute = 2");
    // Those who may not come in use up nobody's turn.
    for _ in 0..5 {
        assert_eq!(agent.ask("POST", "/alertmanager", None, "{}").status, 401);
    }
    let body = payload(&[]).to_string();
    assert_eq!(agent.post(&body).status, 200);
    assert_eq!(agent.post(&body).status, 200);
    let answer = agent.post(&body);
    assert_eq!(answer.status, 503);
    assert!(answer.headers.contains("retry-after: "), "{answer:?}");
}

#[test]
fn without_a_webhook_there_are_no_series_of_one() {
    let agent = crate::agent::Agent::start(&[]);
    let page = nodemedic_tests::http::get(agent.address, "/metrics").unwrap();
    assert!(!page.contains("nodemedic_webhook"), "{page}");
    assert!(
        !agent.log().contains("alerts are received"),
        "{}",
        agent.log()
    );
}
