//! `check`: observing, saving, judging again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::agent::{assert_refused, code, nodemedic, stderr, stdout};

/// A report of this node, saved.
fn saved() -> (TempDir, PathBuf, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let save = [
        "check",
        "--window",
        "200ms",
        "--save",
        path.to_str().unwrap(),
    ];
    let output = nodemedic(&save);
    let report: Value = serde_json::from_slice(&fs::read(&path).unwrap())
        .unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)));
    (folder, path, report)
}

fn replay(path: &Path, report: &Value) -> Output {
    fs::write(path, report.to_string()).unwrap();
    nodemedic(&["check", "--json", "--from", path.to_str().unwrap()])
}

#[test]
fn the_exit_code_is_the_verdict() {
    let output = nodemedic(&["check", "--window", "200ms", "--json"]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let ailments = report["ailments"].as_array().unwrap();
    // Whose module is not loaded here cannot be sick.
    let possible = ailments
        .iter()
        .filter(|ailment| ailment["coverage"]["state"] != "waiting");
    let codes = possible.map(|ailment| match ailment["verdict"].as_str() {
        Some("healthy") => (0, 0),
        Some("warning" | "critical") => (2, 1),
        _ => (1, 2),
    });
    let (_, worst) = codes.max().unwrap_or((0, 0));
    assert_eq!(code(&output), Some(worst), "{report}");
}

#[test]
fn only_what_is_asked_for_is_observed() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("nodemedic.toml");
    fs::write(&config, "[ailments.psi_stall]\nenabled = false\n").unwrap();
    let output = nodemedic(&[
        "check",
        "psi_stall",
        "--window",
        "200ms",
        "--json",
        "--config",
        config.to_str().unwrap(),
    ]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let ailments = report["ailments"].as_array().unwrap();
    let names: Vec<_> = ailments.iter().map(|ailment| &ailment["name"]).collect();
    assert_eq!(names, ["psi_stall"]);
    assert_ne!(ailments[0]["coverage"]["state"], "off", "{report}");
}

#[test]
fn an_unknown_ailment_is_refused_with_those_that_exist() {
    let output = nodemedic(&["check", "psi_stal"]);
    assert_refused(&output, 64, &["psi_stal", "psi_stall", "udp_conntrack"]);
}

#[test]
fn a_saved_report_gives_the_same_again() {
    let (_folder, path, report) = saved();
    let output = replay(&path, &report);
    let again: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(again, report);
}

#[test]
fn the_verdict_comes_from_the_reading_not_from_the_file() {
    let (_folder, path, mut report) = saved();
    let ailment = &mut report["ailments"][0];
    if ailment["reading"].is_null() {
        // No connection tracking here, so nothing that could be sick.
        assert_eq!(code(&replay(&path, &report)), Some(0));
        return;
    }
    ailment["reading"]["window_drops"]["drop"] = json!(7);
    ailment["verdict"] = json!("healthy");
    let output = replay(&path, &report);
    assert_eq!(code(&output), Some(1), "{}", stderr(&output));
    let again: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(again["ailments"][0]["findings"][0]["kind"], "table_full");
}

#[test]
fn a_report_of_another_version_is_refused_with_both() {
    let (_folder, path, mut report) = saved();
    report["version"] = json!(99);
    report["ailments"] = json!("as the future has it");
    let output = replay(&path, &report);
    let path = path.to_str().unwrap();
    assert_refused(
        &output,
        2,
        &["format version 99", "reads format version 2", path],
    );
}

#[test]
fn what_is_no_report_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    for content in ["", "{}", "[1]", "{\"version\": 2}", "not JSON"] {
        fs::write(&path, content).unwrap();
        let output = nodemedic(&["check", "--from", path.to_str().unwrap()]);
        assert_refused(&output, 2, &["report.json"]);
    }
    let absent = folder.path().join("absent.json");
    let output = nodemedic(&["check", "--from", absent.to_str().unwrap()]);
    assert_refused(&output, 2, &["absent.json"]);
}

/// Appends to every text that is free: those who name a cgroup, a process or a node choose it.
fn taint(value: &mut Value, with: &str) {
    const FREE: [&str; 13] = [
        "node", "kernel", "agent", "what", "why", "remedy", "place", "error", "path", "name",
        "comm", "device", "mount",
    ];
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| taint(item, with)),
        Value::Object(fields) => {
            for (key, field) in fields {
                match field {
                    Value::String(text) if FREE.contains(&key.as_str()) => text.push_str(with),
                    field => taint(field, with),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn text_from_outside_does_nothing_to_a_terminal() {
    const HOSTILE: &str = "\nforged: healthy\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{202e}\r";
    let (_folder, path, mut report) = saved();
    let names: Vec<_> = (report["ailments"].as_array().unwrap().iter())
        .map(|ailment| ailment["name"].clone())
        .collect();
    taint(&mut report, HOSTILE);
    // By them the ailments are found again.
    for (ailment, name) in report["ailments"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .zip(names)
    {
        ailment["name"] = name;
    }
    let json = replay(&path, &report);
    let text = nodemedic(&["check", "--from", path.to_str().unwrap()]);
    for output in [&json, &text] {
        let shown = stdout(output);
        assert!(shown.contains("forged: healthy\\u001b[2J"), "{shown}");
        let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!shown.contains(acts), "{shown:?}");
        assert!(
            !shown.lines().any(|line| line.starts_with("forged")),
            "{shown}"
        );
    }
    let again: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(again["node"], report["node"]);

    fs::write(
        &path,
        format!("{{\"version\": \"{}", HOSTILE.replace('\n', "")),
    )
    .unwrap();
    let refused = nodemedic(&["check", "--from", path.to_str().unwrap()]);
    assert!(!stderr(&refused).contains('\u{1b}'), "{}", stderr(&refused));
}

#[test]
fn an_ailment_that_this_agent_does_not_know_is_refused() {
    let (_folder, path, mut report) = saved();
    report["ailments"][0]["name"] = json!("other");
    let output = replay(&path, &report);
    assert_refused(&output, 2, &["\"other\""]);
}

#[test]
fn a_report_that_cannot_be_saved_is_a_failure() {
    let output = nodemedic(&["check", "--window", "200ms", "--save", "/proc/report.json"]);
    assert_refused(&output, 2, &["/proc/report.json"]);
}
