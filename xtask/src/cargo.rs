//! How programs are called, cargo above all.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::{build_dir, paths};

/// The agent runs on this, and every test: one target, one set of compiled dependencies.
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The C library becomes a part of the program: it runs on any distribution, in a VM without one,
/// and from an empty container image.
const STATIC: &str = "-Ctarget-feature=+crt-static";

/// Cargo in the workspace. Dependencies that one clone has compiled serve the next.
pub(crate) fn cargo(verb: &str) -> Command {
    let mut command = Command::new(program());
    command.current_dir(paths::root()).arg(verb);
    build_dir::choose(&mut command);
    command
}

/// The cargo that runs this, if one does.
pub(crate) fn program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Cargo in the workspace, for static programs.
///
/// The target is named although it is the host's own: only then do the flags spare build scripts
/// and procedural macros, which cannot be static.
pub(crate) fn cargo_static(verb: &str) -> Command {
    let mut command = cargo(verb);
    for variable in ["RUSTFLAGS", "RUSTDOCFLAGS"] {
        let users = env::var(variable).unwrap_or_default();
        command.env(variable, format!("{users} {STATIC}").trim_start());
    }
    command.args(["--target", TARGET]);
    command
}

/// Runs a command to its end; failure is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("start {}", shown(command)))?;
    ensure!(status.success(), "`{}` ended with {status}", shown(command));
    Ok(())
}

/// Becomes the command: its output is the last, its exit status ours, its signals its own.
pub(crate) fn exec(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(error).with_context(|| format!("start {}", shown(command)))
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let program = command.get_program().display().to_string();
    let arguments = command
        .get_args()
        .map(|argument| argument.display().to_string());
    std::iter::once(program)
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ")
}
