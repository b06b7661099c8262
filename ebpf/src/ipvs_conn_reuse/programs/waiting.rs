//! Clients whose SYN was dropped, or may have been, and that have no new connection yet.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    macros::map,
    maps::{Array, HashMap},
};
use ebpf::{
    ipvs_conn_reuse::{Fate, Flow, IpvsSettings, Loss, Number, Tuple, Waiting},
    shared::{add_atomic, context_id, now_ns, value_of},
};

use super::counts::TOTALS;

/// The agent sets the size. A client stays until it connects or the agent sweeps it
/// out, so that their number is known.
#[map]
static WAITING: HashMap<Tuple, Waiting> = HashMap::with_max_entries(1, 0);

/// By [`Number`].
#[map]
static NUMBERS: Array<u64> = Array::with_max_entries(Number::COUNT, 0);

/// Remembers the first SYN for which a client waits. A packet that may have been no SYN
/// makes room for one that was.
#[inline(always)]
pub(super) fn await_connection(
    tuple: &Tuple,
    flow: Flow,
    fate: u32,
    reason: u32,
    settings: IpvsSettings,
) {
    let waiting = Waiting {
        since_ns: now_ns(),
        context: context_id(),
        flow,
        fate: fate as u8,
        reason: reason as u8,
        settings,
        unused: [0; 6],
    };
    match WAITING.get_ptr(tuple) {
        // SAFETY: a value of the map.
        Some(first) if unsafe { (*first).fate } == Fate::Dropped as u8 => {}
        Some(_) => {
            let _gone = WAITING.insert(tuple, waiting, u64::from(BPF_ANY));
        }
        None => match WAITING.insert(tuple, waiting, u64::from(BPF_NOEXIST)) {
            Ok(()) => count_waiting(1),
            Err(_) => TOTALS.lost(Loss::Waiting, 1),
        },
    }
}

/// Whether any client waits: cheaper than to look for one of them.
#[inline(always)]
pub(super) fn anybody_waits() -> bool {
    let (Some(entered), Some(swept)) = (
        value_of(&NUMBERS, Number::Entered as u32),
        value_of(&NUMBERS, Number::Swept as u32),
    ) else {
        return false;
    };
    entered != swept
}

/// Takes a client out that waits no longer.
#[inline(always)]
pub(super) fn take(tuple: &Tuple) -> Option<Waiting> {
    let found = WAITING.get_ptr(tuple)?;
    // SAFETY: a value of the map.
    let waiting = unsafe { *found };
    // The agent may sweep it out at the same time: only one of both succeeds.
    if WAITING.remove(tuple).is_err() {
        return None;
    }
    // Minus one, in two's complement.
    count_waiting(u64::MAX);
    Some(waiting)
}

#[inline(always)]
fn count_waiting(change: u64) {
    if let Some(number) = NUMBERS.get_ptr_mut(Number::Entered as u32) {
        // SAFETY: a value of the map.
        unsafe { add_atomic(number, change) };
    }
}
