//! Prometheus' own checker of rules, and of their tests.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nodemedic_tests::tools;
use serde_json::json;

use crate::check::{Available, Check, Verdict, none};
use crate::dashboard;
use crate::rules;

const PROMTOOL: &str = "promtool";

/// On the path, else out of Debian's package of Prometheus, whose service is not installed.
pub(crate) fn find() -> Available<PathBuf> {
    if Command::new(PROMTOOL).arg("--version").output().is_ok() {
        return Available::Yes(PROMTOOL.into());
    }
    match tools::debian_program("prometheus", "usr/bin/promtool") {
        Ok(program) => Available::Yes(program),
        Err(error) => Available::No {
            why: format!("promtool is not on the path and cannot be fetched: {error:#}"),
        },
    }
}

/// What it says of a file if it is content.
fn run(promtool: &Path, arguments: &[&str], file: &Path) -> Result<String> {
    said(Command::new(promtool).args(arguments).arg(file))
}

/// The same for what it reads from its standard input.
pub(crate) fn feed(promtool: &Path, arguments: &[&str], file: &Path) -> Result<String> {
    let file = File::open(file).with_context(|| format!("open {}", file.display()))?;
    said(Command::new(promtool).args(arguments).stdin(file))
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().context("start promtool")?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(output.status.success(), "{command:?}: {said}");
    Ok(said)
}

fn the_rules_are_sound() -> Result<Verdict> {
    find().then(|promtool| {
        for file in rules::files()? {
            run(&promtool, &["check", "rules", "--lint-fatal"], &file)?;
        }
        Ok(Verdict::Passed)
    })
}

fn the_tests_of_the_rules_pass() -> Result<Verdict> {
    find().then(|promtool| {
        for file in rules::files()? {
            run(&promtool, &["test", "rules"], &rules::tests_of(&file))?;
        }
        Ok(Verdict::Passed)
    })
}

/// The dashboards' expressions as rules: then Prometheus' parser reads them, too.
fn it_reads_every_expression_of_a_dashboard() -> Result<Verdict> {
    find().then(|promtool| {
        let mut faults = Vec::new();
        for dashboard in dashboard::all()? {
            for query in dashboard.queries()? {
                let error = reads(&promtool, &query.expression).err();
                faults.extend(error.map(|error| format!("{}: {error:#}", query.place)));
            }
        }
        none(faults)
    })
}

/// JSON is YAML.
fn reads(promtool: &Path, expression: &str) -> Result<()> {
    let rule = json!({"record": "a", "expr": expression});
    let file = tempfile::NamedTempFile::new().context("make a file")?;
    let rules = json!({"groups": [{"name": "a", "rules": [rule]}]});
    fs::write(&file, rules.to_string()).context("write a rule")?;
    run(promtool, &["check", "rules"], file.path()).map(drop)
}

fn it_refuses_what_is_broken() -> Result<Verdict> {
    find().then(|promtool| {
        reads(&promtool, "sum(rate(a[5m]))")?;
        if reads(&promtool, "sum(rate(a))").is_ok() {
            bail!("it reads a rate without a range");
        }
        Ok(Verdict::Passed)
    })
}

#[rustfmt::skip]
pub(crate) const CHECKS: &[Check] = &[
    Check::new("promtool::the_rules_are_sound", the_rules_are_sound),
    Check::new("promtool::the_tests_of_the_rules_pass", the_tests_of_the_rules_pass),
    Check::new("promtool::it_reads_every_expression_of_a_dashboard", it_reads_every_expression_of_a_dashboard),
    Check::new("promtool::it_refuses_what_is_broken", it_refuses_what_is_broken),
];
