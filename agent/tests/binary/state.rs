//! The state directory: whom it belongs to, and who holds it.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
    thread,
    time::Duration,
};

use nodemedic_tests::eventually::eventually;
use rustix::process::Signal;

use crate::agent::{Agent, LIMIT, assert_refused, code, nodemedic, stderr, stdout};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_directory_that_others_may_write_to_is_refused_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    mode(folder.path(), 0o777);
    let state = folder.path().to_str().unwrap();
    // An address that is not this machine's: an agent that takes the directory ends too.
    let run = ["run", "--listen", "0.0.0.1:1", "--state-dir", state];
    for verb in [
        &run[..],
        &["undo", "--state-dir", state],
        &["status", "--state-dir", state],
        &["pause", "--state-dir", state],
    ] {
        let refused = nodemedic(verb);
        assert_refused(&refused, 2, &["others may write to", "chmod go-w"]);
    }
}

/// A journal as somebody could have written it who is not this agent.
fn journal(key: &str, to: u64) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let run = serde_json::json!({
        "id": 1, "treatment": "udp_timeout", "ailment": "udp_conntrack", "against": [],
        "trigger": {"by": "auto"}, "state": "intended", "why": "", "boot": boot.trim(),
        "changes": [{"key": key, "netns": 1, "from": 1, "to": to}],
        "began_unix_seconds": 1.0, "ends_unix_seconds": 2.0, "began": 1.0, "watched_until": 1.0,
        "ends": 2.0, "ended": null, "ending": null, "reapplied": 0,
        "before": [],
    });
    let line = serde_json::json!({"unix_seconds": 1.0, "run": run});
    format!("{{\"nodemedic_journal\":1}}\n{line}\n")
}

/// The file is a regular one that could be written: nothing but the check of keys is in the way.
#[test]
fn a_journal_of_somebody_else_makes_no_file_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    fs::write(&target, "7").unwrap();
    let file = target.to_str().unwrap().trim_start_matches('/');
    for key in [
        format!("../../{file}"),
        format!("/{file}"),
        "kernel.panic".to_owned(),
    ] {
        let state = folder.path().join("state");
        fs::create_dir_all(&state).unwrap();
        mode(&state, 0o700);
        fs::write(state.join("journal"), journal(&key, 7)).unwrap();
        let undo = nodemedic(&["undo", "--state-dir", state.to_str().unwrap()]);
        assert_refused(&undo, 2, &["never sets", &key, "manually"]);
        assert_eq!(fs::read_to_string(&target).unwrap(), "7");
    }
}

#[test]
fn an_undo_right_after_a_kill_does_the_work_itself() {
    for _ in 0..3 {
        let mut agent = Agent::start(&[]);
        let state = agent.state_dir().to_str().unwrap().to_owned();
        agent.signal(Signal::KILL);
        let undo = nodemedic(&["undo", "--state-dir", &state]);
        assert_eq!(code(&undo), Some(0), "{}", stderr(&undo));
        assert!(stdout(&undo).contains("no treatment is active"));
        agent.end();
    }
}

/// The same without luck: the socket resets every connection, and the lock is held, for a while.
#[test]
fn an_undo_waits_for_a_process_that_still_holds_its_socket() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_owned();
    let lock = fs::File::create(state.join("lock")).unwrap();
    mode(&state.join("lock"), 0o600);
    lock.lock().unwrap();
    let listener = UnixListener::bind(state.join("control")).unwrap();
    let dying = thread::spawn(move || {
        drop(listener.accept().unwrap());
        drop(listener.accept().unwrap());
        drop(listener);
        thread::sleep(Duration::from_millis(300));
        drop(lock);
    });
    let undo = nodemedic(&["undo", "--state-dir", state.to_str().unwrap()]);
    assert_eq!(code(&undo), Some(0), "{}", stderr(&undo));
    dying.join().unwrap();
}

#[test]
fn the_control_socket_is_the_owners_with_any_umask() {
    let mut agent = Agent::start_with_umask(0);
    let socket = agent.state_dir().join("control");
    eventually(LIMIT, "there is a socket", || Ok(fs::metadata(&socket)?)).unwrap();
    let bits = fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(bits, 0o600, "{bits:o}");
    agent.signal(Signal::TERM);
    agent.end();
}
