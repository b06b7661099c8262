//! Telling apart the contexts in which a kernel function can run at one time.

use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id};

/// A key for what a function's entry leaves for its return.
///
/// The thread id where a thread runs, the CPU where it is the idle task (thread
/// id 0 on every CPU). A softirq runs on top of whatever was current and ends
/// before that goes on, so per key calls are strictly nested.
#[inline(always)]
pub fn context_id() -> u64 {
    // SAFETY: both helpers take no argument and cannot fail.
    let (task, cpu) = unsafe { (bpf_get_current_pid_tgid(), bpf_get_smp_processor_id()) };
    if task == 0 {
        u64::MAX - u64::from(cpu)
    } else {
        task
    }
}
