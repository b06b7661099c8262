//! Clients that take their time, and the end of the agent.

use std::io::{Read as _, Write as _};

use rustix::process::Signal;

use super::setup::{Collector, NODE, Setup, TOKEN, alert, decisions, payload, request};

/// Whatever the agent says on a connection before it closes that.
fn until_closed(mut stream: std::net::TcpStream) -> String {
    let mut received = Vec::new();
    let _ = stream.read_to_end(&mut received);
    String::from_utf8_lossy(&received).into_owned()
}

fn still_there(agent: &Collector) {
    assert_eq!(agent.post(&payload(&[]).to_string()).status, 200);
}

#[test]
fn a_client_that_sends_no_headers_is_left() {
    let agent = Setup::new().guarded("");
    let mut client = agent.connect();
    client
        .write_all(b"POST /alertmanager HTTP/1.1\r\nHo")
        .unwrap();
    still_there(&agent);
    assert!(!until_closed(client).contains("200"));
}

#[test]
fn a_client_that_sends_no_body_is_told_and_left() {
    let agent = Setup::new().guarded("");
    let whole = request("POST", "/alertmanager", Some(TOKEN), &"x".repeat(100));
    let mut client = agent.connect();
    client
        .write_all(&whole.as_bytes()[..whole.len() - 50])
        .unwrap();
    still_there(&agent);
    assert!(until_closed(client).starts_with("HTTP/1.1 408 "));
}

#[test]
fn a_connection_carries_one_request() {
    let agent = Setup::new().guarded("");
    let body = payload(&[]).to_string();
    let twice = request("POST", "/alertmanager", Some(TOKEN), &body).repeat(2);
    let mut client = agent.connect();
    client.write_all(twice.as_bytes()).unwrap();
    assert_eq!(until_closed(client).matches("HTTP/1.1 200").count(), 1);
}

#[test]
fn an_alert_under_way_is_answered_before_the_end() {
    let mut agent = Setup::new().guarded("");
    let body = payload(&[alert("resolved", NODE, "other")]).to_string();
    let whole = request("POST", "/alertmanager", Some(TOKEN), &body);
    let (first, rest) = whole.split_at(whole.len() - 10);
    let mut client = agent.connect();
    client.write_all(first.as_bytes()).unwrap();
    // Connections are taken in their order: with a later one answered, this one is known.
    still_there(&agent);
    agent.agent.signal(Signal::TERM);
    agent.agent.until_log("SIGTERM");
    let answer = super::setup::exchange(client, rest);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(decisions(&answer), ["nothing_to_undo"]);
    assert_eq!(agent.agent.end().code(), Some(0));
}
