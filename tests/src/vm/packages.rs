//! Fetches Debian packages without touching the machine's own package state: apt runs on lists, a
//! status file and sources of its own, in the cache, as any user.
//!
//! The archive's address is taken from the machine's apt configuration, with only the suite
//! changed, so mirrors and proxies keep working.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};

use super::cache;
use super::kernels::{Kernel, Packages};
use super::report::say;
use super::sources;

/// Lists younger than this are not fetched again. Older ones may name files that are gone.
const FRESH: Duration = Duration::from_secs(3600);

/// An apt of our own for some suites.
#[derive(Debug)]
pub(crate) struct Apt {
    config: PathBuf,
    archives: PathBuf,
    suite: String,
}

impl Apt {
    /// The lists are fetched if there are none or they are old.
    pub(crate) fn open(suites: &[String]) -> Result<Self> {
        let suite = suites.first().context("no suite is named")?.clone();
        let root = cache::folder(&format!("apt/{}", suites.join("+")))?;
        let _lock = cache::lock(&root)?;
        for folder in ["lists/partial", "archives/partial"] {
            cache::make(&root.join(folder))?;
        }
        let apt = Self {
            config: root.join("apt.conf"),
            archives: root.join("archives"),
            suite,
        };
        apt.configure(&root, suites)?;
        apt.update(&root)?;
        Ok(apt)
    }

    fn configure(&self, root: &Path, suites: &[String]) -> Result<()> {
        let write = |path: &Path, text: &str| {
            fs::write(path, text).with_context(|| format!("write {}", path.display()))
        };
        write(&root.join("status"), "")?;
        write(&root.join("debian.sources"), &sources::for_suites(suites)?)?;
        write(&self.config, &config(root))
    }

    fn update(&self, root: &Path) -> Result<()> {
        let stamp = root.join("updated");
        if is_fresh(&stamp) {
            return Ok(());
        }
        say!("fetching the package lists of {}", self.suite);
        run(self
            .command("apt-get")
            .args(["--quiet", "--error-on=any", "update"]))?;
        fs::write(&stamp, "").with_context(|| format!("write {}", stamp.display()))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("LC_ALL", "C")
            .arg("--config-file")
            .arg(&self.config);
        command
    }

    /// Packages with all that they depend on, unpacked into a folder.
    pub(crate) fn unpack(&self, packages: &[String], target: &Path) -> Result<()> {
        let plan = self.plan(packages)?;
        self.unpack_exactly(&plan, target)
    }

    /// A kernel's own packages: from 7.x an image is spread over several, and none of the tools
    /// that an installation would bring along is of use here.
    pub(crate) fn unpack_kernel(&self, package: &str, version: &str, target: &Path) -> Result<()> {
        let mut plan = self.plan(&[format!("{package}={version}")])?;
        plan.retain(|package| package.starts_with("linux-") && package.contains("-cloud-"));
        self.unpack_exactly(&plan, target)
    }

    pub(super) fn unpack_exactly(&self, plan: &[String], target: &Path) -> Result<()> {
        let downloads = tempfile::tempdir_in(&self.archives)
            .with_context(|| format!("make a folder in {}", self.archives.display()))?;
        run(self
            .command("apt-get")
            .args(["--quiet", "download"])
            .args(plan)
            .current_dir(downloads.path()))?;
        cache::make(target)?;
        for file in debs(downloads.path())? {
            run(Command::new("dpkg-deb")
                .arg("--extract")
                .arg(file)
                .arg(target))?;
        }
        Ok(())
    }

    /// What an installation on an empty machine would fetch, as `name=version`.
    fn plan(&self, packages: &[String]) -> Result<Vec<String>> {
        let output = run(self
            .command("apt-get")
            .args(["--simulate", "--no-install-recommends", "--target-release"])
            .arg(&self.suite)
            .arg("install")
            .args(packages))?;
        let plan = planned(&output);
        ensure!(
            !plan.is_empty(),
            "apt would install nothing for {packages:?}"
        );
        Ok(plan)
    }

    /// Name and version of the pinned package, or of the newest of its series.
    pub(crate) fn choose(&self, kernel: &Kernel) -> Result<(String, String)> {
        let names = self.names(kernel)?;
        let known = self.versions(&names)?;
        let pin = (kernel.package.clone(), kernel.version.clone());
        if known.contains(&pin) {
            return Ok(pin);
        }
        newest(known)?
            .with_context(|| format!("no package {} in {:?}", kernel.series, kernel.suites))
    }

    fn names(&self, kernel: &Kernel) -> Result<Vec<String>> {
        let start = kernel.series.split('*').next().unwrap_or_default();
        let output = run(self.command("apt-cache").args(["pkgnames", start]))?;
        let names = output.lines().filter(|name| kernel.fits(name));
        Ok(names.map(str::to_owned).collect())
    }

    /// All versions of some packages that the archive has.
    fn versions(&self, names: &[String]) -> Result<Vec<(String, String)>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let output = run(self.command("apt-cache").arg("madison").args(names))?;
        Ok(output.lines().filter_map(madison).collect())
    }
}

/// What `packages` unpack to, from the cache if it is there.
pub(crate) fn unpacked(kind: &str, packages: &Packages) -> Result<PathBuf> {
    cache::entry("unpacked", kind, packages, |target| {
        say!("fetching {}", packages.packages.join(", "));
        Apt::open(&packages.suites)?.unpack(&packages.packages, target)
    })
}

/// Everything that could make the machine's own state matter, or ours change it, is set here. The
/// hooks of the machine's configuration clean up *its* folders, and want root.
fn config(root: &Path) -> String {
    let root = root.display();
    format!(
        r#"#clear APT::Update;
#clear DPkg::Post-Invoke;
#clear Acquire::IndexTargets::deb;
Acquire::IndexTargets::deb::Packages {{
  MetaKey "$(COMPONENT)/binary-$(ARCHITECTURE)/Packages";
  flatMetaKey "Packages";
  ShortDescription "Packages";
  Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Packages";
}};
Acquire::Languages "none";
APT::Architecture "amd64";
#clear APT::Architectures;
APT::Architectures {{ "amd64"; }};
APT::Sandbox::User "root";
Debug::NoLocking "true";
Dir::Etc::sourcelist "{root}/debian.sources";
Dir::Etc::sourceparts "-";
Dir::Etc::preferences "-";
Dir::Etc::preferencesparts "-";
Dir::State::lists "{root}/lists";
Dir::State::status "{root}/status";
Dir::State::extended_states "{root}/extended_states";
Dir::Cache "{root}";
Dir::Cache::archives "{root}/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
"#
    )
}

fn is_fresh(stamp: &Path) -> bool {
    let age = fs::metadata(stamp)
        .and_then(|metadata| metadata.modified())
        .map(|modified| SystemTime::now().duration_since(modified));
    matches!(age, Ok(Ok(age)) if age < FRESH)
}

fn debs(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    Ok(paths)
}

/// `Inst libc6 (2.36-9 Debian:12/oldstable [amd64])`
fn planned(output: &str) -> Vec<String> {
    let lines = output.lines().filter_map(|line| line.strip_prefix("Inst "));
    lines
        .filter_map(|line| {
            let (name, rest) = line.split_once(" (")?;
            let (version, _) = rest.split_once(' ')?;
            Some(format!("{name}={version}"))
        })
        .collect()
}

/// `  linux-image-x |  6.1.176-1 | http://… Packages`
fn madison(line: &str) -> Option<(String, String)> {
    let mut fields = line.split('|').map(str::trim);
    Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
}

/// By Debian's own order, which only dpkg knows.
fn newest(packages: Vec<(String, String)>) -> Result<Option<(String, String)>> {
    let mut best: Option<(String, String)> = None;
    for package in packages {
        let better = match &best {
            Some((_, version)) => is_newer(&package.1, version)?,
            None => true,
        };
        if better {
            best = Some(package);
        }
    }
    Ok(best)
}

fn is_newer(a: &str, b: &str) -> Result<bool> {
    let status = Command::new("dpkg")
        .args(["--compare-versions", a, "gt", b])
        .status()
        .context("start dpkg")?;
    Ok(status.success())
}

/// What a program prints; failure is an error with what it said.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.output().with_context(|| {
        format!("start {program}: the VM tests take kernels and tools from Debian packages, so apt and dpkg must be installed")
    })?;
    if !output.status.success() {
        let arguments = command
            .get_args()
            .map(|argument| argument.display().to_string());
        bail!(
            "`{program} {}` ended with {}: {}",
            arguments.collect::<Vec<_>>().join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulation_is_read() {
        let output = "Reading package lists...\n\
            Inst gcc-12-base (12.2.0-14+deb12u1 Debian:12.12/oldstable [amd64])\n\
            Inst libc6 (2.36-9+deb12u13 Debian:12/oldstable [amd64]) []\n\
            Conf libc6 (2.36-9+deb12u13 Debian:12/oldstable [amd64])\n";
        let wanted = ["gcc-12-base=12.2.0-14+deb12u1", "libc6=2.36-9+deb12u13"];
        assert_eq!(planned(output), wanted);
    }

    #[test]
    fn madison_is_read() {
        let line = " linux-image-6.1.0-50-cloud-amd64 |  6.1.176-1 | mirror bookworm/main";
        let package = (
            "linux-image-6.1.0-50-cloud-amd64".to_owned(),
            "6.1.176-1".to_owned(),
        );
        assert_eq!(madison(line), Some(package));
    }
}
