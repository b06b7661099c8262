//! Times the waits for memory that the kernel itself counts as such.
//!
//! A wait is what lies between `psi_memstall_enter(unsigned long *flags)` and
//! `psi_memstall_leave(unsigned long *flags)` (kernel/sched/psi.c). They may be nested:
//! the inner ones find the task waiting already, note that in `*flags`, and change
//! nothing. The outermost is known by the address of its flags, and at its end by their
//! value, 0.
//!
//! Both run in the thread that waits, so what current is means something here.
//!
//! The tracepoints of the scheduler are attached for a few seconds while tasks wait for
//! CPUs or disks. What a task that goes off its CPU will wait for is what pressure stall
//! information has just noted of it (`psi_sched_switch`, before the tracepoint, in
//! `__schedule`): it is still in want of a CPU, or waits for a disk, or neither.

#![no_std]
#![no_main]

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_get_current_comm,
        generated::{bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    },
    macros::{fentry, kprobe, map, raw_tracepoint},
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
    programs::{FEntryContext, ProbeContext, RawTracePointContext},
};
use ebpf::{
    psi_stall::{
        COMMAND, Doing, FRAMES, Loss, Offsets, Stall, Sum, Task, Totals, UNIT_NS, Waiter, Waiting,
    },
    shared::{Stacks, add, global, read},
};

/// `TSK_IOWAIT` and `TSK_RUNNING` of include/linux/psi_types.h.
const IN_IOWAIT: u32 = 1 << 0;
const IN_WANT_OF_A_CPU: u32 = 1 << 2;

/// Set by the agent from the BTF of the running kernel.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::UNKNOWN;

/// Which reading comes next: what is added up is added up for it.
#[map]
static EPOCH: Array<u64> = Array::with_max_entries(1, 0);

/// Waits under way, by thread. The oldest goes if there are more: it has lost its end.
#[map]
static STALLS: LruHashMap<u64, Stall> = LruHashMap::with_max_entries(16_384, 0);

/// Waits that are over, taken out by each reading.
#[map]
static WAITERS: HashMap<Waiter, Sum> = HashMap::with_max_entries(4_096, 0);

#[map]
static STACKS: Stacks<FRAMES> = Stacks::with_max_entries(4_096);

#[map]
static TOTALS: PerCpuArray<Totals> = PerCpuArray::with_max_entries(1, 0);

/// Waits for CPUs and disks that are under way. The least used goes if there are more.
#[map]
static WAITING: LruHashMap<u64, Waiting> = LruHashMap::with_max_entries(16_384, 0);

/// What tasks did, taken out by each reading.
#[map]
static TASKS: HashMap<Task, Sum> = HashMap::with_max_entries(8_192, 0);

/// When each CPU has last gone from one task to another.
#[map]
static SWITCHED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// When the watch began. `CLOCK_MONOTONIC`, nanoseconds.
#[map]
static WATCHED_SINCE: Array<u64> = Array::with_max_entries(1, 0);

// Hooks.

#[fentry]
fn memory_enter_fentry(ctx: FEntryContext) -> i32 {
    begins(&ctx, ctx.arg(0));
    0
}

#[kprobe]
fn memory_enter_kprobe(ctx: ProbeContext) -> u32 {
    begins(&ctx, ctx.arg(0).unwrap_or(0));
    0
}

#[fentry]
fn memory_leave_fentry(ctx: FEntryContext) -> i32 {
    ends(ctx.arg(0));
    0
}

#[kprobe]
fn memory_leave_kprobe(ctx: ProbeContext) -> u32 {
    ends(ctx.arg(0).unwrap_or(0));
    0
}

/// `try_to_compact_pages(gfp_t, unsigned int order, …)`
#[fentry]
fn compaction_fentry(_ctx: FEntryContext) -> i32 {
    compacts();
    0
}

#[kprobe]
fn compaction_kprobe(_ctx: ProbeContext) -> u32 {
    compacts();
    0
}

/// `sched_wakeup(struct task_struct *p)`
#[raw_tracepoint]
fn task_woken(ctx: RawTracePointContext) -> i32 {
    woken(ctx.arg(0));
    0
}

/// `sched_wakeup_new(struct task_struct *p)`
#[raw_tracepoint]
fn new_task_woken(ctx: RawTracePointContext) -> i32 {
    woken(ctx.arg(0));
    0
}

/// `sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, …)`
#[raw_tracepoint]
fn task_switched(ctx: RawTracePointContext) -> i32 {
    switched(ctx.arg(1), ctx.arg(2));
    0
}

// Waits for CPUs and disks.

#[inline(always)]
fn woken(task: u64) {
    let now = now();
    if let Some(waiting) = waiting(task) {
        if waiting.doing != Doing::WaitsForIo as u64 {
            return;
        }
        count_task(task, waiting, now);
    }
    waits_from(task, now, Doing::WaitsForCpu);
}

/// The task that goes is current still.
#[inline(always)]
fn switched(previous: u64, next: u64) {
    let now = now();
    // The idle task of each CPU has the id 0.
    if thread() != 0 {
        ran(now);
        // SAFETY: an integer.
        match unsafe { read::<u32>(previous as *const u8, global(&OFFSETS).task_psi_flags) } {
            Ok(flags) if flags & IN_WANT_OF_A_CPU != 0 => {
                waits_from(previous, now, Doing::WaitsForCpu);
            }
            Ok(flags) if flags & IN_IOWAIT != 0 => waits_from(previous, now, Doing::WaitsForIo),
            Ok(_) => {}
            Err(_) => lost(Loss::Read),
        }
    }
    if let Some(switched) = SWITCHED.get_ptr_mut(0) {
        // SAFETY: this CPU's own value, written here alone.
        unsafe { *switched = now };
    }
    if let Some(waiting) = waiting(next) {
        let _gone = WAITING.remove(next);
        if waiting.doing == Doing::WaitsForCpu as u64 {
            count_task(next, waiting, now);
        }
    }
}

/// Counts what the current task has run since its CPU has gone over to it.
#[inline(always)]
fn ran(now: u64) {
    let began = SWITCHED.get(0).copied().unwrap_or(0);
    if began < watched_since() {
        return;
    }
    let task = Task {
        // SAFETY: takes no argument.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        command: bpf_get_current_comm().unwrap_or([0; COMMAND]),
        doing: Doing::Runs as u64,
        epoch: epoch(),
    };
    add_task(&task, now.saturating_sub(began));
}

/// A wait that is under way, if it began in this watch.
#[inline(always)]
fn waiting(task: u64) -> Option<Waiting> {
    let waiting = WAITING.get_ptr(task)?;
    // SAFETY: a value of the map; two CPUs that write it at once have the same in mind.
    let waiting = unsafe { *waiting };
    (waiting.began_ns >= watched_since()).then_some(waiting)
}

#[inline(always)]
fn waits_from(task: u64, now: u64, doing: Doing) {
    let waiting = Waiting {
        began_ns: now,
        doing: doing as u64,
    };
    if WAITING.insert(task, waiting, 0).is_err() {
        lost(Loss::Task);
    }
}

/// Counts a wait of a task that need not be the current one.
#[inline(always)]
fn count_task(task: u64, waiting: Waiting, now: u64) {
    let Ok((cgroup, command)) = whose(task) else {
        lost(Loss::Read);
        return;
    };
    let task = Task {
        cgroup,
        command,
        doing: waiting.doing,
        epoch: epoch(),
    };
    add_task(&task, now.saturating_sub(waiting.began_ns));
}

#[inline(always)]
fn whose(task: u64) -> Result<(u64, [u8; COMMAND]), i32> {
    let offsets = global(&OFFSETS);
    // SAFETY: integers.
    unsafe {
        let set: u64 = read(task as *const u8, offsets.task_cgroups)?;
        let cgroup: u64 = read(set as *const u8, offsets.css_set_cgroup)?;
        let node: u64 = read(cgroup as *const u8, offsets.cgroup_node)?;
        let id: u64 = read(node as *const u8, offsets.node_id)?;
        let command: [u8; COMMAND] = read(task as *const u8, offsets.task_command)?;
        Ok((id, command))
    }
}

#[inline(always)]
fn add_task(task: &Task, ns: u64) {
    if let Some(sum) = TASKS.get_ptr_mut(task) {
        // SAFETY: a value of the map.
        unsafe { add_to(sum, ns) };
        return;
    }
    let first = Sum {
        count: 1,
        ns,
        longest_ns: ns,
    };
    if TASKS.insert(task, first, u64::from(BPF_NOEXIST)).is_ok() {
        return;
    }
    // Another CPU may have been first.
    match TASKS.get_ptr_mut(task) {
        // SAFETY: a value of the map.
        Some(sum) => unsafe { add_to(sum, ns) },
        None => lost(Loss::Task),
    }
}

#[inline(always)]
fn watched_since() -> u64 {
    WATCHED_SINCE.get(0).copied().unwrap_or(u64::MAX)
}

// Waits for memory.

#[inline(always)]
fn begins(ctx: &impl EbpfContext, flags: u64) {
    let thread = thread();
    if let Some(stall) = STALLS.get_ptr(thread) {
        // SAFETY: a value of the map, written by this thread alone.
        if unsafe { (*stall).flags } != flags {
            return;
        }
        // Two that are nested cannot keep their flags at the same place.
        lost(Loss::Call);
    }
    let stack = STACKS.id(ctx);
    if stack < 0 {
        lost(Loss::Stack);
    }
    let stall = Stall {
        flags,
        began_ns: now(),
        // SAFETY: takes no argument.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        command: bpf_get_current_comm().unwrap_or([0; COMMAND]),
        stack: stack as i32,
        compacts: 0,
    };
    if STALLS.insert(thread, stall, 0).is_err() {
        lost(Loss::Call);
    }
}

#[inline(always)]
fn ends(flags: u64) {
    let thread = thread();
    let Some(stall) = STALLS.get_ptr(thread) else {
        return;
    };
    // SAFETY: a value of the map, written by this thread alone.
    let stall = unsafe { *stall };
    // SAFETY: an integer. Where it cannot be read the wait counts as nested.
    let is_nested = unsafe { read::<u64>(flags as *const u8, 0) }.unwrap_or(1) != 0;
    let is_ours = stall.flags == flags;
    if is_nested && !is_ours {
        return;
    }
    let _gone = STALLS.remove(thread);
    if is_nested {
        // It waited already when the probes were attached, and goes on.
        return;
    }
    if !is_ours {
        lost(Loss::Call);
        return;
    }
    count(stall, now().saturating_sub(stall.began_ns));
}

#[inline(always)]
fn compacts() {
    if let Some(stall) = STALLS.get_ptr_mut(thread()) {
        // SAFETY: a value of the map, written by this thread alone.
        unsafe { (*stall).compacts = 1 };
    }
}

#[inline(always)]
fn count(stall: Stall, ns: u64) {
    if let Some(totals) = TOTALS.get_ptr_mut(0) {
        // SAFETY: this CPU's own value, and no two programs write this field.
        unsafe { (*totals).memory.record(ns, UNIT_NS) };
    }
    let waiter = Waiter {
        cgroup: stall.cgroup,
        command: stall.command,
        stack: stall.stack,
        compacts: stall.compacts,
        epoch: epoch(),
    };
    if sum(&waiter, ns) {
        return;
    }
    let first = Sum {
        count: 1,
        ns,
        longest_ns: ns,
    };
    // Another CPU may have been first.
    let is_new = WAITERS
        .insert(waiter, first, u64::from(BPF_NOEXIST))
        .is_ok();
    if !is_new && !sum(&waiter, ns) {
        lost(Loss::Waiter);
    }
}

/// Adds to a sum that is there; whether it is.
#[inline(always)]
fn sum(waiter: &Waiter, ns: u64) -> bool {
    let Some(sum) = WAITERS.get_ptr_mut(waiter) else {
        return false;
    };
    // SAFETY: a value of the map.
    unsafe { add_to(sum, ns) };
    true
}

/// Adds a time to a sum. Of two that are the longest at the same time one may win that is
/// not.
///
/// # Safety
///
/// It is a value of a map.
#[inline(always)]
unsafe fn add_to(sum: *mut Sum, ns: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        add(&raw mut (*sum).count, 1);
        add(&raw mut (*sum).ns, ns);
        if (*sum).longest_ns < ns {
            (*sum).longest_ns = ns;
        }
    }
}

/// Which reading comes next.
#[inline(always)]
fn epoch() -> u64 {
    EPOCH.get(0).copied().unwrap_or(0)
}

#[inline(always)]
fn lost(loss: Loss) {
    if let Some(totals) = TOTALS.get_ptr_mut(0) {
        // SAFETY: a value of the map; several programs count here, so atomically.
        unsafe { add(&raw mut (*totals).lost[loss as usize], 1) };
    }
}

#[inline(always)]
fn thread() -> u64 {
    // SAFETY: takes no argument.
    unsafe { bpf_get_current_pid_tgid() }
}

/// `CLOCK_MONOTONIC`, nanoseconds.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes no argument.
    unsafe { bpf_ktime_get_ns() }
}
