//! PID 1 of a guest.

use std::fs::{self, File};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::reboot::{RebootMode, reboot};

use super::clean::Baseline;
use super::port::Port;
use super::{child, command, mounts};
use crate::phase;
use crate::protocol::{self, Event, Job, Outcome, ScenarioEnd};

/// Real programs before busybox's applets.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) const CONSOLE: &str = "/dev/ttyS0";

/// For the port; built into some kernels, and nothing here loads drivers by itself.
const DRIVERS: &str = "modprobe virtio_pci && modprobe virtio_console";

/// Where disks are made. Its folder is there when the module is.
const CONFIGFS: &str = "modprobe configfs && mount -t configfs configfs /sys/kernel/config";

/// QEMU's user network: it gives every guest this address and is its gateway. The interface gets
/// another name, because scenarios make some that are called eth0.
const NETWORK: &str = "modprobe virtio_net && ip link set eth0 name host && \
                       ip addr add 10.0.2.15/24 dev host && ip link set host up && \
                       ip route add default via 10.0.2.2";

/// Returns only if the machine cannot be switched off, and then the kernel panics: PID 1 has ended.
pub(crate) fn run() -> ExitCode {
    if let Err(error) = work() {
        println!("nodemedic guest: {error:#}");
    }
    // With -no-reboot this ends QEMU.
    let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
    println!("nodemedic guest: restart: {error}");
    ExitCode::FAILURE
}

fn work() -> Result<()> {
    // SAFETY: PID 1 has one thread.
    unsafe { std::env::set_var("PATH", PATH) };
    mounts::all()?;
    let job = job()?;
    sh(DRIVERS)?;
    sh(CONFIGFS)?;
    sh("hostname guest && ip link set lo up")?;
    if job.network {
        sh(NETWORK)?;
    }
    let mut port = Port::open()?;
    let baseline = Baseline::take()?;
    port.send(&up()?)?;
    scenarios(&job, &mut port, &baseline)?;
    if let Some(words) = &job.then {
        foreground(words)?;
    }
    port.send(&Event::Done)
}

fn job() -> Result<Job> {
    let json = fs::read(protocol::JOB).with_context(|| format!("read {}", protocol::JOB))?;
    serde_json::from_slice(&json).with_context(|| format!("parse {}", protocol::JOB))
}

fn up() -> Result<Event> {
    let path = "/proc/sys/kernel/osrelease";
    let release = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    Ok(Event::Up {
        release: release.trim().to_owned(),
    })
}

fn scenarios(job: &Job, port: &mut Port, baseline: &Baseline) -> Result<()> {
    for task in &job.scenarios {
        let scenario = task.name.clone();
        port.send(&Event::Start {
            scenario: scenario.clone(),
        })?;
        let started = Instant::now();
        let (verdict, log) = child::supervise(task, &job.kernel)?;
        let (took, busy) = (started.elapsed(), phase::busy());
        let left = baseline.restore();
        if job.then.is_some() {
            show(&scenario, &verdict.outcome, &log);
        }
        // Only now: a kernel that dies while it cleans up has died of this scenario.
        port.send(&Event::End(ScenarioEnd {
            scenario,
            outcome: verdict.outcome,
            took,
            busy: verdict.busy,
            cleaning: phase::busy().saturating_sub(busy),
            log,
            left,
        }))?;
    }
    Ok(())
}

/// For the person at the console.
fn show(scenario: &str, outcome: &Outcome, log: &str) {
    println!("{log}\n{scenario}: {outcome:?}");
}

/// Runs on the console, in a session of its own so that Ctrl-C works. `/dev/console`, which PID 1
/// has, is no terminal that a session could have.
fn foreground(words: &[String]) -> Result<()> {
    let context = || format!("open {CONSOLE}");
    let console = File::options()
        .read(true)
        .write(true)
        .open(CONSOLE)
        .with_context(context)?;
    let status = Command::new("/bin/setsid")
        .args(["-c", "--"])
        .args(words)
        .env("HOME", "/root")
        .env("TERM", "linux")
        .stdin(console.try_clone().with_context(context)?)
        .stdout(console.try_clone().with_context(context)?)
        .stderr(console)
        .status()
        .with_context(|| format!("start {words:?}"))?;
    println!("{words:?} ended with {status}");
    Ok(())
}

fn sh(script: &str) -> Result<String> {
    command::shell(script, Duration::from_secs(60))?.ok()
}
