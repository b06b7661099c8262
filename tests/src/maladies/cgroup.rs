//! Cgroups with tasks that wait: at a memory limit, under a quota, behind a neighbour.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::guest::{Guest, Process};

const ROOT: &str = "/sys/fs/cgroup";

/// Spins for ever.
pub const SPIN: &str = "while :; do :; done";

/// Wants 64 MiB again and again.
pub const HUNGRY: &str =
    "while :; do dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; done";

/// A cgroup; it goes when the guest is cleaned up.
#[derive(Debug)]
pub struct Cgroup {
    path: &'static str,
}

impl Cgroup {
    /// Makes it, with the controllers of CPU, memory and disks: `/a`, or `/a/b` below one that is there.
    pub fn create(path: &'static str) -> Result<Self> {
        let above = path.rfind('/').map_or("", |end| &path[..end]);
        write(
            &format!("{above}/cgroup.subtree_control"),
            "+cpu +memory +io",
        )?;
        let folder = PathBuf::from(format!("{ROOT}{path}"));
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self { path })
    }

    /// Writes one of its files.
    pub fn set(&self, file: &str, value: &str) -> Result<()> {
        write(&format!("{}/{file}", self.path), value)
    }

    /// Runs a script of the shell in it.
    pub fn start(&self, guest: &Guest, name: &str, script: &str) -> Result<Process> {
        let enter = format!("echo $$ > {ROOT}{}/cgroup.procs; {script}", self.path);
        guest.start(name, Command::new("/bin/sh").args(["-c", &enter]))
    }
}

fn write(file: &str, value: &str) -> Result<()> {
    let path = format!("{ROOT}{file}");
    fs::write(&path, value).with_context(|| format!("write {value:?} to {path}"))
}
