//! Our probe of `__nf_conntrack_confirm` beside the least that anybody would attach there: the
//! counter that bpftrace makes of one line.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::bench::figures::{Hooks, Program};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::{Guest, Process};
use nodemedic_tests::maladies::dns::Site;
use nodemedic_tests::scenario::Verdict;

use super::agent::Agent;
use super::{empty_table, enlarge_table, measured};
use crate::agent::SOON;

const ONE_LINE: &str = "kprobe:__nf_conntrack_confirm { @ = count(); }";

const EXCHANGES: u16 = 2_000;
const ROUNDS: usize = 6;

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
    Bpftrace,
}

const SUBJECTS: [(&str, Subject); 4] = [
    ("nothing", Subject::Nothing),
    ("nodemedic, fentry", Subject::Ours(FENTRY)),
    ("nodemedic, kprobe", Subject::Ours(KPROBE)),
    ("bpftrace, kprobe", Subject::Bpftrace),
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
    programs.push(bpftraces(guest, &site)?);
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
        Subject::Bpftrace => {
            let mut bpftrace = bpftrace(guest)?;
            let result = f();
            bpftrace.stop(SOON)?;
            result
        }
    }
}

/// Started, and attached.
fn bpftrace(guest: &Guest) -> Result<Process> {
    let mut command = std::process::Command::new("bpftrace");
    let bpftrace = guest.start("bpftrace", command.args(["-e", ONE_LINE]))?;
    eventually(BPFTRACE_STARTS, "bpftrace's program", || {
        program_of(&bpftrace)
    })?;
    bpftrace.wait_for("Attaching", SOON)?;
    eventually(BPFTRACE_STARTS, "the kprobe of bpftrace", || {
        let list = guest.sh("cat /sys/kernel/debug/kprobes/list")?;
        ensure!(list.contains("__nf_conntrack_confirm"), "there is {list:?}");
        Ok(())
    })?;
    Ok(bpftrace)
}

/// What the kernel counts of our programs during one round. They hold all that runs for an entry's
/// creation; the programs for its end have run in the rounds' beginning.
fn ours(guest: &Guest, site: &Site, hooks: &str, label: &str) -> Result<Vec<Program>> {
    let agent = Agent::start(guest, &format!("{EVERY_SECOND}{hooks}"))?;
    round(guest, site)?;
    empty_table(guest)?;
    let programs = eventually(SOON, "the agent has read its programs' counts", || {
        let report = agent.report()?;
        let programs = report["programs"].as_array().context("no programs")?;
        let programs = programs.iter().map(program).collect::<Result<Vec<_>>>()?;
        let runs = |part: &str| {
            let matching = programs.iter().filter(|program| program.name.contains(part));
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

fn bpftraces(guest: &Guest, site: &Site) -> Result<Program> {
    let mut bpftrace = bpftrace(guest)?;
    round(guest, site)?;
    let program = program_of(&bpftrace)?;
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
fn program_of(bpftrace: &Process) -> Result<Program> {
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
                name: "bpftrace, kprobe: count()".to_owned(),
                runs,
                nanoseconds,
            });
        }
    }
    anyhow::bail!("it has no BPF program; it says {}", bpftrace.log())
}
