//! The HTTP server against clients that ask for the wrong thing, or too much.

use std::{io::Write as _, net::TcpStream};

use nodemedic_tests::http::{get, request};

use crate::agent::{Agent, rest};

fn raw(agent: &Agent, request: &str) -> String {
    let mut client = TcpStream::connect(agent.address).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    rest(&mut client)
}

#[test]
fn every_page_answers_and_no_other() {
    let agent = Agent::start(&[]);
    agent.until_ready();
    for path in ["/", "/metrics", "/report", "/healthz", "/readyz"] {
        assert!(!get(agent.address, path).unwrap().is_empty(), "{path}");
    }
    let absent = request("GET", agent.address, "/metric", "").unwrap();
    assert_eq!(absent.status, 404);
    let posted = request("POST", agent.address, "/metrics", "a=b").unwrap();
    assert_eq!(posted.status, 405);
    assert!(
        posted.headers.contains("allow: GET, HEAD"),
        "{}",
        posted.headers
    );
}

#[test]
fn head_has_the_headers_and_nothing_else() {
    let agent = Agent::start(&[]);
    agent.until_ready();
    let answer = raw(&agent, "HEAD /report HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(
        answer.contains("content-type: application/json"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn requests_that_are_too_large_or_none_are_refused() {
    let agent = Agent::start(&[]);
    let many = "A: b\r\n".repeat(100);
    let long = format!("A: {}\r\n", "b".repeat(64 * 1024));
    for headers in [many, long] {
        let answer = raw(&agent, &format!("GET / HTTP/1.1\r\n{headers}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
    let answer = raw(&agent, "hello\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn a_client_that_sends_no_headers_is_left() {
    let agent = Agent::start(&[]);
    assert_eq!(raw(&agent, "GET / HTTP/1.1\r\nHost"), "");
}

#[test]
fn more_clients_than_are_taken_at_once_are_all_answered() {
    let agent = Agent::start(&[]);
    let connect = |_| TcpStream::connect(agent.address).unwrap();
    let mut clients: Vec<_> = (0..60).map(connect).collect();
    for client in &mut clients {
        client
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
    }
    for client in &mut clients {
        assert!(rest(client).starts_with("HTTP/1.1 200 OK"));
    }
}

/// A page on the internet that gives its own name the address of the node is not shown what is on it.
#[test]
fn pages_with_addresses_answer_to_names_of_the_node_alone() {
    let agent = Agent::start(&["--node-name", "node-7.example.com"]);
    agent.until_ready();
    let status = |path: &str, host: &str| {
        let answer = raw(
            &agent,
            &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        );
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    for path in ["/", "/report"] {
        for host in ["127.0.0.1:19110", "localhost", "node-7.example.com:80", "a"] {
            assert_eq!(status(path, host), "200", "{path} {host}");
        }
        assert_eq!(status(path, "rebind.example.net"), "421", "{path}");
    }
    // Prometheus may come by the name of a service.
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(status(path, "nodemedic.monitoring.svc"), "200", "{path}");
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    std::fs::write(
        &config,
        "[agent]\nallowed_hosts = [\"pages.example.net\"]\n",
    )
    .unwrap();
    let agent = Agent::start(&["--config", config.to_str().unwrap()]);
    agent.until_ready();
    let request = "GET /report HTTP/1.1\r\nHost: pages.example.net:19110\r\n\r\n";
    assert!(raw(&agent, request).starts_with("HTTP/1.1 200 "));
}
