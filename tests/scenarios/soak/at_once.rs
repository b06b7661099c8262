//! All faults at once, while the agent is ended and started again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle, sleep};
use std::time::Duration;

use anyhow::{Result, bail};
use nodemedic_tests::faults::cgroup::{Cgroup, HUNGRY, SPIN};
use nodemedic_tests::faults::dns;
use nodemedic_tests::faults::ipvs::{self, Family, Services};
use nodemedic_tests::faults::namespaces;
use nodemedic_tests::faults::reuse::{self, Close, Settings};
use nodemedic_tests::guest::Guest;

use super::Node;
use super::runtime::Runtime;
use crate::treatment::disk;
use crate::udp_conntrack::MAX;

/// Between two times that the agent is ended, at most.
const LIFE: Duration = Duration::from_secs(12);

/// For each of those who make faults, between two times.
const PAUSE: Duration = Duration::from_secs(2);

const SERVICE: u16 = 8_000;
const CLIENTS: u16 = 10;

/// By SIGKILL or by SIGTERM.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Killed,
    Stopped,
}

impl Node<'_> {
    pub(super) fn all_at_once(&mut self, ends: &[End]) -> Result<()> {
        let guest = self.guest;
        let dns = dns::Site::build(guest)?;
        guest.set_sysctl(MAX, "500")?;
        let reuse = reuse::Site::apart(guest, Family::V4, "-apart")?;
        reuse.set(guest, Settings::KUBE_PROXY)?;
        let (hungry, quota) = (Cgroup::create("/hungry")?, Cgroup::create("/quota")?);
        hungry.set("memory.high", "16777216")?;
        hungry.set("cpu.max", "20000 100000")?;
        quota.set("cpu.max", "5000 100000")?;
        let storm = Cgroup::create("/storm")?;
        let tasks = [
            hungry.start(guest, "hungry", HUNGRY)?,
            quota.start(guest, "throttled", SPIN)?,
        ];

        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let asking = scope.spawn(|| again(&over, || dns.flood(30_000..30_100)));
            let upgrades = scope.spawn(|| again(&over, || upgrade(guest, &reuse)));
            let services = scope.spawn(|| {
                again(&over, || {
                    Services::new(20).add(guest)?;
                    ipvs::clear(guest)
                })
            });
            let namespaces = scope.spawn(|| {
                again(&over, || {
                    namespaces::storm(guest, 20, Duration::from_secs(2))
                })
            });
            let cgroups =
                scope.spawn(|| again(&over, || storm.come_and_go(1, &true.into()).map(drop)));
            let runtime = scope.spawn(|| again(&over, runtime_comes_and_goes));
            let disk = scope.spawn(|| {
                again(&over, || {
                    disk::fill(guest)?;
                    sleep(PAUSE);
                    disk::free(guest)?;
                    sleep(3 * PAUSE);
                    Ok(())
                })
            });
            let outcome = self.lives(ends);
            over.store(true, Ordering::Relaxed);
            self.counts.namespaces += 20 * ended(namespaces)?;
            self.counts.cgroups += 200 * ended(cgroups)?;
            self.counts.full_disks += ended(disk)?;
            for thread in [asking, upgrades, services, runtime] {
                ended(thread)?;
            }
            outcome
        })?;
        drop(tasks);
        hungry.set("memory.high", "max")?;
        hungry.set("cpu.max", "max")?;
        for cgroup in [hungry, quota, storm] {
            cgroup.remove()?;
            self.counts.cgroups += 1;
        }
        guest.set_sysctl(MAX, &self.own[MAX])?;
        dns.forget_rules(guest)?;
        guest.sh("conntrack -F 2>/dev/null").map(drop)
    }

    /// The agent treats, and is ended in these ways at any moment.
    fn lives(&mut self, ends: &[End]) -> Result<()> {
        for end in ends {
            self.lives_a_while()?;
            match end {
                End::Killed => self.kill_agent()?,
                End::Stopped => self.stop_agent()?,
            }
        }
        self.lives_a_while()
    }

    fn lives_a_while(&mut self) -> Result<()> {
        // They are refused where the disk is full just now, or no service is there.
        self.try_treat("udp_conntrack", "udp_timeout")?;
        self.try_treat("ipvs_estimation", "est_nice")?;
        sleep(LIFE.mul_f64(self.random.f64()));
        Ok(())
    }
}

/// Does something until it is over. How often.
fn again(over: &AtomicBool, mut f: impl FnMut() -> Result<()>) -> Result<u32> {
    let mut times = 0;
    while !over.load(Ordering::Relaxed) {
        f()?;
        times += 1;
        sleep(PAUSE);
    }
    Ok(times)
}

fn ended(thread: ScopedJoinHandle<'_, Result<u32>>) -> Result<u32> {
    thread
        .join()
        .unwrap_or_else(|_| bail!("one of the faults panicked"))
}

/// Clients connect, the server is exchanged, they come back. On a node as busy as this some are not
/// answered.
fn upgrade(guest: &Guest, site: &reuse::Site) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(4);
    let ports = (0..CLIENTS).map(|client| (20_000 + client, SERVICE));
    let ports = ports.collect::<Vec<_>>();
    site.add_services(guest, &[SERVICE])?;
    let old = site.try_connect_all(&ports, PATIENCE)?;
    let old = old.into_iter().filter_map(|answer| answer.ok().flatten());
    // The kernel may have lost the connection meanwhile.
    let _ = reuse::close_all(old.zip([Close::ClientFin, Close::ServerReset].into_iter().cycle()));
    site.add_new_server(guest, &[SERVICE])?;
    site.drain_old_server(guest, &[SERVICE])?;
    site.try_connect_all(&ports, PATIENCE)?;
    site.remove_old_server(guest, &[SERVICE])?;
    site.clear(guest)
}

fn runtime_comes_and_goes() -> Result<()> {
    for kind in [Runtime::Closes, Runtime::Silent] {
        let socket = kind.listen()?;
        sleep(PAUSE);
        socket.serve()?;
    }
    Ok(())
}
