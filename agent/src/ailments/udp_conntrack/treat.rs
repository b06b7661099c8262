//! What can be done against it, in words for now: what each change does, what it
//! costs, how it is undone.

use super::measure::Reading;

/// A setting of the kernel that may help, described for a person to decide.
struct Treatment {
    /// The sysctl, dots between its parts.
    sysctl: &'static str,
    /// What it does.
    effect: &'static str,
    /// What it costs, and whom.
    cost: &'static str,
}

/// Memory of an entry: `struct nf_conn` with the extensions that NAT adds, and its
/// share of the hash table, bytes (the slab shows 256 to 320).
const ENTRY_BYTES: u64 = 384;

/// Below this a resolver's retry (5 s by default) would meet no entry.
const LOWEST_UDP_TIMEOUT: u64 = 10;

const UDP_TIMEOUT: Treatment = Treatment {
    sysctl: "net.netfilter.nf_conntrack_udp_timeout",
    effect: "entries of flows that are over stand for fewer seconds",
    cost: "an answer that comes later than this is not translated back; entries that exist keep \
           their expiry until their next packet",
};

/// What RFC 4787 (REQ-5) asks a translator to keep a mapping for at least.
const LOWEST_STREAM_TIMEOUT: u64 = 120;

const STREAM_TIMEOUT: Treatment = Treatment {
    sysctl: "net.netfilter.nf_conntrack_udp_timeout_stream",
    effect: "entries of streams that are over stand for fewer seconds",
    cost: "a stream (QUIC, VPN) that is silent for longer loses its translation",
};

const MAX: Treatment = Treatment {
    sysctl: "net.netfilter.nf_conntrack_max",
    effect: "the table holds more entries, in every network namespace",
    cost: "kernel memory, about 0.4 KiB an entry, and longer hash chains unless \
           nf_conntrack_buckets grows along",
};

/// Remedies for a table that fills or is full of idle entries, safest first.
pub(super) fn remedies(reading: &Reading) -> Vec<String> {
    let mut remedies = Vec::new();
    if let Some(current) = reading.timeouts.unreplied
        && current > LOWEST_UDP_TIMEOUT
    {
        remedies.push(change(&UDP_TIMEOUT, current, LOWEST_UDP_TIMEOUT));
    }
    if let Some(current) = reading.timeouts.stream
        && current > LOWEST_STREAM_TIMEOUT
        && reading.streams_dominate()
    {
        remedies.push(change(&STREAM_TIMEOUT, current, LOWEST_STREAM_TIMEOUT));
    }
    if let Some(limit) = reading.limit
        && limit > 0
    {
        let more = limit.saturating_mul(2);
        let memory = (more - limit).saturating_mul(ENTRY_BYTES).div_ceil(1 << 20);
        remedies.push(format!(
            "{} (up to {memory} MiB more)",
            change(&MAX, limit, more)
        ));
    }
    if reading.dns_dominates() {
        remedies.push(
            "answer DNS on the node (NodeLocal DNSCache): the queries of its pods then need no entry"
                .to_owned(),
        );
    }
    remedies
}

fn change(treatment: &Treatment, from: u64, to: u64) -> String {
    let Treatment {
        sysctl,
        effect,
        cost,
        ..
    } = treatment;
    format!("sysctl -w {sysctl}={to}: {effect}; costs: {cost}; undo: sysctl -w {sysctl}={from}")
}
