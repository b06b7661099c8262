//! Start, stop, pages, and what cannot be right.

use nodemedic_tests::http::{get, request};
use rustix::process::Signal;

use super::setup::{Station, nobody};
use crate::{
    agent::{assert_refused, nodemedic},
    webhook::setup::{Setup, shown},
};

#[test]
fn it_has_metrics_and_health_and_ends_well() {
    let mut station = Station::of(&[nobody("node-1")], "");
    let pages = station.dispatcher.address;
    let page = get(pages, "/metrics").unwrap();
    crate::exposition::parse(&page).unwrap();
    for name in [
        "nodemedic_build_info",
        "process_open_fds",
        "nodemedic_dispatch_agents",
    ] {
        assert!(page.contains(name), "{page}");
    }
    assert_eq!(get(pages, "/healthz").unwrap(), "ok\n");
    assert_eq!(request("POST", pages, "/metrics", "").unwrap().status, 405);
    assert_eq!(
        request("GET", pages, "/alertmanager", "").unwrap().status,
        404
    );
    station.dispatcher.signal(Signal::TERM);
    assert_eq!(station.dispatcher.end().code(), Some(0));
    assert!(station.dispatcher.log().contains("\"done\""));
}

#[test]
fn what_cannot_be_right_is_said_before_anything_is_done() {
    let setup = Setup::new();
    let readable = setup.file("readable", "secret", 0o644);
    let agents = "agents = [\"a http://127.0.0.1:1 http://127.0.0.1:2\"]\n";
    let https = "agents = [\"a http://127.0.0.1:1 https://127.0.0.1:2\"]\n";
    for (lines, why) in [
        (String::new(), "no agent is known"),
        (format!("{agents}listen = \"0.0.0.0:0\""), "token_file"),
        (
            format!("{agents}agent_token_file = {readable:?}"),
            "chmod 0400",
        ),
        (https.to_owned(), "agent_ca_file"),
        (
            format!("{agents}agent_cert_file = \"a\""),
            "need each other",
        ),
        (
            format!("{agents}agent_server_name = \"a b\""),
            "agent_server_name",
        ),
    ] {
        let config = shown(&setup.file("dispatch.toml", &format!("[dispatch]\n{lines}\n"), 0o644));
        for more in [&[][..], &["--check-config"]] {
            let arguments = ["dispatch", "--config", &config];
            let output = nodemedic(&[&arguments[..], more].concat());
            assert_refused(&output, 64, &[why]);
        }
    }
    for (lines, why) in [
        ("agents = [\"node-7\"]", "NODE REPORT WEBHOOK"),
        ("max_nodes = 0", "from 1 to"),
        ("max_percent = 101", "from 1 to 100"),
        ("limit = 1", "max_nodes"),
    ] {
        let config = shown(&setup.file("dispatch.toml", &format!("[dispatch]\n{lines}\n"), 0o644));
        assert_refused(&nodemedic(&["dispatch", "--config", &config]), 64, &[why]);
    }
}
