//! The lab: a storm that goes on for as long as somebody looks at it. And the test of it.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::{Guest, Process};
use nodemedic_tests::http;
use nodemedic_tests::lab::Storm;
use nodemedic_tests::maladies::dns::Site;
use nodemedic_tests::maladies::dnsperf::Load;
use nodemedic_tests::metrics::Metrics;
use nodemedic_tests::scenario::Verdict;

use crate::agent::SOON;

/// Those who ask, as pods of a node, and their share of the queries in percent.
const PODS: [(Ipv4Addr, u32); 3] = [
    (Ipv4Addr::new(10, 1, 0, 11), 70),
    (Ipv4Addr::new(10, 1, 0, 12), 20),
    (Ipv4Addr::new(10, 1, 0, 13), 10),
];

/// Of one run of dnsperf, in seconds.
const RUN: u32 = 10;

/// Ends only with an error.
pub(crate) fn storm(guest: &Guest) -> Result<Verdict> {
    let wanted: Storm = guest.input()?;
    let site = Site::build(guest)?;
    site.widen_ports()?;
    site.add_sources(&PODS.map(|(pod, _)| pod))?;
    // On a node it is there if kube-proxy is. With it the agent sees what the entries are.
    guest.modprobe("nf_conntrack_netlink")?;
    let mut agent = start(guest, wanted.port)?;
    loop {
        ask(guest, &site, wanted.queries_per_second)?;
        if let Ok(status) = agent.wait(Duration::ZERO) {
            bail!("the agent ended with {status}");
        }
    }
}

/// As a user would, with nothing configured but where it listens. Waits until its probes are
/// attached: of an entry that was there before, it cannot tell how long it lived.
fn start(guest: &Guest, port: u16) -> Result<Process> {
    let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).to_string();
    let agent = guest.start("agent", &mut guest.agent(&["run", "--listen", &listen])?)?;
    let pages = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    eventually(2 * SOON, "the agent is ready", || {
        http::get(pages, "/readyz")
    })?;
    Ok(agent)
}

/// All pods at once.
fn ask(guest: &Guest, site: &Site, queries_per_second: u32) -> Result<()> {
    thread::scope(|scope| {
        let pods = PODS.map(|(source, percent)| {
            let rate = (queries_per_second * percent / 100).max(1);
            let load = Load {
                source,
                queries: rate * RUN,
                per_second: Some(rate),
            };
            scope.spawn(move || site.dnsperf(guest, load))
        });
        for pod in pods {
            pod.join().unwrap_or_else(|_| bail!("a pod panicked"))?;
        }
        Ok(())
    })
}

/// A boot beside another VM and a build, and the first readings.
const UP: Duration = Duration::from_secs(300);

/// On the host: the test of all of it.
pub(crate) fn its_pages_are_here_until_it_is_told_to_end() -> Result<()> {
    let mut lab = Lab::start()?;
    let before = eventually(UP, "entries are made", || lab.created())?;
    eventually(UP, "more entries are made", || {
        let now = lab.created()?;
        ensure!(now > before, "{now}, as before");
        Ok(())
    })?;
    lab.says("UDP entries/s made")?;
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
    pages: SocketAddr,
    printed: tempfile::NamedTempFile,
}

impl Lab {
    fn start() -> Result<Self> {
        let pages = free_address()?;
        let printed = tempfile::NamedTempFile::new().context("make a file for its output")?;
        let child = Command::new(env::current_exe().context("find the test binary")?)
            .env("NODEMEDIC_VM", "lab")
            .env("NODEMEDIC_LAB_PORT", pages.port().to_string())
            .env("NODEMEDIC_LAB_QPS", "50")
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

    /// The number of UDP entries that its agent has counted, once it is not 0.
    fn created(&self) -> Result<f64> {
        let metrics = Metrics::parse(&http::get(self.pages, "/metrics")?)?;
        let created = metrics.sum("nodemedic_udp_conntrack_created_total", &[]);
        ensure!(created > 0.0, "none yet");
        Ok(created)
    }

    fn says(&self, what: &str) -> Result<()> {
        eventually(Duration::from_secs(20), "a line of the lab", || {
            let printed = fs::read_to_string(self.printed.path())?;
            ensure!(printed.contains(what), "it says: {printed}");
            Ok(())
        })
    }

    /// The command lines of the emulators that lead to its pages.
    fn machines(&self) -> Result<Vec<Vec<String>>> {
        let forward = format!("hostfwd=tcp:127.0.0.1:{}-", self.pages.port());
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

/// An address of the loopback that nobody listens on.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    listener.local_addr().context("find a free port")
}

fn option<'a>(line: &'a [String], name: &str) -> Option<&'a String> {
    let at = line.iter().position(|word| word == name)?;
    line.get(at + 1)
}
