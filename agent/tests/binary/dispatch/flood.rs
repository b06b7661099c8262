//! More than anybody should send.

use std::{fs, io::Write as _, net::TcpStream};

use nodemedic_tests::http::get;

use super::setup::{Fake, Station, alert, nobody, post};
use crate::{
    agent::{Agent, rest},
    webhook::setup::connect,
};

/// Resident memory, KiB.
fn resident(agent: &Agent) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let words = line.unwrap().split_whitespace().next().unwrap();
    words.parse().unwrap()
}

/// 64 bodies of 4 MiB had the dispatcher killed at its limit of 128 MiB.
#[test]
fn bodies_without_the_token_take_no_memory() {
    const BODY: usize = 4 << 20;
    let station = Station::of(&[nobody("node-1")], "max_requests_per_minute = 60_000");
    assert_eq!(get(station.dispatcher.address, "/healthz").unwrap(), "ok\n");
    let before = resident(&station.dispatcher);
    let half = vec![b'x'; BODY - 1_000];
    let mut clients: Vec<_> = (0..64).map(|_| connect(station.address)).collect();
    let mut sent = 0;
    for client in &mut clients {
        let head = format!(
            "POST /alertmanager HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\
             Content-Length: {BODY}\r\n\r\n"
        );
        client
            .set_write_timeout(Some(std::time::Duration::from_millis(300)))
            .unwrap();
        let whole = client
            .write_all(head.as_bytes())
            .and_then(|()| client.write_all(&half));
        sent += usize::from(whole.is_ok());
    }
    let after = resident(&station.dispatcher);
    assert!(
        after < before + (16 << 10),
        "{before} and then {after} KiB; {sent} sent"
    );
    for mut client in clients.into_iter().take(8) {
        let answer = answer_of(&mut client);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 401 "),
            "{answer}"
        );
    }
    assert_eq!(station.post(&[alert("resolved", "")]).status, 200);
}

fn answer_of(client: &mut TcpStream) -> String {
    let _ = client.write_all(&[b'x'; 1_000]);
    rest(client)
}

#[test]
fn a_group_of_thousands_has_one_line_in_the_log_and_each_is_counted() {
    let station = Station::of(&[nobody("node-1")], "max_body_bytes = 16_000_000");
    let many: Vec<_> = (0..20_000)
        .map(|i| alert("firing", &format!("node-x{i}")))
        .collect();
    let answer = station.post(&many);
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("\"unlistedAlerts\":19000"));
    station.dispatcher.until_log("alert: unknown_node");
    let log = station.dispatcher.log();
    assert_eq!(log.matches("alert: unknown_node").count(), 1, "{log}");
    assert!(log.contains("\"others\":19999"), "{log}");
    let page = get(station.dispatcher.address, "/metrics").unwrap();
    let series = "nodemedic_dispatch_alerts_total{decision=\"unknown_node\"} 20000";
    assert!(page.lines().any(|line| line == series), "{page}");
}

/// Its answer names what there is, and the agent decides on as many as ever.
#[test]
fn an_agent_gets_a_hundred_of_a_group_of_thousands() {
    let agent = Fake::healthy("node-1");
    let station = Station::of(&[agent.place()], "max_body_bytes = 16_000_000");
    let many: Vec<_> = (0..5_000)
        .map(|i| {
            let mut alert = alert("firing", "node-1");
            alert["fingerprint"] = format!("of-{i}").into();
            alert
        })
        .collect();
    let answer = post(station.address, &many);
    assert_eq!(answer.body.matches("\"refused\"").count(), 100);
    assert_eq!(agent.posts(), 1);
}
