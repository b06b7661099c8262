//! What can be done against it: what each change does, what it costs, how it is undone.

use super::{
    judge::{IDLE_ENTRIES, TABLE_FILLING, TABLE_FULL},
    measure::Reading,
};

use crate::model::{Bound, Change, Proposal, Treatment};

/// Memory of an entry: `struct nf_conn` with the extensions that NAT adds, and its
/// share of the hash table, bytes (the slab shows 256 to 320).
const ENTRY_BYTES: u64 = 384;

/// The table may grow to this part of the memory, when every entry is taken.
const MEMORY_SHARE: u64 = 32;

/// Beyond this the hash chains of the usual table are long.
const MOST_ENTRIES: u64 = 4_194_304;

/// A resolver asks again after 5 s by default (`RES_TIMEOUT` of glibc), on the same socket: until
/// then an answer to its first question must find the entry. A quarter of the kernel's 30 s.
const LOWEST_UDP_TIMEOUT: u64 = 7;

/// What RFC 4787 (REQ-5) asks a translator to keep a mapping for at least.
const LOWEST_STREAM_TIMEOUT: u64 = 120;

/// Safest first.
pub(super) const TREATMENTS: &[&Treatment] = &[&UDP_TIMEOUT, &STREAM_TIMEOUT, &MAX];

static UDP_TIMEOUT: Treatment = Treatment {
    name: "udp_timeout",
    effect: "entries of finished flows expire sooner",
    cost: "NAT does not translate an answer that arrives later than this; existing entries keep \
           their timeout until their next packet",
    acts: "on each entry with its next packet; without one, existing entries expire as before",
    applies: "where the timeout is above 7 s",
    keys: &[Bound {
        key: "net.netfilter.nf_conntrack_udp_timeout",
        allowed: LOWEST_UDP_TIMEOUT..=LOWEST_UDP_TIMEOUT,
    }],
    durable: "set net.netfilter.nf_conntrack_udp_timeout in a file of /etc/sysctl.d, and load \
              nf_conntrack before systemd-sysctl runs (a file of /etc/modules-load.d); with \
              kube-proxy set conntrack.udpTimeout in its configuration",
};

static STREAM_TIMEOUT: Treatment = Treatment {
    name: "udp_stream_timeout",
    effect: "entries of finished streams expire sooner",
    cost: "a stream (QUIC, VPN) that is silent for longer loses NAT",
    acts: "on each entry with its next packet; without one, existing entries expire as before",
    applies: "where the timeout is above 120 s, the minimum of RFC 4787, and most entries are \
              streams",
    keys: &[Bound {
        key: "net.netfilter.nf_conntrack_udp_timeout_stream",
        allowed: LOWEST_STREAM_TIMEOUT..=LOWEST_STREAM_TIMEOUT,
    }],
    durable: "set net.netfilter.nf_conntrack_udp_timeout_stream in a file of /etc/sysctl.d; with \
              kube-proxy set conntrack.udpStreamTimeout in its configuration",
};

static MAX: Treatment = Treatment {
    name: "conntrack_max",
    effect: "the table holds more entries, in every network namespace",
    cost: "kernel memory, about 0.4 KiB an entry, and longer hash chains unless \
           nf_conntrack_buckets grows as well",
    acts: "at once; after an undo, the kernel drops new entries until enough old ones expire",
    applies: "in the first network namespace, while twice as many entries take at most a 32nd of \
              the memory",
    keys: &[Bound {
        key: "net.netfilter.nf_conntrack_max",
        allowed: 1..=MOST_ENTRIES,
    }],
    durable: "set net.netfilter.nf_conntrack_max in a file of /etc/sysctl.d; with kube-proxy set \
              conntrack.maxPerCore and conntrack.min in its configuration",
};

/// What each treatment would be now.
pub(super) fn proposals(reading: &Reading) -> Vec<Proposal> {
    vec![
        shorter(&UDP_TIMEOUT, reading, reading.timeouts.unreplied),
        Proposal {
            objection: (!reading.streams_dominate()).then(|| "few entries are streams".to_owned()),
            ..shorter(&STREAM_TIMEOUT, reading, reading.timeouts.stream)
        },
        larger(reading),
    ]
}

/// The timeout at its lowest.
fn shorter(treatment: &'static Treatment, reading: &Reading, now: Option<u64>) -> Proposal {
    let change = treatment.keys.first().zip(now).and_then(|(bound, from)| {
        let to = *bound.allowed.start();
        (from > to).then(|| Change::new(bound.key, reading.netns, from, to))
    });
    Proposal::new(
        treatment,
        &[TABLE_FULL, TABLE_FILLING, IDLE_ENTRIES],
        change,
    )
}

/// The table at twice its size.
fn larger(reading: &Reading) -> Proposal {
    let Some(from) = reading.limit.filter(|limit| *limit > 0) else {
        return Proposal::new(&MAX, &[TABLE_FULL, TABLE_FILLING], None);
    };
    let to = from.saturating_mul(2);
    let change = Change::new(MAX.keys[0].key, reading.netns, from, to);
    let needed = to.saturating_mul(ENTRY_BYTES);
    let objection = match reading.memory {
        _ if to > MOST_ENTRIES => Some(format!("{to} entries are more than {MOST_ENTRIES}")),
        Some(memory) if needed <= memory / MEMORY_SHARE => None,
        Some(memory) => Some(format!(
            "{to} entries would take up to {} MiB, more than a {MEMORY_SHARE}nd of the {} MiB of \
             this machine",
            needed.div_ceil(1 << 20),
            memory >> 20
        )),
        None => Some("the amount of memory is unknown".to_owned()),
    };
    Proposal {
        objection,
        ..Proposal::new(&MAX, &[TABLE_FULL, TABLE_FILLING], Some(change))
    }
}
