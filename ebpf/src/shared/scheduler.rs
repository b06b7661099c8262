//! The programs at the tracepoints of the scheduler.

/// Defines the programs `task_woken`, `new_task_woken` and `task_switched`, which give the
/// addresses of `task_struct`s to functions of the object: to `woken(task)` that of a task
/// that was woken, to `switched(previous, next)` those of the task that leaves this CPU
/// and of the one that follows it.
///
/// Prototypes: include/trace/events/sched.h.
#[macro_export]
macro_rules! scheduler_programs {
    (woken: $woken:path, switched: $switched:path) => {
        // All kernels: `sched_wakeup(struct task_struct *p)`
        #[::aya_ebpf::macros::raw_tracepoint]
        fn task_woken(ctx: ::aya_ebpf::programs::RawTracePointContext) -> i32 {
            $woken(ctx.arg(0));
            0
        }

        // All kernels: `sched_wakeup_new(struct task_struct *p)`
        #[::aya_ebpf::macros::raw_tracepoint]
        fn new_task_woken(ctx: ::aya_ebpf::programs::RawTracePointContext) -> i32 {
            $woken(ctx.arg(0));
            0
        }

        // 5.10: `sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next)`
        // 6.1, 6.12, 7.3: the same, and then `unsigned int prev_state`
        #[::aya_ebpf::macros::raw_tracepoint]
        fn task_switched(ctx: ::aya_ebpf::programs::RawTracePointContext) -> i32 {
            $switched(ctx.arg(1), ctx.arg(2));
            0
        }
    };
}
