//! What can be done against it: what each change does, what it costs, how it is undone.

use super::{
    judge::{FEW_BUCKETS, IDLE_ENTRIES, TABLE_FILLING, TABLE_FULL},
    measure::Reading,
    room::{LONG_CHAIN, Room},
};

use crate::model::{Bound, Change, Proposal, Treatment};

/// Memory of an entry: `struct nf_conn` with the extensions that NAT adds, and its
/// share of the hash table, bytes (the slab shows 256 to 320).
const ENTRY_BYTES: u64 = 384;

/// The table may grow to this part of the memory, when every entry is taken.
const MEMORY_SHARE: u64 = 32;

/// Beyond this the hash chains of the usual table are long.
const MOST_ENTRIES: u64 = 4_194_304;

/// Memory of a bucket: a pointer, bytes.
const BUCKET_BYTES: u64 = 8;

/// The kernel rounds the number of buckets up to whole pages of pointers
/// (`nf_ct_alloc_hashtable`, nf_conntrack_core.c): a power of two from here on stays as it is, with
/// pages of 64 KiB as well.
const FEWEST_BUCKETS: u64 = 8_192;

/// A resolver asks again after 5 s by default (`RES_TIMEOUT` of glibc), on the same socket: until
/// then an answer to its first question must find the entry. A quarter of the kernel's 30 s.
const LOWEST_UDP_TIMEOUT: u64 = 7;

/// What RFC 4787 (REQ-5) asks a translator to keep a mapping for at least.
const LOWEST_STREAM_TIMEOUT: u64 = 120;

/// Safest first.
pub(super) const TREATMENTS: &[&Treatment] = &[&UDP_TIMEOUT, &STREAM_TIMEOUT, &MAX, &BUCKETS];

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
              the memory, and the hash table has buckets for them",
    keys: &[Bound {
        key: "net.netfilter.nf_conntrack_max",
        allowed: 1..=MOST_ENTRIES,
    }],
    durable: "set net.netfilter.nf_conntrack_max in a file of /etc/sysctl.d; with kube-proxy set \
              conntrack.maxPerCore and conntrack.min in its configuration",
};

static BUCKETS: Treatment = Treatment {
    name: "conntrack_buckets",
    effect: "hash chains become short: the kernel inserts new connections again, and look-ups \
             take less time",
    cost: "kernel memory, 8 bytes a bucket; packets of tracked connections wait while the kernel \
           moves the entries (0.04 to 0.08 s with 18,000 entries); in a full table the kernel \
           finds less to evict",
    acts: "at once, for all network namespaces; an undo moves the entries back",
    applies: "in the first network namespace, where the hash table has fewer buckets than \
              nf_conntrack_max, or than there are entries",
    keys: &[Bound {
        key: "net.netfilter.nf_conntrack_buckets",
        allowed: FEWEST_BUCKETS..=MOST_ENTRIES,
    }],
    durable: "set net.netfilter.nf_conntrack_buckets in a file of /etc/sysctl.d, or the parameter \
              hashsize of nf_conntrack in a file of /etc/modprobe.d",
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
        more_buckets(reading),
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
    let chain = reading
        .buckets
        .map(|buckets| 2.0 * to as f64 / buckets.max(1) as f64);
    let objection = match reading.memory {
        _ if to > MOST_ENTRIES => Some(format!("{to} entries are more than {MOST_ENTRIES}")),
        _ if let Some(chain) = chain.filter(|chain| *chain > LONG_CHAIN) => Some(format!(
            "{to} entries would stand {chain:.0} to a hash chain: set nf_conntrack_buckets first"
        )),
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

/// As many buckets as there may be entries, which is what the kernel begins with.
fn more_buckets(reading: &Reading) -> Proposal {
    let wanted = reading.limit.unwrap_or(0).max(reading.entries_of_all());
    let to = wanted
        .next_power_of_two()
        .clamp(FEWEST_BUCKETS, MOST_ENTRIES);
    let from = reading.buckets.filter(|from| *from < to);
    let change = from.map(|from| Change::new(BUCKETS.keys[0].key, reading.netns, from, to));
    let full = reading
        .limit
        .is_some_and(|limit| limit > 0 && reading.entries >= limit);
    let refused = reading.window_drops.refused_by_length().unwrap_or(0);
    let objection = match reading.memory {
        None => Some("the amount of memory is unknown".to_owned()),
        Some(memory) if to * BUCKET_BYTES > memory / MEMORY_SHARE => Some(format!(
            "{to} buckets would take {} MiB, more than a {MEMORY_SHARE}nd of the memory",
            (to * BUCKET_BYTES).div_ceil(1 << 20)
        )),
        Some(_) if full && refused == 0 && Room::of(reading).would_be_sparser(to) => Some(
            "the table is full, and in more buckets the kernel finds less to evict: raise \
             nf_conntrack_max first"
                .to_owned(),
        ),
        Some(_) => None,
    };
    Proposal {
        objection,
        ..Proposal::new(&BUCKETS, &[FEW_BUCKETS], change)
    }
}
