//! Why tasks wait: each cause is brought about, and beside it the others are not.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::cgroup::Cgroup;
use nodemedic_tests::faults::disk;
use nodemedic_tests::faults::reader::{self, Use};
use nodemedic_tests::faults::working_set::{self, Kind};
use nodemedic_tests::guest::{Guest, Process};
use nodemedic_tests::metrics::Metrics;
use nodemedic_tests::scenario::Verdict;
use serde_json::Value;

use super::{healthy, names, start, start_with};
use crate::agent::{Agent, SOON};

const CAUSE_SECONDS: &str = "nodemedic_psi_stall_cause_seconds_total";

/// How much of what the kernel has counted the agent may have missed, or told as another cause.
const AGREES: f64 = 0.15;

/// So many times the kernel's count may be the agent's. The waits of a fault are short, and what the
/// probes take of an emulated CPU is in the agent's clock; with long ones
/// `waits_for_memory_agree_with_the_kernels_count` holds the two closer together.
const LONGER: f64 = 2.0;

/// Time by cause of one agent, as its metrics have it, since they were read first.
pub(super) struct Causes<'a> {
    agent: &'a Agent,
    before: Metrics,
}

impl<'a> Causes<'a> {
    pub(super) fn since_now(agent: &'a Agent) -> Result<Self> {
        let before = agent.metrics()?;
        Ok(Self { agent, before })
    }

    /// Waits until tasks have waited a good while by this cause, and by none of the others at all.
    pub(super) fn rises(&self, resource: &str, cause: &str, others: &[&str]) -> Result<()> {
        eventually(2 * SOON, &format!("the seconds of {cause}"), || {
            let rose = self.risen()?;
            let found = |it: &&(String, String, f64)| it.0 == resource && it.1 == cause;
            let seconds = rose.iter().find(found).map_or(0.0, |it| it.2);
            ensure!(seconds > 0.3, "they are {seconds}: {rose:?}");
            Ok(())
        })?;
        let rose = self.risen()?;
        let other = rose.iter().find(|it| others.contains(&it.1.as_str()));
        ensure!(other.is_none(), "by others too: {rose:?}");
        Ok(())
    }

    /// All that has risen: resource, cause, seconds.
    fn risen(&self) -> Result<Vec<(String, String, f64)>> {
        let now = self.agent.metrics()?;
        let mut risen = Vec::new();
        for (resource, cause) in CAUSES {
            let labels = [("resource", resource), ("cause", cause)];
            let of = |metrics: &Metrics| metrics.value(CAUSE_SECONDS, &labels);
            let seconds = of(&now)? - of(&self.before)?;
            if seconds > 0.0 {
                risen.push((resource.to_owned(), cause.to_owned(), seconds));
            }
        }
        Ok(risen)
    }

    /// Waits until [`MOST`] of what the tasks of a cgroup waited in the watch is by this cause.
    pub(super) fn is_of(&self, cause: &str, path: &str) -> Result<()> {
        eventually(2 * SOON, &format!("{path} waits by {cause}"), || {
            let report = self.agent.report()?;
            let waiters = report["reading"]["probed"]["waiters"].as_array();
            let theirs = waiters
                .into_iter()
                .flatten()
                .filter(|it| it["path"] == path);
            let (by_it, by_others): (Vec<_>, Vec<_>) = theirs.partition(|it| it["cause"] == cause);
            let seconds = |of: Vec<&Value>| -> f64 {
                of.iter().filter_map(|it| it["seconds"].as_f64()).sum()
            };
            let (by_it, by_others) = (seconds(by_it), seconds(by_others));
            ensure!(
                by_it > 0.3 && by_it > MOST * by_others,
                "{by_it} s, and {by_others} s by others: {}",
                report["reading"]["probed"]
            );
            Ok(())
        })
    }
}

/// Of two stacks that have one place in the kernel's map the later is not taken.
const UNKNOWN: &str = "unknown";

/// So many times what is by all others: who waits for a disk has to wait for a CPU too, a little.
const MOST: f64 = 4.0;

/// Those that scenarios bring about, by resource.
const CAUSES: [(&str, &str); 10] = [
    ("cpu", "run_queue"),
    ("cpu", "throttled"),
    ("io", "iowait"),
    ("memory", "cgroup_reclaim"),
    ("memory", "compaction"),
    ("memory", "direct_reclaim"),
    ("memory", "refault"),
    ("memory", "swap_in"),
    ("memory", "other"),
    ("memory", UNKNOWN),
];

/// The kernel's own counts of the node, added up.
fn counted(names: &[&str]) -> Result<u64> {
    let text = fs::read_to_string("/proc/vmstat").context("read /proc/vmstat")?;
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let counts = lines.filter(|(name, _)| names.iter().any(|it| name.starts_with(it)));
    let counts = counts.map(|(name, count)| count.parse::<u64>().context(name.to_owned()));
    counts.sum()
}

/// A fault of one cgroup: by these causes its tasks wait for memory.
struct Fault {
    cgroup: Cgroup,
    /// Each with the kernel's counts, of which at least one rises with it.
    causes: &'static [(&'static str, &'static [&'static str])],
    /// Another that comes with it.
    beside: &'static str,
}

impl Fault {
    /// Begins it, waits until each cause has made somebody wait, and ends it. What the agent
    /// has counted is then what the kernel has.
    fn is_told(&self, agent: &Agent, begin: impl FnOnce(&Cgroup) -> Result<Process>) -> Result<()> {
        let before = Causes::since_now(agent)?;
        let counts = || -> Result<Vec<u64>> {
            let counts = self.causes.iter().map(|(_, names)| counted(names));
            counts.collect()
        };
        let counts_before = counts()?;
        for (cause, _) in self.causes {
            let seconds = before.before.value(CAUSE_SECONDS, &of_memory(cause))?;
            ensure!(
                seconds == 0.0,
                "{seconds} s of {cause} before there was any"
            );
        }
        let process = begin(&self.cgroup)?;
        for (cause, _) in self.causes {
            agent.shows(&format!("waits by {cause}"), 2 * SOON, |metrics| {
                let seconds = metrics.value(CAUSE_SECONDS, &of_memory(cause))?;
                ensure!(seconds > A_GOOD_WAIT, "they are {seconds} s");
                Ok(())
            })?;
        }
        drop(process);
        self.cgroup.empties()?;
        for (((cause, names), before), after) in
            self.causes.iter().zip(counts_before).zip(counts()?)
        {
            ensure!(after > before, "{cause}, but {names:?} is {after} still");
        }
        let by_kernel = self.cgroup.waited_for("memory")?.as_secs_f64();
        eventually(SOON, "the causes' sum is that of the kernel", || {
            let all = before.risen()?;
            let (own, others): (Vec<_>, Vec<_>) = all
                .iter()
                .filter(|it| it.0 == "memory")
                .partition(|it| self.has(&it.1));
            let sum = |of: Vec<&(String, String, f64)>| of.iter().map(|it| it.2).sum::<f64>();
            let (own, others) = (sum(own), sum(others));
            let least = (1.0 - AGREES) * by_kernel;
            ensure!(
                (least..LONGER * by_kernel).contains(&own) && others < AGREES * by_kernel,
                "by the kernel they are {by_kernel} s, and {all:?}: {}",
                agent.report()?["reading"]["probed"]
            );
            Ok(())
        })
    }

    fn has(&self, cause: &str) -> bool {
        cause == self.beside || cause == UNKNOWN || self.causes.iter().any(|(it, _)| *it == cause)
    }
}

const fn of_memory(cause: &str) -> [(&'static str, &str); 2] {
    [("resource", "memory"), ("cause", cause)]
}

/// Seconds. A kernel that compacts well has little to wait for.
const A_GOOD_WAIT: f64 = 0.001;

const HUGE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// One after the other, so that each is all that there is at its time.
pub(crate) fn waits_for_memory_have_the_cause_that_the_kernel_counts(
    guest: &Guest,
) -> Result<Verdict> {
    let agent = start(guest)?;
    let limited = |path| -> Result<Cgroup> {
        let cgroup = Cgroup::create(path)?;
        cgroup.set("memory.max", working_set::LIMIT)?;
        Ok(cgroup)
    };

    // Whose cgroup khugepaged charges is not who waits then.
    guest.sh(&format!("echo never > {HUGE}"))?;
    let disk = disk::create(guest)?;
    guest.sh(&format!("mkswap {disk} && swapon {disk}"))?;
    let swaps = Fault {
        cgroup: limited("/swaps")?,
        causes: &[("swap_in", &["pswpin"])],
        beside: "cgroup_reclaim",
    };
    swaps.is_told(&agent, |cgroup| {
        working_set::start(guest, cgroup, Kind::Memory)
    })?;
    guest.sh(&format!("swapoff {disk}"))?;

    disk::mount(guest)?;
    working_set::prepare_file(guest)?;
    let refaults = Fault {
        cgroup: limited("/refaults")?,
        causes: &[("refault", &["workingset_refault"])],
        beside: "cgroup_reclaim",
    };
    refaults.is_told(&agent, |cgroup| {
        working_set::start(guest, cgroup, Kind::File)
    })?;

    guest.sh(&format!("echo always > {HUGE}"))?;
    Ok(Verdict::Passed)
}

/// Takes and gives back blocks of 2 MiB, for which pages that others read into memory have to move.
const BLOCKS: &str =
    "while :; do for n in 40 0; do echo $n > /proc/sys/vm/nr_hugepages; done; done";

/// Nothing can be swapped, and the page cache has what memory there is: who reads on has to reclaim
/// itself, and who wants blocks of many pages has them moved together.
pub(crate) fn a_storm_of_reclaim_is_named_with_who_has_to(guest: &Guest) -> Result<Verdict> {
    reader::prepare(guest)?;
    let slow = reader::slow_kswapd(guest)?;
    let agent = start_with(guest, "memory_ratio = 0.05")?;
    let causes = Causes::since_now(&agent)?;
    let cgroup = Cgroup::create("/readers")?;
    let readers = (0..reader::STORM).map(|_| reader::start(guest, &cgroup, Use::None));
    let readers = readers.collect::<Result<Vec<_>>>()?;
    let finding = eventually(2 * SOON, "who reclaims is named", || {
        let finding = agent.finds_one("memory_reclaim", SOON)?;
        names(&finding, "victims", "cgroup /readers")?;
        let text = finding.to_string();
        for wanted in ["reclaim it themselves", "allocstall", "direct_reclaim"] {
            ensure!(text.contains(wanted), "nothing of {wanted}: {text}");
        }
        Ok(finding)
    })?;
    println!("{finding}");
    causes.rises("memory", "direct_reclaim", &["cgroup_reclaim", "swap_in"])?;

    let (stalls, blocks) = (counted(&["compact_stall"])?, Cgroup::create("/blocks")?);
    let taker = blocks.start(guest, "blocks", BLOCKS)?;
    agent.shows("waits by compaction", 2 * SOON, |metrics| {
        let seconds = metrics.value(CAUSE_SECONDS, &of_memory("compaction"))?;
        ensure!(seconds > A_GOOD_WAIT, "they are {seconds} s");
        Ok(())
    })?;
    // It counts one when it is over.
    eventually(2 * SOON, "the kernel counts them", || {
        let now = counted(&["compact_stall"])?;
        ensure!(now > stalls, "{now} stalls, {stalls} before");
        Ok(())
    })?;
    drop((taker, readers, slow));
    healthy(&agent)?;
    guest.sh(&format!("echo always > {HUGE}"))?;
    Ok(Verdict::Passed)
}
