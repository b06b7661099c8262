//! A fake node: namespaces of mounts, processes and the network, in which some files of /proc and
//! /sys are those of a case. Nothing outside of them is touched.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::case::{Description, Files};

/// Names the description of the fake node that this program enters.
pub(crate) const FAKE_ENV: &str = "NODEMEDIC_FAKE_NODE";

/// The time between the agent's two readings.
const WINDOW: Duration = Duration::from_secs(4);

/// After the first file of the first reading was read, all have been.
const READING: Duration = Duration::from_millis(700);

/// The first reading is over by then, where it reads none of the files that change.
const STARTED: Duration = Duration::from_millis(2_500);

/// Short beside [`READING`].
const POLL: Duration = Duration::from_millis(20);

/// Far more than a window and the agent's start on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The folders of a fake node.
#[derive(Debug)]
pub(crate) struct Node {
    _folder: TempDir,
    plan: PathBuf,
    root: PathBuf,
    cgroup: PathBuf,
    ailment: String,
    config: PathBuf,
}

/// What is mounted over what.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Plan {
    /// Sources and targets, folders before the files in them.
    binds: Vec<(PathBuf, PathBuf)>,
}

impl Node {
    /// Writes the files as they are at first.
    pub(crate) fn build(description: &Description, before: &Files) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let path = |name: &str| folder.path().join(name);
        let node = Self {
            plan: path("plan.json"),
            root: path("root"),
            cgroup: path("cgroup"),
            ailment: description.ailment.clone(),
            config: path("config.toml"),
            _folder: folder,
        };
        fs::create_dir(&node.root).context("make a folder")?;
        fs::create_dir(&node.cgroup).context("make a folder")?;
        fs::write(&node.config, &description.config).context("write the configuration")?;
        node.write(before)?;
        let mut plan = Plan::default();
        for folder in &description.dirs {
            fs::create_dir_all(node.place(folder)).context("make a folder")?;
            plan.binds.push((node.place(folder), PathBuf::from(folder)));
        }
        for file in before.keys().filter(|file| !file.starts_with("cg:")) {
            let within = |folder: &String| Path::new(file).starts_with(folder);
            if !description.dirs.iter().any(within) {
                plan.binds.push((node.place(file), PathBuf::from(file)));
            }
        }
        node.mounts(description, before, &mut plan)?;
        let json = serde_json::to_string(&plan).context("describe the node")?;
        fs::write(&node.plan, json).context("describe the node")?;
        Ok(node)
    }

    /// A fake list of mounts, where the case does not bring its own: `/`, the tree of cgroups,
    /// and the lines of the case.
    fn mounts(&self, description: &Description, before: &Files, plan: &mut Plan) -> Result<()> {
        const MOUNTINFO: &str = "/proc/self/mountinfo";
        let has_cgroups = before.keys().any(|file| file.starts_with("cg:"));
        let wanted = has_cgroups || description.mounts.is_some();
        if !wanted || before.contains_key(MOUNTINFO) {
            return Ok(());
        }
        let mut lines = "22 1 0:21 / / rw - ext4 /dev/vda rw\n".to_owned();
        if has_cgroups {
            let cgroup = self.cgroup.display();
            lines += &format!("31 22 0:27 / {cgroup} rw - cgroup2 cgroup2 rw\n");
        }
        lines += description
            .mounts
            .as_deref()
            .unwrap_or_default()
            .trim_start();
        let file = self.place(MOUNTINFO);
        fs::create_dir_all(file.parent().unwrap_or(&self.root)).context("make a folder")?;
        fs::write(&file, lines).with_context(|| format!("write {}", file.display()))?;
        plan.binds.push((file, PathBuf::from(MOUNTINFO)));
        Ok(())
    }

    /// Where a file of the node lies outside of it.
    fn place(&self, file: &str) -> PathBuf {
        match file.strip_prefix("cg:") {
            Some(path) => self.cgroup.join(path.trim_start_matches('/')),
            None => self.root.join(file.trim_start_matches('/')),
        }
    }

    /// Writes in place: what is mounted is the file, not its name.
    fn write(&self, files: &Files) -> Result<()> {
        let cgroup = self.cgroup.display().to_string();
        for (name, text) in files {
            let path = self.place(name);
            fs::create_dir_all(path.parent().unwrap_or(&self.root)).context("make a folder")?;
            fs::write(&path, text.replace("@CGROUP@", &cgroup))
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// What `nodemedic check` prints, with these files from the middle of its window on.
    pub(crate) fn check(&self, agent: &OsStr, after: &Files) -> Result<String> {
        let read = Inotify::init(InitFlags::IN_NONBLOCK).context("watch files")?;
        for name in after.keys() {
            let path = self.place(name);
            if path.exists() {
                read.add_watch(&path, AddWatchFlags::IN_CLOSE_NOWRITE)
                    .with_context(|| format!("watch {}", path.display()))?;
            }
        }
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(program);
        let mut child = command
            .env(FAKE_ENV, &self.plan)
            .arg(agent)
            .args(["check", "--window", &format!("{}s", WINDOW.as_secs())])
            .arg("--config")
            .arg(&self.config)
            .arg(&self.ailment)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start the fake node")?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let out = thread::spawn(move || text(out));
        let err = thread::spawn(move || text(err));
        let outcome = self.until_its_end(&mut child, &read, after);
        if outcome.is_err() {
            child.kill().context("end the fake node")?;
            child.wait().context("end the fake node")?;
        }
        let (out, err) = (joined(out)?, joined(err)?);
        outcome.with_context(|| format!("{out}{err}"))?;
        ensure!(!out.is_empty(), "it prints nothing: {err}");
        Ok(out)
    }

    /// Changes the files between the agent's readings.
    fn until_its_end(&self, child: &mut Child, read: &Inotify, after: &Files) -> Result<()> {
        let begin = Instant::now();
        let mut change_at = begin + STARTED;
        let mut first = None;
        let mut changed = after.is_empty();
        loop {
            if child.try_wait().context("wait for the agent")?.is_some() {
                ensure!(changed, "it ended before its second reading");
                return Ok(());
            }
            if first.is_none() && read.read_events().is_ok_and(|events| !events.is_empty()) {
                first = Some(Instant::now());
                change_at = Instant::now() + READING;
            }
            if !changed && Instant::now() >= change_at {
                self.write(after)?;
                changed = true;
            }
            ensure!(begin.elapsed() < LIMIT, "it takes more than {LIMIT:?}");
            // It waits for two things at once: the agent's end and its first read of a file.
            thread::sleep(POLL);
        }
    }
}

fn text(pipe: Option<impl std::io::Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What could be read is shown.
        let _end = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn joined(thread: thread::JoinHandle<String>) -> Result<String> {
    match thread.join() {
        Ok(text) => Ok(text),
        Err(_) => bail!("a reader panicked"),
    }
}

/// Whether this machine and this user can make one.
pub(crate) fn can_be_faked() -> Result<()> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let plan = folder.path().join("plan.json");
    fs::write(&plan, serde_json::to_string(&Plan::default())?).context("describe a node")?;
    let program = std::env::current_exe().context("find this program")?;
    let output = Command::new(program)
        .env(FAKE_ENV, &plan)
        .arg("true")
        .output()
        .context("start a fake node")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Runs the program that the arguments name in the fake node. Only a child is in a new namespace
/// of processes, so this happens in two steps.
pub(crate) fn enter(plan: &OsStr) -> ExitCode {
    let outcome = if std::process::id() == 1 {
        become_the_node(plan)
    } else {
        run_within()
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let _told = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_within() -> Result<ExitCode> {
    let namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID;
    unshare(namespaces).context("make namespaces of mounts, network and processes")?;
    let program = std::env::current_exe().context("find this program")?;
    let status = Command::new(program)
        .args(std::env::args_os().skip(1))
        .status()
        .context("start the first process of the node")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(u8::MAX)))
}

/// Mounts the files, gives up what would show the real kernel, and runs the program.
fn become_the_node(plan: &OsStr) -> Result<ExitCode> {
    let json = fs::read_to_string(plan).context("read the plan of the node")?;
    let plan: Plan = serde_json::from_str(&json).context("read the plan of the node")?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("keep mounts to ourselves")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).context("mount /proc")?;
    for (source, target) in &plan.binds {
        // Through the link a mount would follow whoever looks; the only process is 1.
        let target = match target.strip_prefix("/proc/self") {
            Ok(rest) => Path::new("/proc/1").join(rest),
            Err(_) => target.clone(),
        };
        // Two names of one file: the second is the first's already.
        if fs::canonicalize(&target).is_err() {
            continue;
        }
        mount(Some(source), &target, none, MsFlags::MS_BIND, none)
            .with_context(|| format!("put {} over {}", source.display(), target.display()))?;
    }
    for capability in [
        CapabilitySet::SYS_ADMIN,
        CapabilitySet::BPF,
        CapabilitySet::PERFMON,
    ] {
        remove_capability_from_bounding_set(capability).context("give up capabilities")?;
    }
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().context("no program to run")?;
    let error = Command::new(&program)
        .args(arguments)
        .env_remove(FAKE_ENV)
        .exec();
    Err(error).with_context(|| format!("run {}", program.to_string_lossy()))
}
