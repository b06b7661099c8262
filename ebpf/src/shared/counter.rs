//! Counters in values of maps.
//!
//! Several programs may write one value at the same time, on several CPUs or one
//! interrupting another, and the agent reads it meanwhile. No program may therefore hold a
//! reference to it: all go through raw pointers.

#[cfg(target_arch = "bpf")]
use core::arch::asm;

/// Adds to a counter that other CPUs or other programs add to as well.
///
/// Written as the instruction itself: the compiler's own atomics return the old
/// value, which BPF can do from Linux 5.12 on only.
///
/// # Safety
///
/// `counter` must point to an aligned u64 in a map's value.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub unsafe fn add_atomic(counter: *mut u64, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {value}", counter = in(reg) counter, value = in(reg) value);
    }
}

/// Adds to a counter that nothing else writes at the same time: it belongs to this CPU,
/// and no program that writes it can interrupt this one. It costs less than an atomic
/// addition.
///
/// # Safety
///
/// `counter` must point to an aligned u64.
#[inline(always)]
pub unsafe fn add_exclusive(counter: *mut u64, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { counter.write_volatile(counter.read_volatile().wrapping_add(value)) };
}
