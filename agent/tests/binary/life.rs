//! Start, stop, and a second agent.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path};

use nodemedic_tests::http;
use rustix::process::{Signal, geteuid};

use crate::agent::{Agent, PROGRAM, assert_refused, nodemedic, rest};

#[test]
fn sigterm_and_sigint_end_it_well() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut agent = Agent::start(&[]);
        agent.until_ready();
        agent.signal(signal);
        assert_eq!(agent.end().code(), Some(0));
        assert!(agent.log().contains("\"done\""), "{}", agent.log());
    }
}

#[test]
fn sigterm_in_the_middle_of_attaching_ends_it_well() {
    let mut agent = Agent::start(&[]);
    agent.signal(Signal::TERM);
    assert_eq!(agent.end().code(), Some(0));
}

#[test]
fn a_request_under_way_is_answered_before_the_end() {
    let mut agent = Agent::start(&[]);
    agent.until_ready();
    let mut client = agent.client_under_way("/healthz");
    agent.signal(Signal::TERM);
    agent.until_log("SIGTERM");
    client.write_all(b"\r\n").unwrap();
    let answer = rest(&mut client);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(agent.end().code(), Some(0));
}

#[test]
fn a_client_that_hangs_holds_the_end_up_no_longer_than_the_drain() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    fs::write(&config, "[agent]\nshutdown_timeout = \"200ms\"\n").unwrap();
    let mut agent = Agent::start(&["--config", config.to_str().unwrap()]);
    agent.until_ready();
    let _client = agent.client_under_way("/");
    agent.signal(Signal::TERM);
    assert_eq!(agent.end().code(), Some(0));
    assert!(
        agent.log().contains("not done within 200ms"),
        "{}",
        agent.log()
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut agent = Agent::start(&[]);
    agent.until_ready();
    let _client = agent.client_under_way("/");
    agent.signal(Signal::TERM);
    agent.until_log("SIGTERM");
    agent.signal(Signal::INT);
    assert_eq!(agent.end().code(), Some(0));
    assert!(agent.log().contains("SIGINT again"), "{}", agent.log());
}

#[test]
fn a_port_in_use_is_said_with_the_address_and_the_way_out() {
    let first = Agent::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let address = first.address.to_string();
    let state = folder.path().to_str().unwrap();
    let second = nodemedic(&["run", "--listen", &address, "--state-dir", state]);
    let expected = [&address, "Address already in use", "--listen"];
    assert_refused(&second, 2, &expected);
}

#[test]
fn a_state_directory_in_use_is_said_with_its_holder() {
    let first = Agent::start(&[]);
    let state = first.state_dir().to_str().unwrap();
    let second = nodemedic(&["run", "--listen", "127.0.0.1:0", "--state-dir", state]);
    let holder = format!("process id {}", first.id());
    assert_refused(&second, 2, &[state, &holder]);
}

#[test]
fn a_state_directory_is_free_again_after_a_kill() {
    let mut first = Agent::start(&[]);
    first.signal(Signal::KILL);
    first.end();
    let state = first.state_dir().to_str().unwrap();
    let second = nodemedic(&["run", "--listen", "0.0.0.1:1", "--state-dir", state]);
    // It gets past the lock, and fails at an address that is not this machine's.
    assert_refused(&second, 2, &["0.0.0.1:1"]);
}

#[test]
fn an_ordinary_user_gets_an_agent_that_says_what_is_missing() {
    const NOBODY: u32 = 65_534;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("nodemedic");
    fs::copy(PROGRAM, &program).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let agent = if geteuid().is_root() {
        Agent::start_program(&program, Some(NOBODY), &[])
    } else {
        Agent::start_program(Path::new(PROGRAM), None, &[])
    };
    agent.until_ready();
    assert!(
        http::get(agent.address, "/metrics")
            .unwrap()
            .contains("nodemedic_ailment_up")
    );
    agent.until_log("remedy");
}
