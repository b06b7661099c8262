//! The soak: faults come and go, modules, namespaces, cgroups and sockets with them, and the agent
//! itself. After each round the node is healthy, nothing is treated any more, and the agent takes no
//! more than before. `cargo xtask soak` runs it for hours.

mod at_once;
mod parts;
mod runtime;

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::cgroup;
use nodemedic_tests::guest::{Guest, Output};
use nodemedic_tests::metrics::Metrics;
use nodemedic_tests::scenario::Verdict;
use nodemedic_tests::soak::Plan;
use nodemedic_tests::soak::figures::{Counts, Report, Row};
use nodemedic_tests::usage;
use serde_json::Value;

use self::at_once::End;
use self::parts::PARTS;
use crate::agent::{Agent, SOON, verb};
use crate::psi_stall::SECONDS;
use crate::treatment::{JOURNAL, STATE};

/// From the begin of a round to that of the next, at most, unless it takes longer itself.
const ROUND: Duration = Duration::from_mins(30);

/// At the least, so that there is something to compare.
const ROUNDS: u32 = 5;

/// Of one round, parts in which one fault is on the node and is compared with what others count of it.
const PARTS_A_ROUND: usize = 3;

/// How the agent is ended in a round of the first half.
const ENDS: [End; 3] = [End::Killed, End::Killed, End::Stopped];

/// Findings stay for a minute (`window`), a client is given up after 2 min 10 s (`give_up_after`),
/// and a stopped agent's treatment is resumed for as long as it would have lasted.
const FINDINGS_LINGER: Duration = Duration::from_mins(1);
const HEALTHY_WITHIN: Duration = Duration::from_mins(4);

/// In which nothing happens: what the agent takes by itself.
const REST: Duration = Duration::from_mins(2);

/// For how long a treatment is asked for.
const TREATED: &str = "20s";

/// As users have it, but names are asked for more often, and alerts may have one treatment again and
/// again.
const SETTINGS: &str = "[node]\nrefresh = \"5s\"\ntimeout = \"2s\"\n\
    [webhook]\nenabled = true\nlisten = \"127.0.0.1:19111\"\nnode_names = [\"guest\"]\n\
    [treatment_policy]\ncooldown = \"1s\"\nbackoff = \"1s\"\nmax_per_hour = 60\n\
    [treatments]\nudp_timeout = \"alert\"\n";

/// What the agent may set here.
const SYSCTLS: [&str; 10] = [
    "net.netfilter.nf_conntrack_udp_timeout",
    "net.netfilter.nf_conntrack_udp_timeout_stream",
    "net.netfilter.nf_conntrack_max",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_tcp_timeout_close",
    "net.ipv4.vs.expire_nodest_conn",
    "net.ipv4.vs.est_nice",
    "net.ipv4.vs.run_estimation",
    "vm.dirty_background_ratio",
    "vm.watermark_scale_factor",
];

/// As long as the plan says. In the first half of the time the agent is ended again and again; the
/// process that begins the second half has to live through it.
pub(crate) fn hours(guest: &Guest) -> Result<Verdict> {
    let plan: Plan = guest.input()?;
    let length = Duration::from_secs_f64(plan.hours * 3600.0);
    let mut node = Node::new(guest, plan.seed)?;
    while node.begun.elapsed() < length {
        let begin = Instant::now();
        let first_half = node.begun.elapsed() < length / 2;
        node.round(if first_half { &ENDS } else { &[] })
            .with_context(|| format!("round {}", node.counts.rounds + 1))?;
        let left = length.saturating_sub(node.begun.elapsed());
        let round = ROUND.min(length / ROUNDS);
        sleep(round.saturating_sub(begin.elapsed()).min(left));
    }
    let report = serde_json::to_value(node.end()?).context("write the report as JSON")?;
    Ok(Verdict::Measured(report))
}

/// One round in which all happens at once.
pub(crate) fn a_node_on_which_all_happens_at_once_ends_healthy(guest: &Guest) -> Result<Verdict> {
    let mut node = Node::new(guest, 1)?;
    node.all_at_once(&[End::Killed])?;
    node.ends_healthy()?;
    ensure!(node.counts.kills > 0, "{:?}", node.counts);
    node.end()?;
    Ok(Verdict::Passed)
}

/// The guest as a node, with the agent on it.
struct Node<'g> {
    guest: &'g Guest,
    agent: Agent,
    /// When it was started, and how many there were before it.
    since: Instant,
    processes: u32,
    begun: Instant,
    random: Rng,
    seed: u32,
    /// The parts that are still to come before each comes again.
    deck: Vec<usize>,
    /// What the sysctls were before the first agent.
    own: BTreeMap<&'static str, String>,
    counts: Counts,
    rows: Vec<Row>,
}

impl<'g> Node<'g> {
    /// The state directory is a small disk of its own.
    fn new(guest: &'g Guest, seed: u32) -> Result<Self> {
        load_modules(guest)?;
        guest.sh(&format!(
            "mkdir -p {STATE} && mount -t tmpfs -o size=2m,mode=700 state {STATE}"
        ))?;
        let own = sysctls(guest);
        Ok(Self {
            guest,
            agent: Agent::start_as_shipped(guest, SETTINGS)?,
            since: Instant::now(),
            processes: 1,
            begun: Instant::now(),
            random: Rng::with_seed(seed.into()),
            seed,
            deck: Vec::new(),
            own,
            counts: Counts::default(),
            rows: Vec::new(),
        })
    }

    fn round(&mut self, ends: &[End]) -> Result<()> {
        let mut happened = Vec::new();
        for _ in 0..PARTS_A_ROUND {
            let part = self.next_part();
            happened.push(part.name);
            (part.run)(self).with_context(|| format!("in the part {}", part.name))?;
        }
        self.all_at_once(ends).context("when all happens at once")?;
        self.ends_healthy()
            .with_context(|| format!("after {} and all at once", happened.join(", ")))?;
        let row = self.row()?;
        self.counts.rounds += 1;
        let tell = format!(
            "round {}: {}; {row}",
            self.counts.rounds,
            happened.join(", ")
        );
        self.rows.push(row);
        self.guest.tell(&tell)
    }

    fn next_part(&mut self) -> &'static parts::Part {
        if self.deck.is_empty() {
            self.deck = (0..PARTS.len()).collect();
            self.random.shuffle(&mut self.deck);
        }
        &PARTS[self.deck.pop().unwrap_or_default()]
    }

    /// A new process, on the state of the last.
    fn start_agent(&mut self) -> Result<()> {
        self.agent = Agent::start_as_shipped(self.guest, SETTINGS)?;
        self.since = Instant::now();
        self.processes += 1;
        Ok(())
    }

    fn kill_agent(&mut self) -> Result<()> {
        self.agent.kill()?;
        self.counts.kills += 1;
        self.start_agent()
    }

    fn stop_agent(&mut self) -> Result<()> {
        self.stop()?;
        self.counts.stops += 1;
        self.start_agent()
    }

    fn stop(&mut self) -> Result<()> {
        let status = self.agent.process().stop(2 * SOON)?;
        ensure!(status.success(), "the agent ends with {status} at SIGTERM");
        Ok(())
    }

    /// Though nothing may be wrong, for a short time; after the treatment before, as one is active at
    /// a time.
    fn treat(&mut self, ailment: &str, treatment: &str) -> Result<()> {
        eventually(2 * SOON, "no treatment is active", || self.has_no_active())?;
        self.try_treat(ailment, treatment)?.ok().map(drop)
    }

    /// The same where it may be refused.
    fn try_treat(&mut self, ailment: &str, treatment: &str) -> Result<Output> {
        let treat = [
            "treat",
            ailment,
            "--treatment",
            treatment,
            "--apply",
            "--force",
            "--duration",
            TREATED,
        ];
        let output = verb(self.guest, &treat)?;
        self.counts.treatments += u32::from(output.status.success());
        Ok(output)
    }

    /// Waits until the agent finds nothing and treats nothing, and every sysctl has its own value.
    fn ends_healthy(&mut self) -> Result<()> {
        sleep(FINDINGS_LINGER);
        eventually(HEALTHY_WITHIN, "the node is healthy, and untreated", || {
            self.agent.page("/healthz")?;
            self.agent.page("/readyz")?;
            self.is_healthy()?;
            self.is_untreated()
        })?;
        self.has_no_active()
    }

    fn has_no_active(&self) -> Result<()> {
        let runs: Value = serde_json::from_str(&verb(self.guest, &["status", "--json"])?.ok()?)?;
        let mut runs = runs.as_array().into_iter().flatten();
        let active = runs.find(|run| {
            ["intended", "applied", "confirmed"]
                .iter()
                .any(|state| run["state"] == *state)
        });
        ensure!(active.is_none(), "a treatment is active: {active:?}");
        Ok(())
    }

    fn is_healthy(&self) -> Result<()> {
        let node = self.agent.node()?;
        for ailment in node["ailments"].as_array().context("ailments")? {
            ensure!(
                ailment["verdict"] == "healthy",
                "{}: {}, coverage {}, findings {}",
                ailment["name"],
                ailment["verdict"],
                ailment["coverage"],
                ailment["findings"]
            );
        }
        Ok(())
    }

    fn is_untreated(&self) -> Result<()> {
        let metrics = self.agent.metrics()?;
        let active = metrics.select("nodemedic_treatment_active", &[]);
        let active = active.filter(|sample| sample.value > 0.0);
        let active = active.collect::<Vec<_>>();
        ensure!(active.is_empty(), "treated: {active:?}");
        let now = sysctls(self.guest);
        for (name, value) in &now {
            let own = self.own.get(name);
            ensure!(own == Some(value), "{name} is {value}, not {own:?}");
        }
        Ok(())
    }

    /// What the agent takes while nothing happens; and what the node waited, by the agent and by the
    /// kernel.
    fn row(&mut self) -> Result<Row> {
        let pid = self.agent.process().id();
        let cpu = usage::cpu_share(pid, || {
            sleep(REST);
            Ok(())
        })?;
        let metrics = self.node_waits_as_the_kernel_says()?;
        let memory = usage::memory(pid)?;
        Ok(Row {
            at: self.begun.elapsed().as_secs_f64(),
            process: self.processes,
            age: self.since.elapsed().as_secs_f64(),
            resident: memory.resident,
            anonymous: memory.anonymous,
            descriptors: usage::descriptors(pid)?,
            threads: usage::threads(pid)?,
            series: metrics as u64,
            journal: fs::metadata(JOURNAL)
                .with_context(|| format!("look at {JOURNAL}"))?
                .len(),
            cpu,
        })
    }

    /// The number of series that the page had.
    fn node_waits_as_the_kernel_says(&mut self) -> Result<usize> {
        const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];
        let waited = || -> Result<Vec<f64>> {
            let waited = RESOURCES.iter().map(|it| cgroup::node_waited_for(it));
            waited.map(|it| Ok(it?.as_secs_f64())).collect()
        };
        let before = waited()?;
        let (metrics, after) = (self.settled("psi_stall")?, waited()?);
        for (i, resource) in RESOURCES.into_iter().enumerate() {
            let labels = [
                ("resource", resource),
                ("stall", "some"),
                ("cgroup", "node"),
            ];
            let shown = metrics.value(SECONDS, &labels)?;
            ensure!(
                (before[i] - 1e-6..=after[i] + 1e-6).contains(&shown),
                "the node waited for {resource} for {shown} s by the agent, {} to {} s by the kernel",
                before[i],
                after[i]
            );
        }
        self.counts.comparisons += 3;
        Ok(metrics.count())
    }

    /// What an ailment shows, with all that happened before: the same part may have come just before.
    fn settled(&self, ailment: &str) -> Result<Metrics> {
        // The second was begun after the call.
        self.another_reading(ailment)?;
        self.another_reading(ailment)?;
        self.agent.metrics()
    }

    fn another_reading(&self, ailment: &str) -> Result<()> {
        let last = || -> Result<Value> {
            Ok(self.agent.report_of(ailment)?["reading_unix_seconds"].clone())
        };
        let before = last()?;
        eventually(SOON, "another reading", || {
            ensure!(last()? != before, "still that of {before}");
            Ok(())
        })
    }

    /// What is known in the end; the agent ends as it should.
    fn end(mut self) -> Result<Report> {
        self.stop()?;
        Ok(Report {
            hours: self.begun.elapsed().as_secs_f64() / 3600.0,
            release: self.guest.sysctl("kernel.osrelease")?,
            seed: self.seed,
            counts: self.counts,
            rows: self.rows,
        })
    }
}

/// With IPVS as kube-proxy sets it at each start.
fn load_modules(guest: &Guest) -> Result<()> {
    for module in ["nf_conntrack_netlink", "ip_vs_rr", "ip_vs_wlc"] {
        guest.modprobe(module)?;
    }
    guest.set_sysctl("net.ipv4.vs.expire_nodest_conn", "1")
}

/// Those that there are: they come and go with their modules.
fn sysctls(guest: &Guest) -> BTreeMap<&'static str, String> {
    let values = SYSCTLS.into_iter();
    let values = values.filter_map(|name| Some((name, guest.sysctl(name).ok()?)));
    values.collect()
}
