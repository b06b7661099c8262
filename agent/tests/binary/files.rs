//! Files that are none, or too much.

use std::{fs::File, os::unix::fs::chown, path::Path, time::Duration};

use rustix::{
    fs::{CWD, Mode, mkfifoat},
    process::geteuid,
};

use crate::{
    agent::{assert_refused, nodemedic},
    webhook::setup::{Setup, TOKEN, shown},
};

fn fifo(path: &Path) {
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
}

/// Nothing waits for a writer of a FIFO.
#[test]
fn a_fifo_in_the_place_of_a_file_is_refused_at_once() {
    let setup = Setup::new();
    let fifo_at = setup.path("fifo");
    fifo(&fifo_at);
    let config = |line: &str| shown(&setup.config(line));
    for key in ["token_file", "web_config"] {
        let config = config(&format!("{key} = {fifo_at:?}"));
        let output = nodemedic(&["run", "--check-config", "--config", &config]);
        let texts = [&format!("[webhook] {key}"), "is a FIFO", "regular file"];
        assert_refused(&output, 64, &texts);
    }
    let web = setup.file(
        "web.yaml",
        "tls_server_config: {cert_file: fifo, key_file: fifo}",
        0o644,
    );
    let config = config(&format!("web_config = {web:?}"));
    let output = nodemedic(&["run", "--check-config", "--config", &config]);
    assert_refused(&output, 64, &["is a FIFO"]);
    let fifo_at = shown(&fifo_at);
    for arguments in [
        ["config", "--check", &fifo_at],
        ["check", "--config", &fifo_at],
    ] {
        assert_refused(&nodemedic(&arguments), 64, &["is a FIFO"]);
    }
    let folder = shown(setup.folder.path());
    let output = nodemedic(&["config", "--check", &folder]);
    assert_refused(&output, 64, &["is a directory"]);
}

/// Its owner can put another in its place.
#[test]
fn a_token_of_another_user_is_refused() {
    if !geteuid().is_root() {
        return;
    }
    let setup = Setup::new();
    let token = setup.secret("token", TOKEN);
    let config = shown(&setup.config(&format!("token_file = {token:?}")));
    let check = || nodemedic(&["run", "--check-config", "--config", &config]);
    assert_eq!(check().status.code(), Some(0));
    chown(&token, Some(12_345), None).unwrap();
    assert_refused(
        &check(),
        64,
        &["[webhook] token_file", "user 12345", "chown"],
    );
}

/// A file of 1 GB took 1 GB of memory.
#[test]
fn a_saved_report_that_is_too_large_is_not_read() {
    let setup = Setup::new();
    let path = setup.path("report.json");
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let output = nodemedic(&["check", "--from", &shown(&path)]);
    assert_refused(&output, 2, &["report.json", "larger than 16777216 bytes"]);
    let config = setup.path("config.toml");
    File::create(&config).unwrap().set_len(1 << 30).unwrap();
    let output = nodemedic(&["config", "--check", &shown(&config)]);
    assert_refused(&output, 64, &["larger than 1048576 bytes"]);
}

/// As `curl … | nodemedic check --from /dev/stdin` has it.
#[test]
fn a_saved_report_may_come_through_a_pipe() {
    let setup = Setup::new();
    let path = setup.path("pipe");
    fifo(&path);
    let writer = std::thread::spawn({
        let path = path.clone();
        move || {
            std::thread::sleep(Duration::from_millis(100));
            std::fs::write(path, "{\"version\": 0}").unwrap();
        }
    });
    let output = nodemedic(&["check", "--from", &shown(&path)]);
    writer.join().unwrap();
    assert_refused(&output, 2, &["format version 0"]);
}
