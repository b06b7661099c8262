//! Clients that take connections and do nothing with them.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use nodemedic_tests::http::get;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::{
    agent::{Agent, LIMIT, rest},
    webhook::setup::{Setup, TOKEN, exchange, payload, request},
};

/// A connection from an address of its own.
pub(crate) fn from(address: &str, to: SocketAddr) -> TcpStream {
    let stream = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let own: SocketAddr = format!("{address}:0").parse().unwrap();
    bind(&stream, &own).unwrap();
    connect(&stream, &to).unwrap();
    let stream = TcpStream::from(stream);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Idle connections, and such as send half of their headers.
fn idle(to: SocketAddr) -> Vec<TcpStream> {
    let connection = |i| {
        let mut stream = TcpStream::connect(to).unwrap();
        if i % 2 == 0 {
            // One that has its share already is closed.
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHo");
        }
        stream
    };
    (0..128).map(connection).collect()
}

/// How many the agent has not closed.
fn open(streams: &mut [TcpStream]) -> usize {
    let is_open = |stream: &mut TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let read = stream.read(&mut [0]);
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    streams.iter_mut().map(is_open).filter(|it| *it).count()
}

#[test]
fn a_flood_of_the_pages_reaches_neither_the_health_checks_nor_other_clients() {
    let agent = Agent::start(&[]);
    let health = agent.listener("health");
    agent.until_ready();
    let mut flood = idle(agent.address);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(health, path).unwrap(), "ok\n");
    }
    let mut other = from("127.0.0.2", agent.address);
    other
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    assert!(rest(&mut other).starts_with("HTTP/1.1 200 OK"));
    // All of that while the flood had all that it can have.
    let open = open(&mut flood);
    assert!((16..=64).contains(&open), "{open} are open");
    // And the flooding host itself is answered when its others are closed.
    let page = agent.until("/metrics", |_| true);
    let series = "nodemedic_http_connections_refused_total{listener=\"pages\"} ";
    let refused = page.lines().find_map(|line| line.strip_prefix(series));
    assert!(refused.unwrap().parse::<usize>().unwrap() >= 64, "{page}");
}

/// A kubelet that asks from where the flood comes, too.
#[test]
fn a_flood_of_the_health_checks_themselves_does_not_silence_them() {
    let agent = Agent::start(&[]);
    let health = agent.listener("health");
    let mut flood = idle(health);
    assert_eq!(get(health, "/healthz").unwrap(), "ok\n");
    let open = open(&mut flood);
    assert!((1..=16).contains(&open), "{open} are open");
    let _floods: Vec<_> = (2..12)
        .flat_map(|i| (0..16).map(move |_| from(&format!("127.0.0.{i}"), health)))
        .collect();
    assert_eq!(get(health, "/healthz").unwrap(), "ok\n");
    let absent = nodemedic_tests::http::request("GET", health, "/report", "").unwrap();
    assert_eq!(absent.status, 404);
}

#[test]
fn a_flood_of_the_webhook_leaves_room_for_another_host() {
    let agent = Setup::new().guarded("");
    let _flood = idle(agent.address);
    let body = payload(&[]).to_string();
    let request = request("POST", "/alertmanager", Some(TOKEN), &body);
    let answer = exchange(from("127.0.0.2", agent.address), &request);
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn without_a_health_listener_the_pages_answer() {
    let agent = Agent::start(&["--health-listen", ""]);
    assert_eq!(get(agent.address, "/healthz").unwrap(), "ok\n");
    assert!(!agent.log().contains("\"health\":"), "{}", agent.log());
}
