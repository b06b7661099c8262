//! Pairing a function's entry with its return where kprobe and kretprobe are
//! all that the kernel offers: the return no longer knows the arguments.

use aya_ebpf::{
    EbpfContext as _,
    bindings::pt_regs,
    maps::HashMap,
    programs::{ProbeContext, RetProbeContext},
};

use super::context_id;

/// Calls of one function that can be nested in one context: a thread, the
/// softirq on top of it, and one to spare.
const DEPTH: usize = 4;

/// How far the stack pointer of a return may lie above that of its entry, bytes:
/// the return address and what the trampoline adjusts, which differs by version
/// (arch/x86/kernel/kprobes/core.c) but is far less than the size of any frame.
const RETURN_DISTANCE: u64 = 32;

/// The calls that are under way in one context, in no order.
#[expect(missing_debug_implementations, reason = "lives in BPF alone")]
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Calls([Call; DEPTH]);

/// One call; a place without one has the stack pointer 0.
#[derive(Clone, Copy)]
#[repr(C)]
struct Call {
    stack: u64,
    arguments: [u64; 2],
}

const NO_CALL: Call = Call {
    stack: 0,
    arguments: [0; 2],
};

/// A map of the calls under way, by [`context_id`].
pub type CallMap = HashMap<u64, Calls>;

/// Remembers the arguments of a call at its entry. Returns how many events that
/// loses: this one where there is no room, or one that never returned and held the place.
#[inline(always)]
pub fn enter(map: &CallMap, ctx: &ProbeContext, arguments: [u64; 2]) -> u64 {
    let stack = stack_pointer(ctx.as_ptr().cast());
    let call = Call { stack, arguments };
    let key = context_id();
    let Some(calls) = map.get_ptr_mut(key) else {
        let calls = Calls([call, NO_CALL, NO_CALL, NO_CALL]);
        return u64::from(map.insert(key, calls, 0).is_err());
    };
    // SAFETY: a value of the map. This context alone uses it, so the reference is the only one.
    for place in unsafe { &mut (*calls).0 } {
        // The stack grows down: a call whose frame is not above this one is over.
        if place.stack <= stack {
            let unreturned = u64::from(place.stack != 0);
            *place = call;
            return unreturned;
        }
    }
    1
}

/// What a return found.
#[expect(missing_debug_implementations, reason = "lives in BPF alone")]
pub struct Return {
    /// Whether the entry of the call that returns now was seen.
    pub seen: bool,
    /// Its arguments, or zeros: the verifier of 5.10 lets nobody read what an
    /// `Option` would leave unset.
    pub arguments: [u64; 2],
    /// Calls that are over and whose return was not seen.
    pub unreturned: u64,
}

/// Takes the call that returns now off the map.
#[inline(always)]
pub fn leave(map: &CallMap, ctx: &RetProbeContext) -> Return {
    let key = context_id();
    let stack = stack_pointer(ctx.as_ptr().cast());
    let mut found = Return {
        seen: false,
        arguments: [0; 2],
        unreturned: 0,
    };
    let Some(calls) = map.get_ptr_mut(key) else {
        return found;
    };
    let mut running = false;
    // SAFETY: as in `enter`.
    for place in unsafe { &mut (*calls).0 } {
        if place.stack == 0 {
            continue;
        }
        if place.stack > stack {
            running = true;
            continue;
        }
        if stack - place.stack <= RETURN_DISTANCE {
            found.seen = true;
            found.arguments = place.arguments;
        } else {
            found.unreturned += 1;
        }
        place.stack = 0;
    }
    if !running {
        let _gone = map.remove(key);
    }
    found
}

#[inline(always)]
fn stack_pointer(regs: *const pt_regs) -> u64 {
    // SAFETY: the context of a kprobe is the registers at the probed place.
    let regs = unsafe { &*regs };
    #[cfg(bpf_target_arch = "x86_64")]
    return regs.rsp;
    #[cfg(bpf_target_arch = "aarch64")]
    return regs.sp;
}
