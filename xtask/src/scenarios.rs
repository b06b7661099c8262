//! The test binary as a program by itself, for what is no test: `cargo test` would stand between
//! it and the signals that end it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::cargo;

const NAME: &str = "scenarios";

/// Builds it.
pub(crate) fn program() -> Result<Command> {
    let mut build = cargo::cargo_static("test");
    // The whole workspace is selected for its features: then this shares what `test` has compiled.
    build.args(["--workspace", "--test", NAME, "--no-run"]);
    build.arg("--message-format=json-render-diagnostics");
    let output = build.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("start cargo to build the test {NAME}"))?;
    ensure!(
        output.status.success(),
        "building the test {NAME} ended with {}",
        output.status
    );
    let messages = String::from_utf8_lossy(&output.stdout);
    let built = messages.lines().find_map(executable);
    built
        .map(Command::new)
        .with_context(|| format!("cargo does not say where the test {NAME} is"))
}

/// Of a message of cargo that says where it is.
fn executable(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let ours = message["target"]["name"] == NAME && message["target"]["kind"][0] == "test";
    let executable = message["executable"].as_str()?;
    ours.then(|| executable.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_binary_is_found_among_cargos_messages() {
        let messages = [
            r#"{"reason":"compiler-artifact","target":{"name":"scenarios","kind":["lib"]},"executable":null}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"nodemedic","kind":["bin"]},"executable":"/nodemedic"}"#,
            r#"{"reason":"compiler-artifact","target":{"name":"scenarios","kind":["test"]},"executable":"/scenarios"}"#,
            "not JSON",
        ];
        let found = messages.into_iter().filter_map(executable);
        assert_eq!(found.collect::<Vec<_>>(), [PathBuf::from("/scenarios")]);
    }
}
