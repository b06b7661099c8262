//! Connections through IPVS, new ones and those that come back on their old ports, without the agent
//! and with its probes; beside them the least that bpftrace can attach to the same functions.

use std::ops::Range;
use std::time::Instant;

use anyhow::{Result, ensure};
use nodemedic_tests::bench::figures::{Connections, NODEMEDIC, Program, SetUps};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::ipvs::Family;
use nodemedic_tests::faults::reuse::{Settings, Site};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;

use super::agent::{Agent, that_ran};
use super::subject::Subject;
use super::{bpftrace, enlarge_table, measured};
use crate::agent::SOON;

const AILMENT: &str = "ipvs_conn_reuse";
const SERVICE: u16 = 80;

/// Of one round, each made twice from the same port.
const CONNECTIONS: u16 = 500;
const ROUNDS: usize = 3;

/// The ports of all rounds: IPVS remembers each for two minutes.
const PORTS: Range<u16> = 10_000..60_000;

/// So that its chains stay short.
const TABLE: &str = "modprobe ip_vs conn_tab_bits=18";

/// This ailment alone, and rare readings: the probes are measured.
const FENTRY: &str = "[agent]\ninterval = \"1m\"\n[ailments.udp_conntrack]\nenabled = false\n\
                      [ailments.ipvs_estimation]\nenabled = false\n";
const KPROBE: &str = "[agent]\ninterval = \"1m\"\n[ailments.udp_conntrack]\nenabled = false\n\
                      [ailments.ipvs_estimation]\nenabled = false\n\
                      [ailments.ipvs_conn_reuse]\nhooks = [\"kprobe\"]\n";

/// New connections, and those that are let go.
const COUNTERS: &str = "kretprobe:ip_vs_schedule { @new = count(); }
                        kprobe:ip_vs_conn_expire_now { @let_go = count(); }";

const SUBJECTS: [(&str, Subject); 5] = [
    ("nothing", Subject::Nothing),
    (NODEMEDIC, Subject::Ours(FENTRY)),
    ("nodemedic, kprobe", Subject::Ours(KPROBE)),
    ("nodemedic, as it comes: all ailments", Subject::Ours("")),
    (
        "bpftrace, kprobe: two counters",
        Subject::Bpftrace(COUNTERS, 2),
    ),
];

/// A service, and ports that nobody has used.
struct Bench<'a> {
    guest: &'a Guest,
    site: Site,
    next: u16,
}

pub(crate) fn connections_with_and_without_it(guest: &Guest) -> Result<Verdict> {
    guest.sh(TABLE)?;
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, Settings::KUBE_PROXY)?;
    site.add_services(guest, &[SERVICE])?;
    enlarge_table(guest, 65_536)?;
    let next = PORTS.start;
    let mut bench = Bench { guest, site, next };
    // Caches, and the first use of everything.
    bench.round()?;
    let mut rounds = SUBJECTS.map(|(name, _)| SetUps::of(name));
    for _ in 0..ROUNDS {
        for ((_, subject), rounds) in SUBJECTS.iter().zip(&mut rounds) {
            let (new, reused) = subject.with(guest, || bench.round())?;
            rounds.new.push(new);
            rounds.reused.push(reused);
        }
    }
    // Only now: the counting costs as well.
    guest.set_sysctl("kernel.bpf_stats_enabled", "1")?;
    let mut programs = bench.programs("fentry", FENTRY)?;
    programs.extend(bench.programs("kprobe", KPROBE)?);
    programs.push(bench.bpftraces()?);
    measured(&Connections {
        connections: CONNECTIONS.into(),
        rounds: rounds.into(),
        programs,
    })
}

impl Bench<'_> {
    /// How long new connections take, and the same from the same ports again, seconds.
    fn round(&mut self) -> Result<(f64, f64)> {
        let ports = self.next..self.next + CONNECTIONS;
        ensure!(ports.end <= PORTS.end, "all ports are used");
        self.next = ports.end;
        Ok((self.connect(ports.clone())?, self.connect(ports)?))
    }

    fn connect(&self, ports: Range<u16>) -> Result<f64> {
        let begin = Instant::now();
        self.site.connect_in_turn(ports, SERVICE)?;
        Ok(begin.elapsed().as_secs_f64())
    }

    /// What the kernel counts of our programs for a round.
    fn programs(&mut self, label: &str, config: &str) -> Result<Vec<Program>> {
        let config = config.replace("interval = \"1m\"", "interval = \"1s\"");
        let agent = Agent::start(self.guest, &config)?;
        self.round()?;
        let wanted = 2 * u64::from(CONNECTIONS);
        let programs = eventually(SOON, "the agent has read its programs' counts", || {
            let programs = agent.programs(AILMENT)?;
            let scheduled = programs.iter().find(|it| it.name.starts_with("schedule"));
            let runs = scheduled.map_or(0, |program| program.runs);
            ensure!(runs >= wanted, "{runs} connections of {wanted}");
            Ok(programs)
        })?;
        agent.stop()?;
        Ok(that_ran(programs, &format!("nodemedic, {label}")))
    }

    fn bpftraces(&mut self) -> Result<Program> {
        let mut bpftrace = bpftrace::start(self.guest, COUNTERS, 2)?;
        self.round()?;
        let program = bpftrace::programs("bpftrace, kprobe: two counters", &bpftrace)?;
        bpftrace.stop(SOON)?;
        Ok(program)
    }
}
