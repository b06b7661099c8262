//! Network namespaces, made by the `ip` that everybody uses.

use std::fs::File;
use std::panic::resume_unwind;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

use super::command::{self, Output};
use super::{COMMAND_LIMIT, sysctl};

/// Where `ip netns` keeps them.
pub(super) const FOLDER: &str = "/run/netns";

/// Dropping it removes the namespace and what is in it.
#[derive(Debug)]
pub struct NetNs {
    name: String,
}

impl NetNs {
    pub(crate) fn create(name: &str) -> Result<Self> {
        host(&format!(
            "ip netns add {name} && ip -n {name} link set lo up"
        ))?;
        Ok(Self {
            name: name.to_owned(),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What a shell in here prints for this.
    pub fn sh(&self, script: &str) -> Result<String> {
        let output = self.try_sh(script)?.ok();
        output.with_context(|| format!("in network namespace {}", self.name))
    }

    /// Without `ip netns exec`, which would mount a /sys for each command.
    pub fn try_sh(&self, script: &str) -> Result<Output> {
        self.within(|| command::shell(script, COMMAND_LIMIT))
    }

    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.within(|| sysctl::write(name, value))
    }

    /// A program that will run in here.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Joins this namespace to another by a pair of interfaces, each with an address like
    /// `10.0.0.1/24`.
    pub fn connect(&self, own: (&str, &str), peer: &Self, theirs: (&str, &str)) -> Result<()> {
        host(&format!(
            "ip link add {} netns {} type veth peer name {} netns {}",
            own.0, self.name, theirs.0, peer.name
        ))?;
        self.configure(own)?;
        peer.configure(theirs)
    }

    /// Joins this namespace to the guest's own, where the interface is called `outside`.
    pub fn connect_to_guest(&self, own: (&str, &str), outside: (&str, &str)) -> Result<()> {
        host(&format!(
            "ip link add {} netns {} type veth peer name {}",
            own.0, self.name, outside.0
        ))?;
        self.configure(own)?;
        host(&configuration("", outside)).map(drop)
    }

    fn configure(&self, interface: (&str, &str)) -> Result<()> {
        host(&configuration(&format!("-n {}", self.name), interface)).map(drop)
    }

    /// Runs a function on a thread that is in here: sockets that it opens are of this namespace.
    pub fn within<T: Send>(&self, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = format!("{FOLDER}/{}", self.name);
        let handle = File::open(&path).with_context(|| format!("open {path}"))?;
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&handle, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("enter the network namespace {}", self.name))?;
                f()
            });
            // A panic in there is the scenario's.
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        if let Err(error) = host(&format!("ip netns del {}", self.name)) {
            println!("{error:#}");
        }
    }
}

/// No IPv6 duplicate address detection: it would make the first seconds different.
fn configuration(place: &str, (interface, address): (&str, &str)) -> String {
    format!(
        "ip {place} -batch - <<'END'
address add {address} dev {interface} nodad
link set {interface} up
END"
    )
}

fn host(script: &str) -> Result<String> {
    command::shell(script, COMMAND_LIMIT)?.ok()
}
