//! A kernel as it was before 5.9 fixed what happens to a SYN on a reused tuple, for which Debian
//! has no package any more: `ip_vs.ko` of a stock kernel, built again from Debian's own source
//! with the test of that time.
//!
//! Nothing is installed: the packages are unpacked into the cache, and the machine gives gcc, make
//! and tar. Where one of them is missing, or the packages are, the tests of that kernel are
//! skipped, and say why.

use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::cache;
use super::kernels::Kernel;
use super::packages::{self, Apt};
use super::report::say;

/// What is built, in a kernel's source.
const SOURCES: &str = "net/netfilter/ipvs";
const MODULE: &str = "ip_vs.ko";

/// Where the test is: `ip_vs_conn_uses_old_conntrack()`.
const HEADER: &str = "include/net/ip_vs.h";

/// Since commit f0a5e4d7a594 (5.9, and the stable series), only a connection that another packet
/// has confirmed is too old to be scheduled again.
const FIXED: &str = "if (ct && nf_ct_is_confirmed(ct))";

/// Before, each one was that IPVS has translated.
const UNFIXED: &str = "if (ct && (cp->flags & IP_VS_CONN_F_NFCT))";

/// A file of the module, and what makes the kernel take it for a part of its own tree: the types of
/// the kernel are then those that it was built with, which is true of this one.
const SOURCE: &str = "ip_vs_core.c";
const IN_TREE: &str = "\nMODULE_INFO(intree, \"Y\");\n";

/// What a build calls, and xz by tar.
const PROGRAMS: [&str; 4] = ["gcc", "make", "tar", "xz"];

/// This machine cannot build it, which is no failure of what is tested.
#[derive(Debug)]
pub(crate) struct Unavailable;

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an ip_vs from before 5.9 cannot be built here")
    }
}

/// The module for a kernel of the matrix, built if it is not in the cache.
pub(crate) fn module(kernel: &Kernel) -> Result<PathBuf> {
    let inputs = (&kernel.version, UNFIXED, IN_TREE);
    let entry = cache::entry("unfixed", &kernel.package, inputs, |target| {
        programs().context(Unavailable)?;
        let unpacked = tempfile::tempdir_in(target).context("make a folder in the cache")?;
        let tree = Tree::unpack(kernel, unpacked.path()).context(Unavailable)?;
        tree.unfix()?;
        tree.adopt()?;
        let module = tree.build().context("build ip_vs.ko")?;
        fs::rename(&module, target.join(MODULE))
            .with_context(|| format!("keep {}", module.display()))
    })?;
    Ok(entry.join(MODULE))
}

/// Puts it into the place of the stock one in an unpacked package.
pub(crate) fn replace(module: &Path, modules_folder: &Path) -> Result<()> {
    let stock = modules_folder.join("kernel").join(SOURCES).join(MODULE);
    ensure!(stock.is_file(), "there is no {}", stock.display());
    fs::copy(module, &stock)
        .map(drop)
        .with_context(|| format!("replace {}", stock.display()))
}

fn programs() -> Result<()> {
    for program in PROGRAMS {
        packages::run(Command::new(program).arg("--version"))?;
    }
    Ok(())
}

/// What a module of a Debian kernel is built from.
struct Tree {
    /// What differs between the flavours of a kernel, its configuration above all.
    flavour: PathBuf,
    /// The headers that all flavours share.
    common: PathBuf,
    sources: PathBuf,
}

impl Tree {
    fn unpack(kernel: &Kernel, folder: &Path) -> Result<Self> {
        let apt = Apt::open(&kernel.suites)?;
        let (image, version) = apt.choose(kernel)?;
        let flavour = image.replace("linux-image-", "linux-headers-");
        let common = flavour.replace("-cloud-amd64", "-common");
        let tools = format!("linux-kbuild-{}", kernel.series_number());
        let source = format!("linux-source-{}", kernel.series_number());
        say!("fetching {flavour} and {source} {version}");
        let packages = [&flavour, &common, &tools, &source];
        let packages = packages.map(|package| format!("{package}={version}"));
        apt.unpack_exactly(&packages, folder)?;
        let all = folder.join("usr/src");
        packages::run(
            Command::new("tar")
                .arg("--extract")
                .arg("--file")
                .arg(all.join(format!("{source}.tar.xz")))
                .arg("--directory")
                .arg(&all)
                .arg(format!("{source}/{SOURCES}")),
        )?;
        Ok(Self {
            flavour: all.join(flavour),
            common: all.join(common),
            sources: all.join(source).join(SOURCES),
        })
    }

    fn unfix(&self) -> Result<()> {
        let path = self.common.join(HEADER);
        let context = || format!("change {}", path.display());
        let text = fs::read_to_string(&path).with_context(context)?;
        ensure!(
            text.matches(FIXED).count() == 1,
            "{} does not hold just one {FIXED:?}",
            path.display()
        );
        fs::write(&path, text.replace(FIXED, UNFIXED)).with_context(context)
    }

    fn adopt(&self) -> Result<()> {
        let path = self.sources.join(SOURCE);
        let context = || format!("change {}", path.display());
        let mut file = File::options()
            .append(true)
            .open(&path)
            .with_context(context)?;
        file.write_all(IN_TREE.as_bytes()).with_context(context)
    }

    fn build(&self) -> Result<PathBuf> {
        say!("building {MODULE} as it was before 5.9");
        // The package's own names the place where it would be installed.
        let makefile = self.flavour.join("Makefile");
        let include = format!("include {}\n", self.common.join("Makefile").display());
        fs::write(&makefile, include).with_context(|| format!("write {}", makefile.display()))?;
        let mut make = Command::new("make");
        make.args(["--silent", "--directory"])
            .arg(&self.flavour)
            .arg(format!("M={}", self.sources.display()))
            // Debian's is an older gcc; this one may be of any version that is not too new for it.
            .args(["CC=gcc", "KCFLAGS=-g0"])
            // It needs libelf, and makes what is for the unwinder alone.
            .arg("SKIP_STACK_VALIDATION=1")
            .arg(MODULE);
        packages::run(&mut make)?;
        Ok(self.sources.join(MODULE))
    }
}
