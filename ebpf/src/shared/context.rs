//! Where and when a program runs.

use aya_ebpf::helpers::generated::{
    bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns,
};

/// A key for what a function's entry leaves for its return.
///
/// The thread where one runs, the CPU where it is the idle task. A softirq runs on top of
/// whatever was current and ends before that goes on, so per key calls are strictly nested.
#[inline(always)]
pub fn context_id() -> u64 {
    let (thread, cpu) = (thread(), cpu());
    if thread == 0 {
        u64::MAX - u64::from(cpu)
    } else {
        thread
    }
}

/// The current thread: its thread group in the upper 32 bits, its own id in the lower.
/// 0 for the idle task of each CPU.
#[inline(always)]
pub fn thread() -> u64 {
    // SAFETY: the helper takes no argument and cannot fail.
    unsafe { bpf_get_current_pid_tgid() }
}

/// The number of this CPU.
#[inline(always)]
pub fn cpu() -> u32 {
    // SAFETY: the helper takes no argument and cannot fail.
    unsafe { bpf_get_smp_processor_id() }
}

/// `CLOCK_MONOTONIC`, nanoseconds.
#[inline(always)]
pub fn now_ns() -> u64 {
    // SAFETY: the helper takes no argument and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}
