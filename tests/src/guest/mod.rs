//! The guest's side: what a scenario can do and ask.

pub(crate) mod child;
mod clean;
mod command;
pub(crate) mod init;
mod kernel;
mod mounts;
mod netns;
mod port;
mod process;
mod sysctl;

pub use self::command::Output;
pub use self::netns::NetNs;
pub use self::process::Process;

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;

use crate::protocol;

/// Long for a command under emulation, short beside a scenario's limit.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A booted kernel, for one scenario to work in. Nothing has to be put back: processes, network
/// namespaces, rules, modules and sysctls are cleaned up after each scenario. The guards are for
/// what has to end *during* one.
#[derive(Debug)]
pub struct Guest {
    _private: (),
}

impl Guest {
    pub(crate) fn new() -> Self {
        Self { _private: () }
    }

    /// What the host wants of the scenario beside running it.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T> {
        let json = env::var(protocol::INPUT_ENV).context("read the input")?;
        serde_json::from_str(&json).with_context(|| format!("the input is {json}"))
    }

    /// What the matrix calls this kernel. For the few that have to know; what a kernel has is
    /// better found by looking.
    pub fn kernel(&self) -> Result<String> {
        env::var(protocol::KERNEL_ENV).context("read the kernel's name")
    }

    /// A line for the person at the host, who sees what a scenario prints only when it has failed.
    pub fn tell(&self, line: &str) -> Result<()> {
        let line = format!("{}{line}\n", protocol::TOLD);
        fs::write(init::CONSOLE, line).with_context(|| format!("write to {}", init::CONSOLE))
    }

    /// What a shell prints for this; failure is an error with what it said.
    pub fn sh(&self, script: &str) -> Result<String> {
        command::shell(script, COMMAND_LIMIT)?.ok()
    }

    /// As [`Guest::sh`], for commands whose failure is no surprise.
    pub fn try_sh(&self, script: &str) -> Result<Output> {
        command::shell(script, COMMAND_LIMIT)
    }

    /// Runs a program to its end.
    pub fn run(&self, command: &mut Command, limit: Duration) -> Result<Output> {
        command::run(command, limit)
    }

    /// Starts a program that is stopped when the guard is dropped.
    pub fn start(&self, name: &str, command: &mut Command) -> Result<Process> {
        Process::start(name, command)
    }

    /// The agent with these arguments, to run or to start.
    pub fn agent<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Command> {
        ensure!(
            Path::new(protocol::AGENT).exists(),
            "this guest has no agent: NODEMEDIC_BIN was not set on the host"
        );
        let mut command = Command::new(protocol::AGENT);
        command.args(arguments);
        Ok(command)
    }

    /// A new network namespace; it is gone when the guard is dropped.
    pub fn netns(&self, name: &str) -> Result<NetNs> {
        NetNs::create(name)
    }

    pub fn sysctl(&self, name: &str) -> Result<String> {
        sysctl::read(name)
    }

    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        sysctl::write(name, value)
    }

    /// Loads a module and what it needs.
    pub fn modprobe(&self, module: &str) -> Result<()> {
        self.sh(&format!("modprobe {module}")).map(drop)
    }

    /// Unloads a module that nothing uses.
    pub fn rmmod(&self, module: &str) -> Result<()> {
        kernel::rmmod(module)
    }

    pub fn is_loaded(&self, module: &str) -> Result<bool> {
        Ok(kernel::modules()?.iter().any(|loaded| loaded == module))
    }

    /// How many CPUs there can be, with those that are not plugged in.
    pub fn possible_cpus(&self) -> Result<u32> {
        kernel::cpus("possible")
    }

    /// How many CPUs run.
    pub fn online_cpus(&self) -> Result<u32> {
        kernel::cpus("online")
    }

    /// Whether the kernel, or a loaded module, describes its types: `vmlinux`, `nf_conntrack`.
    pub fn has_btf(&self, of: &str) -> bool {
        kernel::has_btf(of)
    }

    /// Whether the kernel or a loaded module has a symbol of exactly this name.
    pub fn has_symbol(&self, name: &str) -> Result<bool> {
        kernel::has_symbol(name)
    }
}
