//! Our probes beside what anybody could attach with bpftrace: the least, and what learns as much.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nodemedic_tests::bench::figures::{
    BPFTRACE_ALIKE, BPFTRACE_COUNTER, Hooks, NODEMEDIC, Program, Rounds,
};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::dns::Site;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;

use super::agent::{Agent, that_ran};
use super::subject::Subject;
use super::{empty_table, enlarge_table, measured};
use crate::agent::SOON;

const COUNTER: &str = "kprobe:__nf_conntrack_confirm { @made = count(); }
                       kprobe:nf_ct_destroy { @gone = count(); }";

/// What our probes find out, but for clashes and what user space has deleted.
const ALIKE: &str = r#"
kprobe:__nf_conntrack_confirm {
    $ct = (struct nf_conn *)(((struct sk_buff *)arg0)->_nfct & 0xfffffffffffffff8);
    $t = $ct->tuplehash[0].tuple;
    if ($t.dst.protonum == 17) {
        @created[$ct->ct_net.net->ns.inum, $t.src.u3.ip, $t.dst.u.all] = count();
        @born[$ct] = nsecs;
    }
}
kprobe:nf_ct_destroy {
    $ct = (struct nf_conn *)arg0;
    $t = $ct->tuplehash[0].tuple;
    $status = $ct->status;
    if (($status & 8) != 0 && $t.dst.protonum == 17) {
        $net = $ct->ct_net.net;
        $left = (int32)($ct->timeout - *(uint32 *)kaddr("jiffies"));
        @removed[$net->ns.inum, $t.src.u3.ip, $t.dst.u.all] = count();
        @ends[$status & 6, $left <= 0] = count();
        if (($status & 4) == 0) {
            @idle = sum($net->ct.nf_ct_proto.udp.timeouts[0] - $left);
        }
        @lived = hist((nsecs - @born[$ct]) / 1000000000);
        delete(@born[$ct]);
    }
}"#;

const UNTIL_FREED: Duration = Duration::from_secs(3);

const EXCHANGES: u16 = 2_000;
const ROUNDS: usize = 3;
const TRIES: usize = 5;
/// Of entries that stand for a second.
const UNTIL_EXPIRED: Duration = Duration::from_millis(1_200);

/// Readings are rare, and there are no scans: the probes alone are measured.
const FENTRY: &str = "[agent]\ninterval = \"1m\"\n\
                      [ailments.udp_conntrack]\nscan_interval = \"0s\"\n";
const KPROBE: &str = "[agent]\ninterval = \"1m\"\n\
                      [ailments.udp_conntrack]\nscan_interval = \"0s\"\nhooks = [\"kprobe\"]\n";
/// To see the counts of programs soon.
const EVERY_SECOND: &str = "[agent]\ninterval = \"1s\"\n\
                            [ailments.udp_conntrack]\nscan_interval = \"0s\"\n";

const SUBJECTS: [(&str, Subject); 5] = [
    ("nothing", Subject::Nothing),
    (NODEMEDIC, Subject::Ours(FENTRY)),
    ("nodemedic, kprobe", Subject::Ours(KPROBE)),
    (BPFTRACE_COUNTER, Subject::Bpftrace(COUNTER, 2)),
    (BPFTRACE_ALIKE, Subject::Bpftrace(ALIKE, 2)),
];

pub(crate) fn probes_beside_bpftrace(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    enlarge_table(guest, 65_536)?;
    guest.modprobe("nf_conntrack_netlink")?;
    // One second: entries are to expire soon, and none while its exchange goes on.
    guest.set_sysctl("net.netfilter.nf_conntrack_udp_timeout", "1")?;
    // Caches, and the first use of everything.
    round(guest, &site)?;
    let mut rounds = SUBJECTS.map(|(name, _)| Rounds::of(name));
    for _ in 0..ROUNDS {
        for ((_, subject), rounds) in SUBJECTS.iter().zip(&mut rounds) {
            let round = subject.with(guest, || round(guest, &site))?;
            // The kernel frees the maps of what has gone by and by.
            sleep(UNTIL_FREED);
            rounds.made.push(round.made);
            rounds.expired.push(round.expired);
        }
    }
    // Only now: the counting costs as well.
    guest.set_sysctl("kernel.bpf_stats_enabled", "1")?;
    let mut programs = ours(guest, &site, "", "fentry")?;
    programs.extend(ours(guest, &site, "hooks = [\"kprobe\"]\n", "kprobe")?);
    measured(&Hooks {
        exchanges: EXCHANGES.into(),
        rounds: rounds.into(),
        programs,
    })
}

/// How long things took, seconds.
struct Round {
    /// The exchanges, each of which makes an entry.
    made: f64,
    /// A scan of the table that finds all of them expired, and removes them.
    expired: f64,
}

fn round(guest: &Guest, site: &Site) -> Result<Round> {
    for _ in 0..TRIES {
        empty_table(guest)?;
        let begin = Instant::now();
        site.one_shots(20_000..20_000 + EXCHANGES)?;
        let made = begin.elapsed().as_secs_f64();
        sleep(UNTIL_EXPIRED);
        // The kernel looks for expired entries by itself now and then, in a minute at most.
        if entries(guest)? != u64::from(EXCHANGES) {
            continue;
        }
        let begin = Instant::now();
        // A dump kills what has expired (`ctnetlink_dump_table`, nf_conntrack_netlink.c).
        guest.sh("conntrack -L 2>/dev/null")?;
        let expired = begin.elapsed().as_secs_f64();
        let left = entries(guest)?;
        ensure!(left == 0, "{left} entries have not expired");
        return Ok(Round { made, expired });
    }
    bail!("{TRIES} times the kernel removed entries before they could be scanned");
}

fn entries(guest: &Guest) -> Result<u64> {
    let count = guest.sysctl("net.netfilter.nf_conntrack_count")?;
    count
        .parse()
        .with_context(|| format!("a count of {count:?}"))
}

/// What the kernel counts of our programs for the beginning and the end of the entries of a round.
fn ours(guest: &Guest, site: &Site, hooks: &str, label: &str) -> Result<Vec<Program>> {
    empty_table(guest)?;
    let agent = Agent::start(guest, &format!("{EVERY_SECOND}{hooks}"))?;
    round(guest, site)?;
    let programs = eventually(SOON, "the agent has read its programs' counts", || {
        let programs = agent.programs("udp_conntrack")?;
        let runs = |part: &str| {
            let matching = programs
                .iter()
                .filter(|program| program.name.contains(part));
            matching.map(|program| program.runs).sum::<u64>()
        };
        let (confirms, ends) = (runs("confirm"), runs("destroy"));
        let wanted = u64::from(EXCHANGES);
        ensure!(
            confirms >= wanted && ends >= wanted,
            "{confirms} confirmations, {ends} ends of {wanted}"
        );
        Ok(programs)
    })?;
    agent.stop()?;
    Ok(that_ran(programs, label))
}
