//! The token.

use std::fs;

use super::bed::{Bed, TOKEN, payload, refuses, shown};

#[test]
fn without_the_token_nobody_learns_or_does_anything() {
    let collector = Bed::new().guarded("");
    let body = payload(&[]).to_string();
    for token in [None, Some(""), Some("hunter"), Some("hunter22")] {
        for (method, path) in [
            ("POST", "/alertmanager"),
            ("GET", "/"),
            ("GET", "/alertmanager"),
        ] {
            let answer = collector.ask(method, path, token, &body);
            assert_eq!(answer.status, 401, "{token:?} {method} {path}");
            assert!(
                answer.headers.contains("www-authenticate: Bearer"),
                "{answer:?}"
            );
        }
    }
    assert_eq!(collector.post(&body).status, 200);
    assert!(
        !collector.agent.log().contains(TOKEN),
        "{}",
        collector.agent.log()
    );
}

#[test]
fn a_token_that_is_renewed_holds_at_once() {
    let collector = Bed::new().guarded("");
    let body = payload(&[]).to_string();
    assert_eq!(collector.post(&body).status, 200);
    // As a kubelet does it: another file in its place.
    let new = collector.bed.secret("new", "correct-horse\n");
    fs::rename(new, collector.bed.path("token")).unwrap();
    assert_eq!(collector.post(&body).status, 401);
    let answer = collector.ask("POST", "/alertmanager", Some("correct-horse"), &body);
    assert_eq!(answer.status, 200);
}

#[test]
fn a_token_that_others_can_read_is_none() {
    let collector = Bed::new().guarded("");
    let body = payload(&[]).to_string();
    collector.bed.file("token", TOKEN, 0o644);
    let answer = collector.post(&body);
    assert_eq!(answer.status, 503);
    collector.agent.until_log("chmod 0400");
    collector.bed.secret("token", TOKEN);
    assert_eq!(collector.post(&body).status, 200);
}

/// What `run` and `run --check-config` say before anything else happens.
fn refusal(bed: &Bed, webhook: &str, texts: &[&str]) {
    let config = bed.config(webhook);
    for more in [&[][..], &["--check-config"]] {
        refuses(bed, &config, more, texts);
    }
}

#[test]
fn a_file_that_is_no_secret_keeps_the_agent_from_its_start() {
    let bed = Bed::new();
    let readable = bed.file("readable", TOKEN, 0o640);
    let empty = bed.secret("empty", "\n");
    let absent = bed.path("absent");
    for (file, why) in [
        (readable, "chmod 0400"),
        (empty, "no token"),
        (absent, "No such file"),
    ] {
        let line = format!("token_file = {file:?}");
        refusal(&bed, &line, &["[webhook] token_file", &shown(&file), why]);
    }
}

#[test]
fn where_others_can_come_there_has_to_be_a_token_or_a_certificate() {
    let bed = Bed::new();
    let config = bed.file(
        "open.toml",
        "[webhook]\nenabled = true\nlisten = \"0.0.0.0:0\"\n",
        0o644,
    );
    let texts = ["0.0.0.0:0", "token_file", "RequireAndVerifyClientCert"];
    refuses(&bed, &config, &[], &texts);
}
