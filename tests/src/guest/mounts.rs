//! The file systems that a program expects of a running system.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};

struct Mount {
    kind: &'static str,
    target: &'static str,
}

/// In this order: some are inside of others.
const MOUNTS: &[Mount] = &[
    Mount {
        kind: "proc",
        target: "/proc",
    },
    Mount {
        kind: "sysfs",
        target: "/sys",
    },
    Mount {
        kind: "devtmpfs",
        target: "/dev",
    },
    Mount {
        kind: "devpts",
        target: "/dev/pts",
    },
    Mount {
        kind: "tmpfs",
        target: "/dev/shm",
    },
    Mount {
        kind: "tmpfs",
        target: "/run",
    },
    Mount {
        kind: "tmpfs",
        target: "/tmp",
    },
    Mount {
        kind: "debugfs",
        target: "/sys/kernel/debug",
    },
    Mount {
        kind: "tracefs",
        target: "/sys/kernel/tracing",
    },
    Mount {
        kind: "bpf",
        target: "/sys/fs/bpf",
    },
    Mount {
        kind: "cgroup2",
        target: "/sys/fs/cgroup",
    },
];

pub(crate) fn all() -> Result<()> {
    for Mount { kind, target } in MOUNTS {
        // In /proc and /sys the folder is there, or the kernel has no such thing: then the mount
        // below says so.
        let _ = fs::create_dir_all(target);
        mount(
            Some(*kind),
            *target,
            Some(*kind),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("mount {kind} on {target}"))?;
    }
    symlink("/proc/self/fd", "/dev/fd").context("link /dev/fd")
}
