//! Takes away what a scenario has left, so that the next one finds the guest as it booted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::mount::umount;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{child, command, kernel, netns};
use crate::eventually::eventually;
use crate::faults::disk;
use crate::files;

/// The settings that scenarios, and the agent's treatments, change.
const SYSCTLS: &[&str] = &["/proc/sys/net", "/proc/sys/vm"];

/// Who changes the legacy tables, and where the kernel names those that there are.
const LEGACY: &[(&str, &str)] = &[
    ("iptables-legacy", "/proc/net/ip_tables_names"),
    ("ip6tables-legacy", "/proc/net/ip6_tables_names"),
];

/// Where programs leave files.
const FILES: &str = "/tmp/* /var/lib/* /var/log/* /run/nodemedic";

/// Namespaces go in the background, and hold modules while they do.
const PATIENCE: Duration = Duration::from_secs(20);

/// How the guest was before the first scenario.
#[derive(Debug)]
pub(crate) struct Baseline {
    modules: BTreeSet<String>,
    links: BTreeSet<String>,
    mounts: Vec<String>,
    sysctls: BTreeMap<PathBuf, Vec<u8>>,
}

impl Baseline {
    pub(crate) fn take() -> Result<Self> {
        Ok(Self {
            modules: kernel::modules()?.into_iter().collect(),
            links: links()?,
            mounts: mounts()?,
            sysctls: sysctls()?,
        })
    }

    /// Goes back to it; gives what could not be put right.
    pub(crate) fn restore(&self) -> Vec<String> {
        let steps: [(&str, Result<()>); 13] = [
            ("processes", kill_all()),
            ("swap", stop_swapping()),
            ("mounts", self.unmount()),
            ("disks", remove_disks()),
            ("network namespaces", remove_namespaces()),
            ("interfaces", self.remove_links()),
            ("packet filter rules", flush_rules()),
            ("virtual services", clear_services()),
            ("BPF pins", remove_pins()),
            ("cgroups", remove_cgroups()),
            ("files", remove_files()),
            ("modules", self.unload_modules()),
            ("sysctls", self.restore_sysctls()),
        ];
        let failures = steps
            .into_iter()
            .filter_map(|(what, result)| Some((what, result.err()?)));
        failures
            .map(|(what, error)| format!("{what}: {error:#}"))
            .collect()
    }

    /// The newest first: it may be inside of another.
    fn unmount(&self) -> Result<()> {
        for target in mounts()?.iter().rev() {
            if !self.mounts.contains(target) {
                umount(target.as_str()).with_context(|| format!("unmount {target}"))?;
            }
        }
        Ok(())
    }

    fn remove_links(&self) -> Result<()> {
        // With one end of a pair goes the other, and with a namespace what it was joined to, at a
        // time of the kernel's choice.
        eventually(PATIENCE, "remove interfaces", || {
            match links()?.difference(&self.links).next() {
                None => Ok(()),
                Some(link) => bail!("{}", sh(&format!("ip link del {link}"))?),
            }
        })
    }

    fn unload_modules(&self) -> Result<()> {
        eventually(PATIENCE, "unload modules", || {
            let mut stuck = Vec::new();
            // Newest first, so a module mostly comes before what it uses.
            for module in kernel::modules()? {
                if !self.modules.contains(&module) && kernel::rmmod(&module).is_err() {
                    stuck.push(module);
                }
            }
            ensure!(stuck.is_empty(), "still in use: {}", stuck.join(", "));
            Ok(())
        })
    }

    fn restore_sysctls(&self) -> Result<()> {
        for (path, wanted) in &self.sysctls {
            // It may have gone with an interface.
            match fs::read(path) {
                Ok(value) if value != *wanted => fs::write(path, wanted)
                    .with_context(|| format!("restore {}", path.display()))?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Where file systems are mounted, the oldest first.
fn mounts() -> Result<Vec<String>> {
    let file = "/proc/self/mounts";
    let text = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    let targets = text.lines().filter_map(|line| line.split(' ').nth(1));
    Ok(targets.map(str::to_owned).collect())
}

/// All but PID 1, which is who calls this.
fn kill_all() -> Result<()> {
    match kill(Pid::from_raw(-1), Signal::SIGKILL) {
        // Nobody is left to be killed.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => return Err(error).context("kill all processes"),
    }
    child::bury_all()
}

fn stop_swapping() -> Result<()> {
    let file = "/proc/swaps";
    // Absent without support of it.
    let text = fs::read_to_string(file).unwrap_or_default();
    let below_heading = text.lines().skip(1);
    for device in below_heading.filter_map(|line| line.split_whitespace().next()) {
        sh(&format!("swapoff {device}"))?;
    }
    Ok(())
}

/// Those of null_blk: a folder is a disk.
fn remove_disks() -> Result<()> {
    let folder = Path::new(disk::DISKS);
    match folder.exists() {
        true => remove_children(folder),
        false => Ok(()),
    }
}

fn remove_namespaces() -> Result<()> {
    if !Path::new(netns::FOLDER).exists() {
        return Ok(());
    }
    sh("ip -all netns delete").map(drop)
}

/// Each kind only where it is in use: to ask for the rules of one would load its modules.
fn flush_rules() -> Result<()> {
    if kernel::modules()?
        .iter()
        .any(|module| module == "nf_tables")
    {
        sh("nft flush ruleset")?;
    }
    for (iptables, names) in LEGACY {
        // Absent without the legacy modules.
        let tables = fs::read_to_string(names).unwrap_or_default();
        for table in tables.lines() {
            sh(&format!(
                "{iptables} -t {table} -F && {iptables} -t {table} -X"
            ))?;
        }
    }
    Ok(())
}

/// They hold the modules of their schedulers. Asking ipvsadm would load the module; with it go its
/// connections and its sysctls.
fn clear_services() -> Result<()> {
    if !kernel::modules()?.iter().any(|module| module == "ip_vs") {
        return Ok(());
    }
    sh("ipvsadm -C").map(drop)
}

fn remove_pins() -> Result<()> {
    for pin in files::below(Path::new("/sys/fs/bpf"))? {
        // From 5.10 on, bpffs holds files of the kernel's own that do not go.
        let _ = fs::remove_file(&pin);
    }
    Ok(())
}

fn remove_cgroups() -> Result<()> {
    remove_children(Path::new("/sys/fs/cgroup"))
}

/// The folders in a cgroup's folder, or in that of null_blk, are what users made; all else in it is
/// the kernel's.
fn remove_children(folder: &Path) -> Result<()> {
    let context = || format!("list {}", folder.display());
    for entry in fs::read_dir(folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        if entry.file_type().with_context(context)?.is_dir() {
            let child = entry.path();
            remove_children(&child)?;
            fs::remove_dir(&child).with_context(|| format!("remove {}", child.display()))?;
        }
    }
    Ok(())
}

fn remove_files() -> Result<()> {
    sh(&format!("rm -rf {FILES}")).map(drop)
}

fn links() -> Result<BTreeSet<String>> {
    let entries = fs::read_dir("/sys/class/net").context("list /sys/class/net")?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

/// Those that can be read and written: some only do something when they are written to.
fn sysctls() -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut values = BTreeMap::new();
    for root in SYSCTLS {
        for path in files::below(Path::new(root))? {
            let mode = fs::metadata(&path).map(|metadata| metadata.permissions().mode());
            let is_setting = mode.is_ok_and(|mode| mode & 0o600 == 0o600);
            if let (true, Ok(value)) = (is_setting, fs::read(&path)) {
                values.insert(path, value);
            }
        }
    }
    Ok(values)
}

fn sh(script: &str) -> Result<String> {
    command::shell(script, PATIENCE)?.ok()
}
