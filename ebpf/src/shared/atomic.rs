//! The one atomic operation that every supported kernel's BPF has.

use core::arch::asm;

/// Adds to a counter that other CPUs add to as well.
///
/// Written as the instruction itself: the compiler's own atomics return the old
/// value, which BPF can do from Linux 5.12 on only.
///
/// # Safety
///
/// `counter` must point to an aligned u64 in a map's value.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {value}", counter = in(reg) counter, value = in(reg) value);
    }
}
