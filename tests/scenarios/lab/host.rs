//! The labs as a person sees them, on the host.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::http;
use nodemedic_tests::metrics::Metrics;
use nodemedic_tests::port::Port;

/// A boot beside another VM and a build, and the first readings.
const UP: Duration = Duration::from_secs(300);

/// What is looked at, and how it is seen to go on.
struct Show {
    ailment: &'static str,
    size: u32,
    /// Grows as long as the fault does its work.
    counter: &'static str,
    /// Part of the lines that it prints.
    says: &'static str,
}

pub(crate) fn its_pages_are_here_until_it_is_told_to_end() -> Result<()> {
    stays_until_it_is_told_to_end(&Show {
        ailment: "udp_conntrack",
        size: 50,
        counter: "nodemedic_udp_conntrack_created_total",
        says: "UDP entries/s made",
    })
}

pub(crate) fn it_shows_ipvs_estimation() -> Result<()> {
    stays_until_it_is_told_to_end(&Show {
        ailment: "ipvs_estimation",
        size: 200,
        counter: "nodemedic_ipvs_estimation_duration_seconds_count",
        says: "401 estimators, passes: ",
    })
}

pub(crate) fn it_shows_ipvs_conn_reuse() -> Result<()> {
    stays_until_it_is_told_to_end(&Show {
        ailment: "ipvs_conn_reuse",
        size: 20,
        counter: "nodemedic_ipvs_conn_reuse_syns_total",
        says: " rescheduled, ",
    })
}

/// The test of all of it.
fn stays_until_it_is_told_to_end(show: &Show) -> Result<()> {
    let mut lab = Lab::start(show)?;
    let before = eventually(UP, "something is counted", || lab.counted(show))?;
    eventually(UP, "more is counted", || {
        let now = lab.counted(show)?;
        ensure!(now > before, "{now}, as before");
        Ok(())
    })?;
    lab.says(show.says)?;
    let machines = lab.machines()?;
    ensure!(machines.len() == 1, "machines of the lab: {machines:?}");

    let status = lab.stop(Duration::from_secs(10))?;
    ensure!(status.success(), "it ended with {status}");
    let left = lab.machines()?;
    ensure!(left.is_empty(), "machines are left: {left:?}");
    let initrd = option(&machines[0], "-initrd").context("a machine without an initrd")?;
    ensure!(!Path::new(initrd).exists(), "{initrd} is left");
    Ok(())
}

/// A lab as `cargo xtask lab` starts it. Dropping it kills it.
struct Lab {
    child: Child,
    pages: Port,
    printed: tempfile::NamedTempFile,
}

impl Lab {
    fn start(show: &Show) -> Result<Self> {
        let pages = Port::reserve()?;
        let printed = tempfile::NamedTempFile::new().context("make a file for its output")?;
        let child = Command::new(env::current_exe().context("find the test binary")?)
            .env("NODEMEDIC_VM", "lab")
            .env("NODEMEDIC_LAB_PORT", pages.number().to_string())
            .env("NODEMEDIC_LAB_AILMENT", show.ailment)
            .env("NODEMEDIC_LAB_SIZE", show.size.to_string())
            .stdin(Stdio::null())
            .stdout(printed.reopen().context("open the file for its output")?)
            .spawn()
            .context("start the lab")?;
        Ok(Self {
            child,
            pages,
            printed,
        })
    }

    /// What the agent has counted, once it is not 0.
    fn counted(&self, show: &Show) -> Result<f64> {
        let metrics = Metrics::parse(&http::get(self.pages.address(), "/metrics")?)?;
        let counted = metrics.sum(show.counter, &[]);
        ensure!(counted > 0.0, "none yet");
        Ok(counted)
    }

    fn says(&self, what: &str) -> Result<()> {
        eventually(UP, "a line of the lab", || {
            let printed = fs::read_to_string(self.printed.path())?;
            ensure!(printed.contains(what), "it says: {printed}");
            Ok(())
        })
    }

    /// The command lines of the emulators that lead to its pages.
    fn machines(&self) -> Result<Vec<Vec<String>>> {
        let forward = format!("hostfwd=tcp:127.0.0.1:{}-", self.pages.number());
        let mut machines = Vec::new();
        for process in fs::read_dir("/proc").context("list /proc")? {
            let path = process.context("list /proc")?.path().join("cmdline");
            // Most of what is in there is no process, or one that has ended by now.
            let Ok(line) = fs::read(path) else { continue };
            let line = String::from_utf8_lossy(&line);
            if line.contains(&forward) {
                machines.push(line.split('\0').map(str::to_owned).collect());
            }
        }
        Ok(machines)
    }

    fn stop(&mut self, limit: Duration) -> Result<ExitStatus> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGTERM).context("send SIGTERM to the lab")?;
        eventually(limit, "the end of the lab", || {
            self.child.try_wait()?.context("it runs on")
        })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn option<'a>(line: &'a [String], name: &str) -> Option<&'a String> {
    let at = line.iter().position(|word| word == name)?;
    line.get(at + 1)
}
