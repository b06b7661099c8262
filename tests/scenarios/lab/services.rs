//! More services than there is time for, and a ping that waits, for `ipvs_estimation`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nodemedic_tests::guest::{Guest, NetNs};
use nodemedic_tests::lab::Fault;
use nodemedic_tests::maladies::ipvs::Services;
use nodemedic_tests::scenario::Verdict;

/// Of one round, on each CPU.
const PINGS: u32 = 50;

/// For a round that takes 5 s where nothing waits.
const LIMIT: Duration = Duration::from_secs(120);

/// Ends only with an error.
pub(crate) fn services(guest: &Guest) -> Result<Verdict> {
    let wanted: Fault = guest.input()?;
    let outside = guest.netns("outside")?;
    outside.connect_to_guest(("eth0", "10.0.0.2/24"), ("inside", "10.0.0.1/24"))?;
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

/// A ping from each CPU at once: an answer is received on the CPU that asks, and the estimator is on
/// one of them.
fn round(guest: &Guest, outside: &NetNs) -> Result<String> {
    let ping =
        |cpu| format!("taskset -c {cpu} ping -q -c {PINGS} -i 0.1 10.0.0.1 > /tmp/ping.{cpu} &\n");
    let pings = (0..guest.online_cpus()?).map(ping).collect::<String>();
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
    let times = times.collect::<Vec<_>>();
    let cpus = times.len();
    let average = times.iter().map(|(average, _)| average).sum::<f64>() / cpus as f64;
    let worst = times.iter().map(|(_, worst)| *worst).reduce(f64::max)?;
    Some(format!(
        "a ping on each of {cpus} CPUs: {average:.1} ms on average, {worst:.1} ms at worst"
    ))
}
