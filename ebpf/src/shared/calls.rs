//! Pairing a function's entry with its return where kprobe and kretprobe are
//! all that the kernel offers: the return no longer knows the arguments.

use aya_ebpf::{EbpfContext as _, bindings::pt_regs, maps::HashMap, programs::{ProbeContext, RetProbeContext}};

use super::context_id;

/// Calls of one function that can be nested in one context: a thread, the
/// softirq on top of it, and one to spare.
const DEPTH: usize = 4;

/// How far the stack pointer of a return may lie above that of its entry, bytes:
/// the return address and what the trampoline adjusts, which differs by version
/// (arch/x86/kernel/kprobes/core.c) but is far below any frame's size.
const RETURN_DISTANCE: u64 = 32;

/// The calls that are under way in one context, outermost first.
#[derive(Clone, Copy)]
#[repr(C)]
#[expect(missing_debug_implementations, reason = "lives in BPF alone")]
pub struct Calls {
    depth: u64,
    calls: [Call; DEPTH],
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Call {
    stack: u64,
    arguments: [u64; 2],
}

const NO_CALL: Call = Call { stack: 0, arguments: [0; 2] };

/// A map of the calls under way, by [`context_id`].
pub type CallMap = HashMap<u64, Calls>;

/// Remembers the arguments of a call at its entry. `false` when there is no room:
/// the caller counts the event as lost.
#[inline(always)]
pub fn enter(map: &CallMap, ctx: &ProbeContext, arguments: [u64; 2]) -> bool {
    let call = Call { stack: stack_pointer(ctx.as_ptr().cast()), arguments };
    let key = context_id();
    let Some(calls) = map.get_ptr_mut(key) else {
        let mut calls = Calls { depth: 1, calls: [NO_CALL; DEPTH] };
        calls.calls[0] = call;
        return map.insert(key, calls, 0).is_ok();
    };
    // SAFETY: a value of the map, used by this context alone.
    let calls = unsafe { &mut *calls };
    let depth = calls.depth as usize;
    let Some(slot) = calls.calls.get_mut(depth) else { return false };
    *slot = call;
    calls.depth += 1;
    true
}

/// The arguments of the call that returns now; `None` where its entry was not
/// seen. Calls whose return was lost are dropped on the way.
#[inline(always)]
pub fn leave(map: &CallMap, ctx: &RetProbeContext) -> Option<[u64; 2]> {
    let key = context_id();
    let stack = stack_pointer(ctx.as_ptr().cast());
    // SAFETY: a value of the map, used by this context alone.
    let calls = unsafe { &mut *map.get_ptr_mut(key)? };
    let mut found = None;
    for _ in 0..DEPTH {
        let depth = (calls.depth as usize).wrapping_sub(1);
        let Some(call) = calls.calls.get(depth) else { break };
        if stack < call.stack {
            // That call's frame lies above the one that returns: it still runs.
            break;
        }
        calls.depth = depth as u64;
        if stack - call.stack <= RETURN_DISTANCE {
            found = Some(call.arguments);
            break;
        }
    }
    if calls.depth == 0 {
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
