//! The user space of a guest: programs of Debian packages with the libraries that they need.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::archive::Archive;
use super::elf::Elf;
use super::kernels::{Matrix, Packages};
use super::{cache, packages};
use crate::files;

const PROGRAMS: &[&str] = &[
    "ab",
    "bash",
    "bridge",
    "conntrack",
    "curl",
    "dash",
    "dnsmasq",
    "dnsperf",
    "ethtool",
    "ip",
    "ipvsadm",
    "nft",
    "ping",
    "ps",
    "setpriv",
    "ss",
    "sysctl",
    "taskset",
    "tc",
    "xtables-legacy-multi",
    "xtables-nft-multi",
];

/// What an installation would make with update-alternatives, and by the packages' own links.
const LINKS: &[(&str, &str)] = &[
    ("bin/sh", "/usr/bin/dash"),
    ("sbin/modprobe", "/bin/busybox"),
    ("usr/bin/ip6tables", "xtables-nft-multi"),
    ("usr/bin/ip6tables-legacy", "xtables-legacy-multi"),
    ("usr/bin/iptables", "xtables-nft-multi"),
    ("usr/bin/iptables-legacy", "xtables-legacy-multi"),
    ("usr/bin/iptables-legacy-restore", "xtables-legacy-multi"),
    ("usr/bin/iptables-legacy-save", "xtables-legacy-multi"),
    ("usr/bin/iptables-restore", "xtables-nft-multi"),
    ("usr/bin/iptables-save", "xtables-nft-multi"),
    ("var/run", "/run"),
];

/// Files that programs read names from.
const CONFIGURATION: &[(&str, &str)] = &[
    ("etc/group", "root:x:0:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n"),
    ("etc/nsswitch.conf", "hosts: files dns\n"),
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/protocols", "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\n"),
];

/// Mount points, and folders that programs write into.
const FOLDERS: &[&str] = &[
    "dev", "proc", "root", "run", "sys", "tmp", "var/lib", "var/log",
];

const PROGRAM_FOLDERS: &[&str] = &["usr/bin", "usr/sbin", "bin", "sbin"];

/// Also the loader's default path in the guest, so there it needs no cache and no configuration.
const LIBRARY_FOLDERS: &[&str] = &[
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu/systemd",
];

/// iptables opens these by name, so no program says that it needs them.
const XTABLES: &str = "usr/lib/x86_64-linux-gnu/xtables";

/// The archive of what every guest has.
pub(crate) fn prepare(matrix: &Matrix) -> Result<PathBuf> {
    let inputs = (&matrix.guest, PROGRAMS, LINKS, CONFIGURATION, FOLDERS);
    archive("guest", inputs, &matrix.guest, |builder| {
        builder.programs(PROGRAMS)?;
        builder.xtables()?;
        builder.busybox()?;
        builder.skeleton()
    })
}

/// The archive of what only benchmarks take along.
pub(crate) fn prepare_bench(matrix: &Matrix) -> Result<PathBuf> {
    archive("bench", &matrix.bench, &matrix.bench, |builder| {
        builder.programs(&["bpftrace"])
    })
}

/// Where a program is that brings libraries of its own.
const APART: &str = "opt/stress-ng";

/// The archive of stress-ng.
pub(crate) fn prepare_stress(matrix: &Matrix) -> Result<PathBuf> {
    archive(
        "stress",
        (&matrix.stress, APART),
        &matrix.stress,
        |builder| {
            let program = builder.find(PROGRAM_FOLDERS, "stress-ng")?;
            builder.apart(&program, APART)?;
            let script = format!(
                "#!/bin/sh\nexec /{APART}/ld-linux-x86-64.so.2 --library-path /{APART} \
             /{APART}/stress-ng \"$@\"\n"
            );
            builder
                .archive
                .file("usr/bin/stress-ng", 0o755, script.as_bytes())
        },
    )
}

/// Where the plugins of container networks are, in the packages.
const CNI: &str = "usr/lib/cni";

/// Those that scenarios use.
const CNI_PLUGINS: &[&str] = &["host-local", "loopback", "ptp"];

/// The archive of what only guests that run pods take along.
pub(crate) fn prepare_containers(matrix: &Matrix) -> Result<PathBuf> {
    let inputs = (&matrix.containers, CNI_PLUGINS);
    archive("containers", inputs, &matrix.containers, |builder| {
        builder.programs(&["containerd", "containerd-shim-runc-v2", "ctr", "runc"])?;
        for plugin in CNI_PLUGINS {
            let path = builder.find(&[CNI], plugin)?;
            builder.elf(&path, &format!("opt/cni/bin/{plugin}"))?;
        }
        Ok(())
    })
}

/// Of those that make file systems and disks.
const DISK_PROGRAMS: &[&str] = &["dmsetup", "losetup", "mke2fs", "mkfs.btrfs", "mkfs.xfs"];

/// The archive of what only guests with several file systems take along.
pub(crate) fn prepare_disks(matrix: &Matrix) -> Result<PathBuf> {
    let inputs = (&matrix.disks, DISK_PROGRAMS);
    archive("disks", inputs, &matrix.disks, |builder| {
        builder.programs(DISK_PROGRAMS)
    })
}

/// Where systemd is, in its package and in a guest.
const SYSTEMD: &str = "lib/systemd";

/// Units that others depend on by default. Here nothing is behind them.
const TARGETS: &[&str] = &["basic", "multi-user", "network", "shutdown", "sysinit"];

/// The archive of what only guests that run services take along.
pub(crate) fn prepare_systemd(matrix: &Matrix) -> Result<PathBuf> {
    let inputs = (&matrix.systemd, SYSTEMD, TARGETS, "machine-id");
    archive("systemd", inputs, &matrix.systemd, |builder| {
        let systemd = builder.find(&[SYSTEMD], "systemd")?;
        builder.elf(&systemd, "usr/lib/systemd/systemd")?;
        builder.programs(&["systemctl"])?;
        for target in TARGETS {
            let unit = format!("etc/systemd/system/{target}.target");
            builder
                .archive
                .file(&unit, 0o644, b"[Unit]\nDefaultDependencies=no\n")?;
        }
        // Without it systemd enables all units, as at the first boot.
        let id = format!("{:032x}\n", 1);
        builder
            .archive
            .file("etc/machine-id", 0o444, id.as_bytes())?;
        let default = "etc/systemd/system/default.target";
        builder.archive.link(default, "multi-user.target")
    })
}

fn archive(
    name: &str,
    inputs: impl std::hash::Hash,
    packages: &Packages,
    fill: impl FnOnce(&mut Builder) -> Result<()>,
) -> Result<PathBuf> {
    let entry = cache::entry("archives", name, inputs, |target| {
        let mut builder = Builder {
            root: packages::unpacked(name, packages)?,
            archive: Archive::create(&target.join("root.cpio"))?,
            libraries: BTreeSet::new(),
        };
        fill(&mut builder).with_context(|| format!("make the {name} archive"))?;
        builder.archive.finish()
    })?;
    Ok(entry.join("root.cpio"))
}

struct Builder {
    /// Where the packages are unpacked.
    root: PathBuf,
    archive: Archive,
    /// Those that are in the archive already.
    libraries: BTreeSet<String>,
}

impl Builder {
    fn programs(&mut self, names: &[&str]) -> Result<()> {
        for name in names {
            let path = self.find(PROGRAM_FOLDERS, name)?;
            self.elf(&path, &format!("usr/bin/{name}"))?;
        }
        Ok(())
    }

    fn xtables(&mut self) -> Result<()> {
        for plugin in files::below(&self.root.join(XTABLES))? {
            let name = plugin.file_name().context("a plugin without a name")?;
            let target = format!("{XTABLES}/{}", name.display());
            self.elf(&plugin, &target)?;
        }
        Ok(())
    }

    /// Its applets are in `/bin`, behind the real programs in the search path.
    fn busybox(&mut self) -> Result<()> {
        let path = self.find(PROGRAM_FOLDERS, "busybox")?;
        self.elf(&path, "bin/busybox")?;
        let applets = packages::run(Command::new(&path).arg("--list"))?;
        for applet in applets
            .lines()
            .filter(|name| !matches!(*name, "busybox" | "sh"))
        {
            self.archive.link(&format!("bin/{applet}"), "busybox")?;
        }
        Ok(())
    }

    fn skeleton(&mut self) -> Result<()> {
        for folder in FOLDERS {
            self.archive.folder(folder)?;
        }
        for (path, target) in LINKS {
            self.archive.link(path, target)?;
        }
        for (path, text) in CONFIGURATION {
            self.archive.file(path, 0o644, text.as_bytes())?;
        }
        Ok(())
    }

    /// A program or library, and what it needs.
    fn elf(&mut self, source: &Path, target: &str) -> Result<()> {
        let bytes = files::read(source)?;
        let context = || format!("read {}", source.display());
        let elf = Elf::parse(&bytes).with_context(context)?;
        self.archive.file(target, 0o755, &bytes)?;
        if let Some(loader) = elf.interpreter().with_context(context)? {
            self.loader(loader)?;
        }
        for library in elf.needed().with_context(context)? {
            self.library(library)?;
        }
        Ok(())
    }

    /// A program, its loader and its libraries, all in one folder.
    fn apart(&mut self, source: &Path, folder: &str) -> Result<()> {
        let name = source.file_name().context("a program without a name")?;
        let name = name.to_string_lossy().into_owned();
        let mut todo = vec![(source.to_owned(), name)];
        while let Some((source, name)) = todo.pop() {
            let bytes = files::read(&source)?;
            let context = || format!("read {}", source.display());
            let elf = Elf::parse(&bytes).with_context(context)?;
            self.archive
                .file(&format!("{folder}/{name}"), 0o755, &bytes)?;
            let loader = elf.interpreter().with_context(context)?;
            let loader = loader.and_then(|path| path.rsplit('/').next());
            for needed in elf
                .needed()
                .with_context(context)?
                .into_iter()
                .chain(loader)
            {
                if self.libraries.insert(needed.to_owned()) {
                    todo.push((self.find(LIBRARY_FOLDERS, needed)?, needed.to_owned()));
                }
            }
        }
        Ok(())
    }

    fn library(&mut self, name: &str) -> Result<()> {
        if !self.libraries.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self.find(LIBRARY_FOLDERS, name)?;
        self.elf(&path, &format!("{}/{name}", LIBRARY_FOLDERS[0]))
    }

    /// Programs name it by a path that is a link in the package, and may point outside of it.
    fn loader(&mut self, path: &str) -> Result<()> {
        let name = path.rsplit('/').next().unwrap_or(path);
        self.library(name)?;
        if self.libraries.insert(path.to_owned()) {
            let target = format!("/{}/{name}", LIBRARY_FOLDERS[0]);
            self.archive.link(path, &target)?;
        }
        Ok(())
    }

    fn find(&self, folders: &[&str], name: &str) -> Result<PathBuf> {
        let mut paths = folders
            .iter()
            .map(|folder| self.root.join(folder).join(name));
        paths
            .find(|path| path.is_file())
            .with_context(|| format!("no {name} in {folders:?} of the unpacked packages"))
    }
}
