//! Verbs, exit codes, standard streams.

use std::process::{Command, Stdio};

use crate::agent::{PROGRAM, assert_refused, code, nodemedic, stderr, stdout};

#[test]
fn wrong_usage_is_64_and_says_what_is_right() {
    let cases: [&[&str]; 10] = [
        &[],
        &["diagnose"],
        &["run", "--port", "80"],
        &["run", "--listen", "localhost"],
        &["run", "--interval", "1ms"],
        &["check", "--window", "soon"],
        &["metrics"],
        &["config"],
        &["config", "--markdown"],
        &["config", "--default", "--check", "nodemedic.toml"],
    ];
    for arguments in cases {
        let output = nodemedic(arguments);
        assert_eq!(code(&output), Some(64), "{arguments:?}");
        assert_ne!(stderr(&output), "", "{arguments:?}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[test]
fn a_flag_out_of_range_says_the_range() {
    let output = nodemedic(&["run", "--interval", "1ms"]);
    assert_refused(&output, 64, &[r#""1ms" is not a time from "1s" to "1h""#]);
}

#[test]
fn an_old_flag_is_refused_with_the_new_one() {
    for arguments in [
        &["dispatch", "--pages", "127.0.0.1:0"][..],
        &["dispatch", "--pages=127.0.0.1:0"],
    ] {
        let expected = ["`--pages` was renamed: use `--http-listen`"];
        assert_refused(&nodemedic(arguments), 64, &expected);
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for arguments in [
        &["--help"][..],
        &["run", "--help"],
        &["help"],
        &["--version"],
    ] {
        let output = nodemedic(arguments);
        assert_eq!(code(&output), Some(0), "{arguments:?}");
        assert!(stdout(&output).contains("nodemedic"), "{arguments:?}");
    }
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let arguments = ["metrics", "--list", "--json"];
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_probes_of_this_kernel_are_listed() {
    let output = nodemedic(&["probes", "--json"]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let probes: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(probes[0]["ailment"], "udp_conntrack");
    for probe in probes[0]["probes"].as_array().unwrap() {
        let why = probe["missing"].as_array().unwrap();
        assert!(probe["hook"].is_string() || !why.is_empty(), "{probe}");
    }
    let text = stdout(&nodemedic(&["probes"]));
    assert!(text.starts_with("AILMENT"), "{text}");
}

#[test]
fn the_facts_of_this_kernel_are_json() {
    let output = nodemedic(&["probes", "--facts"]);
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
    let facts: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(facts["modules"]["nf_conntrack"].is_object(), "{facts}");
}

#[test]
fn a_flag_that_was_renamed_is_refused_with_its_new_name() {
    for (arguments, now) in [
        (&["treat", "psi_stall", "--with", "x"][..], "--treatment"),
        (&["treat", "psi_stall", "--for", "5m"], "--duration"),
        (&["sweep", "--for", "5s"], "--duration"),
    ] {
        assert_refused(&nodemedic(arguments), 64, &["renamed", now]);
    }
}
