//! Configuration files, good and bad.

use std::{fs, net::TcpListener, path::PathBuf};

use nodemedic_tests::http::get;
use tempfile::TempDir;

use crate::agent::{Agent, assert_refused, code, nodemedic, stderr, stdout};

/// A file of this content, in a folder that lives as long.
fn file(content: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nodemedic.toml");
    fs::write(&path, content).unwrap();
    (folder, path)
}

/// What is said of a file with this content by each verb that reads one.
fn refusals(content: &str) -> Vec<String> {
    let (_folder, path) = file(content);
    let path = path.to_str().unwrap();
    let verbs: [&[&str]; 5] = [
        &["config", "--check", path],
        &["run", "--check-config", "--config", path],
        &["run", "--config", path],
        &["check", "--config", path],
        &["probes", "--config", path],
    ];
    let refusal = |arguments: &&[&str]| {
        let output = nodemedic(arguments);
        assert_refused(&output, 64, &[path]);
        stderr(&output).replace(path, "FILE")
    };
    verbs.iter().map(refusal).collect()
}

#[test]
fn every_verb_refuses_a_faulty_file_with_line_column_and_what_is_allowed() {
    for refusal in refusals("[agent]\ninterval = 5\n\n[log]\nlevle = \"info\"\n") {
        assert_eq!(
            refusal,
            "nodemedic: FILE:2:12: agent.interval: 5 is not a time from \"1s\" to \"1h\"\n\
             FILE:5:1: unknown key `levle`, allowed are: level, format\n"
        );
    }
}

#[test]
fn every_verb_refuses_old_names_with_the_new_ones() {
    for refusal in refusals("[treatment]\nper_hour = 6\n") {
        assert_eq!(
            refusal,
            "nodemedic: FILE:1:2: `treatment` was renamed: use `treatment_policy`\n\
             FILE:2:1: `per_hour` was renamed: use `max_per_hour`\n"
        );
    }
}

#[test]
fn malformed_toml_is_refused_with_its_place() {
    for refusal in refusals("[agent]\nlisten = \"127.0.0.1\n") {
        assert!(refusal.starts_with("nodemedic: FILE:2:"), "{refusal}");
    }
}

#[test]
fn a_map_that_cannot_be_so_small_is_refused() {
    for refusal in refusals("[ailments.udp_conntrack]\nmax_flows = 0\n") {
        assert!(
            refusal.contains("FILE:2:13: ailments.udp_conntrack.max_flows: 0"),
            "{refusal}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("absent.toml"), folder.path().to_owned()] {
        let output = nodemedic(&["run", "--config", path.to_str().unwrap()]);
        assert_refused(&output, 64, &[path.to_str().unwrap()]);
    }
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("binary.toml");
    fs::write(&path, [0xff, 0xfe, 0]).unwrap();
    let output = nodemedic(&["config", "--check", path.to_str().unwrap()]);
    assert_refused(&output, 64, &["binary.toml"]);
}

#[test]
fn the_printed_defaults_are_a_valid_file() {
    let defaults = stdout(&nodemedic(&["config", "--default"]));
    assert!(
        defaults.contains("listen = \"127.0.0.1:19110\""),
        "{defaults}"
    );
    let (_folder, path) = file(&defaults);
    let output = nodemedic(&["config", "--check", path.to_str().unwrap()]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
}

#[test]
fn the_defaults_are_printed_as_tables_too() {
    let output = nodemedic(&["config", "--default", "--markdown"]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let page = stdout(&output);
    assert!(
        page.contains("| `listen` | `\"127.0.0.1:19110\"` |"),
        "{page}"
    );
}

#[test]
fn flags_win_over_the_file() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let (_folder, path) = file(&format!(
        "[agent]\nlisten = \"{address}\"\nnode_name = \"from-file\"\n"
    ));
    let agent = Agent::start(&[
        "--config",
        path.to_str().unwrap(),
        "--node-name",
        "from-flag",
    ]);
    assert_ne!(agent.address, address);
    agent.until("/", |page| page.contains("nodemedic on from-flag"));
}

#[test]
fn an_ailment_that_is_switched_off_has_no_series_and_is_no_reason_to_wait() {
    let (_folder, path) = file("[ailments.udp_conntrack]\nenabled = false\n");
    let agent = Agent::start(&["--config", path.to_str().unwrap()]);
    agent.until_ready();
    let page = get(agent.address, "/metrics").unwrap();
    assert!(page.contains("nodemedic_build_info"), "{page}");
    assert!(!page.contains("udp_conntrack"), "{page}");
}
