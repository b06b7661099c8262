//! Our probe of `__nf_conntrack_confirm` beside the least that anybody would attach there: the
//! counter that bpftrace makes of one line.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nodemedic_tests::bench::figures::{
    BPFTRACE_ALIKE, BPFTRACE_COUNTER, Hooks, NODEMEDIC, Program,
};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::{Guest, Process};
use nodemedic_tests::maladies::dns::Site;
use nodemedic_tests::scenario::Verdict;

use super::agent::Agent;
use super::{empty_table, enlarge_table, measured};
use crate::agent::SOON;

const COUNTER: &str = "kprobe:__nf_conntrack_confirm { @ = count(); }";

/// As much of what our probe does as bpftrace can do without the types of a module.
const ALIKE: &str = "kprobe:__nf_conntrack_confirm {
    $skb = (struct sk_buff *)arg0;
    $ip = (struct iphdr *)($skb->head + $skb->network_header);
    $udp = (struct udphdr *)($skb->head + $skb->transport_header);
    if ($ip->protocol == 17) {
        @created[$skb->dev->nd_net.net->ns.inum, $ip->saddr, $udp->dest] = count();
        @born[$skb->_nfct] = nsecs;
    }
}";

/// Room for all entries; bpftrace has 4,096 by itself.
const KEYS: (&str, &str) = ("BPFTRACE_MAP_KEYS_MAX", "65536");

const EXCHANGES: u16 = 2_000;
const ROUNDS: usize = 3;

/// Under emulation it takes its time to read the kernel's symbols.
const BPFTRACE_STARTS: Duration = Duration::from_secs(120);

/// Readings are rare, and there are no walks: the probes alone are measured.
const FENTRY: &str = "[agent]\ninterval = \"1m\"\n\
                      [ailments.udp_conntrack]\nsnapshot_interval = \"0s\"\n";
const KPROBE: &str = "[agent]\ninterval = \"1m\"\n\
                      [ailments.udp_conntrack]\nsnapshot_interval = \"0s\"\nhooks = [\"kprobe\"]\n";
/// To see the counts of programs soon.
const EVERY_SECOND: &str = "[agent]\ninterval = \"1s\"\n\
                            [ailments.udp_conntrack]\nsnapshot_interval = \"0s\"\n";

/// What can be attached.
#[derive(Clone, Copy)]
enum Subject {
    Nothing,
    Ours(&'static str),
    Bpftrace(&'static str),
}

const SUBJECTS: [(&str, Subject); 5] = [
    ("nothing", Subject::Nothing),
    (NODEMEDIC, Subject::Ours(FENTRY)),
    ("nodemedic, kprobe", Subject::Ours(KPROBE)),
    (BPFTRACE_COUNTER, Subject::Bpftrace(COUNTER)),
    (BPFTRACE_ALIKE, Subject::Bpftrace(ALIKE)),
];

pub(crate) fn probes_beside_bpftrace(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    enlarge_table(guest, 65_536)?;
    // Caches, and the first use of everything.
    round(guest, &site)?;
    let mut rounds = SUBJECTS.map(|(name, _)| (name.to_owned(), Vec::new()));
    for _ in 0..ROUNDS {
        for (subject, (_, seconds)) in SUBJECTS.iter().zip(&mut rounds) {
            seconds.push(with(guest, subject.1, || round(guest, &site))?);
        }
    }
    // Only now: the counting costs as well.
    guest.set_sysctl("kernel.bpf_stats_enabled", "1")?;
    let mut programs = ours(guest, &site, "", "fentry")?;
    programs.extend(ours(guest, &site, "hooks = [\"kprobe\"]\n", "kprobe")?);
    programs.push(bpftraces(guest, &site, BPFTRACE_COUNTER, COUNTER)?);
    programs.push(bpftraces(guest, &site, BPFTRACE_ALIKE, ALIKE)?);
    measured(&Hooks {
        exchanges: EXCHANGES.into(),
        rounds: rounds.into(),
        programs,
    })
}

/// How long the exchanges take, seconds.
fn round(guest: &Guest, site: &Site) -> Result<f64> {
    empty_table(guest)?;
    let begin = Instant::now();
    site.one_shots(20_000..20_000 + EXCHANGES)?;
    Ok(begin.elapsed().as_secs_f64())
}

/// Does something while a subject is attached.
fn with<T>(guest: &Guest, subject: Subject, f: impl FnOnce() -> Result<T>) -> Result<T> {
    match subject {
        Subject::Nothing => f(),
        Subject::Ours(config) => {
            let agent = Agent::start(guest, config)?;
            let result = f();
            agent.stop()?;
            result
        }
        Subject::Bpftrace(script) => {
            let mut bpftrace = bpftrace(guest, script)?;
            let result = f();
            bpftrace.stop(SOON)?;
            result
        }
    }
}

/// Started, and attached.
fn bpftrace(guest: &Guest, script: &str) -> Result<Process> {
    let mut command = Command::new("bpftrace");
    command.env(KEYS.0, KEYS.1).args(["-e", script]);
    let bpftrace = guest.start("bpftrace", &mut command)?;
    eventually(BPFTRACE_STARTS, "the kprobe of bpftrace", || {
        let list = guest.sh("cat /sys/kernel/debug/kprobes/list")?;
        let there = list.contains("__nf_conntrack_confirm");
        ensure!(there, "there is {list:?}; it says {}", bpftrace.log());
        Ok(())
    })?;
    Ok(bpftrace)
}

/// What the kernel counts of our programs for the beginning and the end of as many entries as a
/// round makes.
fn ours(guest: &Guest, site: &Site, hooks: &str, label: &str) -> Result<Vec<Program>> {
    let agent = Agent::start(guest, &format!("{EVERY_SECOND}{hooks}"))?;
    round(guest, site)?;
    empty_table(guest)?;
    let programs = eventually(SOON, "the agent has read its programs' counts", || {
        let report = agent.report()?;
        let programs = report["programs"].as_array().context("no programs")?;
        let programs = programs.iter().map(program).collect::<Result<Vec<_>>>()?;
        let runs = |part: &str| {
            let matching = programs
                .iter()
                .filter(|program| program.name.contains(part));
            matching.map(|program| program.runs).sum::<u64>()
        };
        let (confirms, ends) = (runs("confirm"), runs("delete"));
        let wanted = u64::from(EXCHANGES);
        ensure!(
            confirms >= wanted && ends >= wanted,
            "{confirms} confirmations, {ends} ends of {wanted}"
        );
        Ok(programs)
    })?;
    agent.stop()?;
    let ran = programs.into_iter().filter(|program| program.runs > 0);
    Ok(ran
        .map(|program| Program {
            name: format!("nodemedic, {label}: {}", program.name),
            ..program
        })
        .collect())
}

/// As the report has it.
fn program(value: &serde_json::Value) -> Result<Program> {
    let seconds = value["run_seconds"].as_f64().context("no run_seconds")?;
    Ok(Program {
        name: value["name"].as_str().context("no name")?.to_owned(),
        runs: value["runs"].as_u64().context("no runs")?,
        nanoseconds: (seconds * 1e9) as u64,
    })
}

fn bpftraces(guest: &Guest, site: &Site, name: &str, script: &str) -> Result<Program> {
    let mut bpftrace = bpftrace(guest, script)?;
    round(guest, site)?;
    let program = program_of(name, &bpftrace)?;
    bpftrace.stop(SOON)?;
    ensure!(
        program.runs >= EXCHANGES.into(),
        "bpftrace's program ran {} times for {EXCHANGES} entries",
        program.runs
    );
    Ok(program)
}

/// The one program whose descriptor bpftrace holds, with what the kernel says of it
/// (`bpf_prog_show_fdinfo` in kernel/bpf/syscall.c).
fn program_of(name: &str, bpftrace: &Process) -> Result<Program> {
    let folder = format!("/proc/{}/fdinfo", bpftrace.id());
    for entry in fs::read_dir(&folder).with_context(|| format!("list {folder}"))? {
        // It may have been closed meanwhile.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse().ok())
        };
        if let (Some(nanoseconds), Some(runs)) = (field("run_time_ns:"), field("run_cnt:")) {
            return Ok(Program {
                name: name.to_owned(),
                runs,
                nanoseconds,
            });
        }
    }
    bail!("it has no BPF program; it says {}", bpftrace.log())
}
