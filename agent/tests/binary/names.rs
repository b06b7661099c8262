//! Whoever tells the names of pods may hang or talk rubbish: the agent goes on, and says so.

use std::{fs, io::Write as _, os::unix::net::UnixListener, path::PathBuf, thread};

use serde_json::Value;
use tempfile::TempDir;

use crate::agent::{Agent, nodemedic, stdout};

/// A socket, and a configuration that has the agent ask there.
fn runtime(timeout: &str) -> (TempDir, UnixListener, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("cri.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let config = folder.path().join("nodemedic.toml");
    let text = format!("[node]\nnames = 'cri'\ncri_socket = {socket:?}\ntimeout = '{timeout}'\n");
    fs::write(&config, text).unwrap();
    (folder, listener, config)
}

fn taken(report: &str) -> f64 {
    let report: Value = serde_json::from_str(report).unwrap();
    report["unix_seconds"].as_f64().unwrap()
}

#[test]
fn a_runtime_that_hangs_delays_no_reading() {
    let (_folder, _listener, config) = runtime("60s");
    let agent = Agent::start(&["--interval", "1s", "--config", config.to_str().unwrap()]);
    agent.until_read();
    let first = taken(&agent.until("/report", |_| true));
    let later = agent.until("/report", |report| taken(report) > first + 2.0);
    let later: Value = serde_json::from_str(&later).unwrap();
    assert_eq!(later["names"]["answers"], 0, "{}", later["names"]);
    assert_eq!(later["names"]["pods"], 0);
}

#[test]
fn a_runtime_that_talks_rubbish_is_told() {
    let (_folder, listener, config) = runtime("5s");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        }
    });
    let config = config.to_str().unwrap();
    let output = nodemedic(&["check", "--window", "200ms", "--config", config]);
    let text = stdout(&output);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("ask the container runtime at"), "{text}");
}
