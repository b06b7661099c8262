//! More services than there is time for, and pings that wait, for `ipvs_estimation`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nodemedic_tests::guest::{Guest, NetNs};
use nodemedic_tests::lab::Fault;
use nodemedic_tests::maladies::ipvs::Services;
use nodemedic_tests::scenario::Verdict;

/// Of one round, on each way: for 5 s where nothing waits.
const PINGS: u32 = 250;
const LIMIT: Duration = Duration::from_secs(120);

/// Ends only with an error.
pub(crate) fn services(guest: &Guest) -> Result<Verdict> {
    let wanted: Fault = guest.input()?;
    let outside = guest.netns("outside")?;
    for cpu in 0..guest.online_cpus()? {
        way(guest, &outside, cpu)?;
    }
    guest.modprobe("ip_vs")?;
    let mut agent = super::start(guest, wanted.port)?;
    guest.tell(&round(guest, &outside)?)?;
    guest.tell(&format!("{} services are made", wanted.size))?;
    Services::new(wanted.size).add(guest)?;
    loop {
        guest.tell(&round(guest, &outside)?)?;
        super::ensure_alive(&mut agent)?;
    }
}

/// A network whose packets this CPU receives in the guest: the estimator is on one of them.
fn way(guest: &Guest, outside: &NetNs, receiving: u32) -> Result<()> {
    let (theirs, ours) = (format!("eth{receiving}"), format!("inside{receiving}"));
    outside.connect_to_guest(
        (&theirs, &format!("10.0.{receiving}.2/24")),
        (&ours, &format!("10.0.{receiving}.1/24")),
    )?;
    let mask = 1 << receiving;
    let steering = format!("/sys/class/net/{ours}/queues/rx-0/rps_cpus");
    guest.sh(&format!("echo {mask:x} > {steering}")).map(drop)
}

/// A ping on each way at once, from a CPU that does not receive it: one that is held up itself asks
/// later, and sees no delay.
fn round(guest: &Guest, outside: &NetNs) -> Result<String> {
    let cpus = guest.online_cpus()?;
    let ping = |receiving| {
        let sending = (receiving + 1) % cpus;
        // By its path: taskset is busybox's, which has a ping of its own.
        format!(
            "taskset -c {sending} /usr/bin/ping -q -c {PINGS} -i 0.02 10.0.{receiving}.1 \
             > /tmp/ping.{receiving} &\n"
        )
    };
    let pings = (0..cpus).map(ping).collect::<String>();
    let mut shell = outside.command("sh");
    shell.args(["-c", &format!("{pings}wait; cat /tmp/ping.*")]);
    let printed = guest.run(&mut shell, LIMIT)?.ok()?;
    summary(&printed).with_context(|| format!("ping says: {printed}"))
}

/// Of lines like `rtt min/avg/max/mdev = 0.062/0.163/0.528/0.184 ms`.
fn summary(printed: &str) -> Option<String> {
    let times = printed.lines().filter_map(|line| {
        let (_, times) = line.strip_prefix("rtt ")?.split_once(" = ")?;
        let mut times = times.split('/').skip(1).map(str::parse::<f64>);
        Some((times.next()?.ok()?, times.next()?.ok()?))
    });
    let ways = times.map(|(average, worst)| format!("{average:.1} ms, at worst {worst:.1} ms"));
    let ways = ways.collect::<Vec<_>>().join("; ");
    (!ways.is_empty()).then(|| format!("pings that each CPU receives: {ways}"))
}
