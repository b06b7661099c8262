//! IPVS schedules a new connection.

use aya_ebpf::{
    EbpfContext,
    macros::{fexit, kretprobe},
    programs::{FExitContext, RetProbeContext},
};
use ebpf::{
    ipvs_conn_reuse::{Fate, Outcome, Waiting},
    shared::{context_id, now_ns},
};

use super::{
    IPPROTO_TCP,
    connection::Connection,
    counts::{count, count_delay, name_new_destination},
    waiting::{self, anybody_waits},
};
use crate::count_if_readable;

/// The connection that replaces an expired one follows sooner than this in the same
/// context; the next SYN of a client comes later. Nanoseconds.
const AT_ONCE_NS: u64 = 500_000_000;
/// A client repeats its SYN after one second at the earliest (`TCP_TIMEOUT_INIT`).
const REPEATED_NS: u64 = 900_000_000;

const RESCHEDULED: u8 = Fate::Rescheduled as u8;
const DROPPED: u8 = Fate::Dropped as u8;
const UNMARKED: u8 = Fate::Unmarked as u8;

/// All: `struct ip_vs_conn *ip_vs_schedule(struct ip_vs_service *svc, struct sk_buff *skb,
/// struct ip_vs_proto_data *pd, int *ignored, struct ip_vs_iphdr *iph)`, ip_vs_core.c
#[fexit]
fn schedule_fexit(ctx: FExitContext) -> i32 {
    connected(&ctx, ctx.arg(5));
    0
}

/// As of [`schedule_fexit`].
#[kretprobe]
fn schedule_kretprobe(ctx: RetProbeContext) -> u32 {
    connected(&ctx, ctx.ret());
    0
}

/// A client has a new connection, or none where it is 0. Almost none of them waited for it, so
/// it is asked first whether anybody does.
#[inline(always)]
fn connected(ctx: &impl EbpfContext, connection: u64) {
    if connection != 0 && anybody_waits() {
        count_if_readable(ctx, waited(Connection(connection)));
    }
}

#[inline(always)]
fn waited(connection: Connection) -> Result<(), i32> {
    if connection.protocol()? != IPPROTO_TCP {
        return Ok(());
    }
    let tuple = connection.tuple(connection.netns()?)?;
    let Some(waiting) = waiting::take(&tuple) else {
        return Ok(());
    };
    let waited_ns = now_ns().saturating_sub(waiting.since_ns);
    let Some((outcome, dropped)) = outcome(&waiting, waited_ns) else {
        return Ok(());
    };
    if let Some(outcome) = outcome {
        let reason = u32::from(waiting.reason);
        count(
            outcome as u32,
            reason,
            &waiting.flow,
            &tuple,
            waiting.settings,
        );
    }
    if dropped {
        count_delay(waited_ns);
    }
    name_new_destination(&waiting.flow, connection)
}

/// The outcome that is still to be counted of a client's first SYN, and whether that was
/// dropped. None where it was no SYN, or where nothing is known.
#[inline(always)]
fn outcome(waiting: &Waiting, waited_ns: u64) -> Option<(Option<Outcome>, bool)> {
    let at_once = waiting.context == context_id() && waited_ns < AT_ONCE_NS;
    let repeated = waited_ns > REPEATED_NS;
    match (waiting.fate, at_once, repeated) {
        (RESCHEDULED, _, _) => Some((None, false)),
        (DROPPED, _, _) => Some((None, true)),
        (UNMARKED, true, _) => Some((Some(Outcome::Rescheduled), false)),
        (_, _, true) => Some((Some(Outcome::Dropped), true)),
        _ => None,
    }
}
