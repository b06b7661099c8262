//! Cgroups with tasks that wait: at a memory limit, under a quota, behind a neighbour.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount, umount};

use crate::eventually::eventually;
use crate::guest::{Guest, Process};

const ROOT: &str = "/sys/fs/cgroup";

/// What cgroups have by themselves.
pub const CONTROLLERS: &str = "+cpu +memory +io";

/// Spins for ever.
pub const SPIN: &str = "while :; do :; done";

/// Wants 64 MiB again and again.
pub const HUNGRY: &str =
    "while :; do dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null; done";

/// Cgroups as a kubelet with the driver cgroupfs has them: so many burstable pods, each with so many
/// containers, with these controllers. Those that are there already stay.
pub fn make_pods(pods: u32, containers: u32, controllers: &str) -> Result<()> {
    for parent in ["", "/kubepods", "/kubepods/burstable"] {
        make(parent, controllers)?;
    }
    for pod in 0..pods {
        let path = format!("/kubepods/burstable/pod00000000-0000-4000-8000-{pod:012x}");
        make(&path, controllers)?;
        for container in 0..containers {
            let folder = format!("{ROOT}{path}/{:064x}", pod * containers + container);
            fs::create_dir_all(&folder).with_context(|| format!("make {folder}"))?;
        }
    }
    Ok(())
}

/// Cgroups right below one: so many, with names of one length, so that their order is that of the
/// numbers.
pub fn make_many(parent: &Cgroup, count: u32) -> Result<()> {
    for i in 0..count {
        let folder = format!("{ROOT}{}/{i:08}", parent.path);
        fs::create_dir(&folder).with_context(|| format!("make {folder}"))?;
    }
    Ok(())
}

/// Removes them again, once they have no tasks.
pub fn remove_many(parent: &Cgroup, count: u32) -> Result<()> {
    for i in 0..count {
        let folder = format!("{ROOT}{}/{i:08}", parent.path);
        eventually(Duration::from_secs(30), "the cgroup is removed", || {
            fs::remove_dir(&folder).with_context(|| format!("remove {folder}"))
        })?;
    }
    Ok(())
}

/// Two tasks that go through every `step`th container of such pods again and again, and make each
/// other wait: so many cgroups are active, and the node is not idle.
pub fn wander(guest: &Guest, pods: u32, containers: u32, step: u32) -> Result<Vec<Process>> {
    let folder = |number: u32| {
        let pod = number / containers;
        format!("{ROOT}/kubepods/burstable/pod00000000-0000-4000-8000-{pod:012x}/{number:064x}")
    };
    let numbers = (0..pods * containers).step_by(step as usize);
    let places: Vec<_> = numbers.map(folder).collect();
    let list = "/tmp/places";
    fs::write(list, places.join("\n")).with_context(|| format!("write {list}"))?;
    let round = format!(
        "while :; do while read -r place; do echo $$ > $place/cgroup.procs; i=0; while [ $i -lt 30 ]; \
         do i=$((i+1)); done; done < {list}; sleep 1; done"
    );
    (0..2)
        .map(|_| guest.start("wanderer", Command::new("/bin/sh").args(["-c", &round])))
        .collect()
}

/// One whose children have controllers.
fn make(path: &str, controllers: &str) -> Result<()> {
    let folder = format!("{ROOT}{path}");
    fs::create_dir_all(&folder).with_context(|| format!("make {folder}"))?;
    write(&format!("{path}/cgroup.subtree_control"), controllers)
}

/// For how long at least one task of the node has waited so far, for `cpu`, `memory` or `io`.
pub fn node_waited_for(resource: &str) -> Result<Duration> {
    waited(&format!("/proc/pressure/{resource}"))
}

fn waited(path: &str) -> Result<Duration> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let some = text.lines().find_map(|line| line.strip_prefix("some "));
    let total = some.and_then(|line| line.rsplit_once("total="));
    let microseconds = total.and_then(|(_, total)| total.parse().ok());
    let microseconds = microseconds.with_context(|| format!("{path} has {text:?}"))?;
    Ok(Duration::from_micros(microseconds))
}

/// A cgroup; it goes when the guest is cleaned up.
#[derive(Debug)]
pub struct Cgroup {
    path: &'static str,
}

impl Cgroup {
    /// Makes it, with the controllers of CPU, memory and disks: `/a`, or `/a/b` below one that is there.
    pub fn create(path: &'static str) -> Result<Self> {
        let above = path.rfind('/').map_or("", |end| &path[..end]);
        write(&format!("{above}/cgroup.subtree_control"), CONTROLLERS)?;
        let folder = PathBuf::from(format!("{ROOT}{path}"));
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self { path })
    }

    /// Writes one of its files.
    pub fn set(&self, file: &str, value: &str) -> Result<()> {
        write(&format!("{}/{file}", self.path), value)
    }

    /// For how long at least one of its tasks has waited so far, for `cpu`, `memory` or `io`.
    pub fn waited_for(&self, resource: &str) -> Result<Duration> {
        waited(&format!("{ROOT}{}/{resource}.pressure", self.path))
    }

    /// Removes it, once it has no task any more.
    pub fn remove(self) -> Result<()> {
        self.empties()?;
        let folder = format!("{ROOT}{}", self.path);
        fs::remove_dir(&folder).with_context(|| format!("remove {folder}"))
    }

    /// Waits until it has no task any more.
    pub fn empties(&self) -> Result<()> {
        let path = format!("{ROOT}{}/cgroup.procs", self.path);
        eventually(Duration::from_secs(30), "the cgroup is empty", || {
            let tasks = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
            ensure!(tasks.is_empty(), "it has {tasks}");
            Ok(())
        })
    }

    /// Makes cgroups below it, some hundred at a time, and removes them again until it is over and
    /// there were this many. How many there were.
    pub fn come_and_go(&self, least: u32, over: &AtomicBool) -> Result<u32> {
        const AT_A_TIME: u32 = 200;
        let folder = |i| PathBuf::from(format!("{ROOT}{}/{i}", self.path));
        let mut made = 0;
        while made < least || !over.load(Ordering::Relaxed) {
            for i in 0..AT_A_TIME {
                fs::create_dir(folder(i)).context("make a cgroup")?;
            }
            for i in 0..AT_A_TIME {
                fs::remove_dir(folder(i)).context("remove a cgroup")?;
            }
            made += AT_A_TIME;
        }
        Ok(made)
    }

    /// Runs a script of the shell in it.
    pub fn start(&self, guest: &Guest, name: &str, script: &str) -> Result<Process> {
        let enter = format!("echo $$ > {ROOT}{}/cgroup.procs; {script}", self.path);
        guest.start(name, Command::new("/bin/sh").args(["-c", &enter]))
    }
}

/// The tree of version 1 with the CPU controller, which version 2 then lacks, and one cgroup in it.
#[derive(Debug)]
pub struct QuotaV1 {
    folder: PathBuf,
}

impl QuotaV1 {
    const ROOT: &str = "/run/cgroup-v1-cpu";

    /// Mounts the tree beside that of version 2, and makes a cgroup with this quota, microseconds of
    /// each 100 ms: `pod`.
    pub fn create(pod: &str, quota: u32) -> Result<Self> {
        fs::create_dir_all(Self::ROOT).with_context(|| format!("make {}", Self::ROOT))?;
        mount(
            Some("cgroup"),
            Self::ROOT,
            Some("cgroup"),
            MsFlags::empty(),
            Some("cpu,cpuacct"),
        )
        .with_context(|| format!("mount cgroup on {}", Self::ROOT))?;
        let folder = PathBuf::from(Self::ROOT).join(pod);
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let file = folder.join("cpu.cfs_quota_us");
        fs::write(&file, quota.to_string()).with_context(|| format!("write {}", file.display()))?;
        Ok(Self { folder })
    }

    /// Runs a script of the shell in it.
    pub fn start(&self, guest: &Guest, name: &str, script: &str) -> Result<Process> {
        let enter = format!("echo $$ > {}/cgroup.procs; {script}", self.folder.display());
        guest.start(name, Command::new("/bin/sh").args(["-c", &enter]))
    }
}

impl Drop for QuotaV1 {
    /// Gives the controller back to version 2, once no task is left.
    fn drop(&mut self) {
        let removed = eventually(Duration::from_secs(30), "the cgroup is removed", || {
            fs::remove_dir(&self.folder).context("remove the cgroup")
        });
        let unmounted = umount(Self::ROOT).context("unmount the tree");
        if let Err(error) = removed.and(unmounted) {
            eprintln!("the tree of version 1 stays: {error:#}");
        }
    }
}

fn write(file: &str, value: &str) -> Result<()> {
    let path = format!("{ROOT}{file}");
    fs::write(&path, value).with_context(|| format!("write {value:?} to {path}"))
}
