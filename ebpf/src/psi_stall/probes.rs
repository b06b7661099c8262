//! Times the waits for memory that the kernel itself counts as such.
//!
//! A wait lies between `psi_memstall_enter` and `psi_memstall_leave`. Waits may be nested:
//! the inner ones find the task waiting already, note that in `*flags`, and change
//! nothing. The outermost is known by the address of its flags, and at its end by their
//! value, 0.
//!
//! Both run in the thread that waits, so the current task is that thread.
//!
//! The agent attaches the tracepoints of the scheduler for a few seconds while tasks wait
//! for CPUs or disks. What a task that leaves its CPU will wait for is what pressure stall
//! information has just noted of it (`psi_sched_switch`, before the tracepoint, in
//! `__schedule`): it still wants a CPU, or waits for a disk, or neither.
//!
//! The prototypes are those of Linux 5.10.262, 6.1.176, 6.12.117 and 7.3.4, as Debian ships
//! them; "all" means these four.

#![no_std]
#![no_main]

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_comm, generated::bpf_get_current_cgroup_id},
    macros::{fentry, kprobe, map},
    maps::{Array, HashMap, LruHashMap},
    programs::{FEntryContext, ProbeContext},
};
use ebpf::{
    psi_stall::{
        COMMAND, Doing, FRAMES, Loss, Offsets, Stall, Sum, Task, Totals, UNIT_NS, Waiter, Waiting,
    },
    scheduler_programs,
    shared::{
        PerCpu, Stacks, add_atomic, get_or_insert, global, histogram::Histogram, now_ns, read,
        thread, value_of,
    },
};

/// `TSK_IOWAIT` and `TSK_RUNNING` of include/linux/psi_types.h.
const IN_IOWAIT: u32 = 1 << 0;
const WANTS_CPU: u32 = 1 << 2;

/// Set by the agent from the BTF of the running kernel.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::UNKNOWN;

/// The number of the next reading, for which the probes add up.
#[map]
static EPOCH: Array<u64> = Array::with_max_entries(1, 0);

/// Waits under way, by thread. If there are more the kernel evicts the oldest, whose end was
/// not seen.
#[map]
static STALLS: LruHashMap<u64, Stall> = LruHashMap::with_max_entries(16_384, 0);

/// Waits that are over. Each reading takes them out.
#[map]
static WAITERS: HashMap<Waiter, Sum> = HashMap::with_max_entries(4_096, 0);

#[map]
static STACKS: Stacks<FRAMES> = Stacks::with_max_entries(4_096);

#[map]
static TOTALS: PerCpu<Totals> = PerCpu::new();

/// Waits for CPUs and disks that are under way. If there are more the kernel evicts the least
/// used.
#[map]
static WAITING: LruHashMap<u64, Waiting> = LruHashMap::with_max_entries(16_384, 0);

/// What tasks did. Each reading takes it out.
#[map]
static TASKS: HashMap<Task, Sum> = HashMap::with_max_entries(8_192, 0);

/// When each CPU last switched tasks. `CLOCK_MONOTONIC`, nanoseconds.
#[map]
static SWITCHED: PerCpu<u64> = PerCpu::new();

/// When the trace began. `CLOCK_MONOTONIC`, nanoseconds.
#[map]
static TRACED_SINCE: Array<u64> = Array::with_max_entries(1, 0);

// Programs.

/// All: `void psi_memstall_enter(unsigned long *flags)`, kernel/sched/psi.c
#[fentry]
fn memory_enter_fentry(ctx: FEntryContext) -> i32 {
    begins(&ctx, ctx.arg(0));
    0
}

/// As of [`memory_enter_fentry`].
#[kprobe]
fn memory_enter_kprobe(ctx: ProbeContext) -> u32 {
    begins(&ctx, ctx.arg(0).unwrap_or(0));
    0
}

/// All: `void psi_memstall_leave(unsigned long *flags)`, kernel/sched/psi.c
#[fentry]
fn memory_leave_fentry(ctx: FEntryContext) -> i32 {
    ends(ctx.arg(0));
    0
}

/// As of [`memory_leave_fentry`].
#[kprobe]
fn memory_leave_kprobe(ctx: ProbeContext) -> u32 {
    ends(ctx.arg(0).unwrap_or(0));
    0
}

/// - 5.10, 6.1, 6.12: `enum compact_result try_to_compact_pages(gfp_t gfp_mask, unsigned int
///   order, unsigned int alloc_flags, const struct alloc_context *ac, enum compact_priority
///   prio, struct page **capture)`, mm/compaction.c
/// - 7.3: the same, but its last parameter is `struct capture_control *capc`
#[fentry]
fn compaction_fentry(_ctx: FEntryContext) -> i32 {
    compacts();
    0
}

/// As of [`compaction_fentry`].
#[kprobe]
fn compaction_kprobe(_ctx: ProbeContext) -> u32 {
    compacts();
    0
}

scheduler_programs!(woken: woken, switched: switched);

// Waits for CPUs and disks.

#[inline(always)]
fn woken(task: u64) {
    let now = now_ns();
    if let Some(waiting) = waiting(task) {
        if waiting.doing != Doing::WaitsForIo as u64 {
            return;
        }
        count_task(task, waiting, now);
    }
    waits_from(task, now, Doing::WaitsForCpu);
}

/// The task that leaves the CPU is still the current one.
#[inline(always)]
fn switched(previous: u64, next: u64) {
    let now = now_ns();
    // The idle task of each CPU does not count.
    if thread() != 0 {
        ran(now);
        // SAFETY: an integer.
        match unsafe { read::<u32>(previous as *const u8, global(&OFFSETS.task_psi_flags)) } {
            Ok(flags) if flags & WANTS_CPU != 0 => {
                waits_from(previous, now, Doing::WaitsForCpu);
            }
            Ok(flags) if flags & IN_IOWAIT != 0 => waits_from(previous, now, Doing::WaitsForIo),
            Ok(_) => {}
            Err(_) => TOTALS.lost(Loss::Read, 1),
        }
    }
    if let Some(switched) = SWITCHED.get() {
        // SAFETY: this CPU's own value. Only a switch of tasks uses it, with interrupts off.
        unsafe { switched.write(now) };
    }
    if let Some(waiting) = waiting(next) {
        let _gone = WAITING.remove(next);
        if waiting.doing == Doing::WaitsForCpu as u64 {
            count_task(next, waiting, now);
        }
    }
}

/// Counts the time that the current task has run since its CPU switched to it.
#[inline(always)]
fn ran(now: u64) {
    // SAFETY: as in `switched`.
    let began = SWITCHED.get().map_or(0, |switched| unsafe { *switched });
    if began < traced_since() {
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

/// A wait that is under way, if it began in this trace.
#[inline(always)]
fn waiting(task: u64) -> Option<Waiting> {
    let waiting = WAITING.get_ptr(task)?;
    // SAFETY: a value of the map. Two CPUs that write it at the same time write the same.
    let waiting = unsafe { *waiting };
    (waiting.began_ns >= traced_since()).then_some(waiting)
}

#[inline(always)]
fn waits_from(task: u64, now: u64, doing: Doing) {
    let waiting = Waiting {
        began_ns: now,
        doing: doing as u64,
    };
    if WAITING.insert(task, waiting, 0).is_err() {
        TOTALS.lost(Loss::Task, 1);
    }
}

/// Counts a wait of a task that need not be the current one.
#[inline(always)]
fn count_task(task: u64, waiting: Waiting, now: u64) {
    let Ok((cgroup, command)) = owner(task) else {
        TOTALS.lost(Loss::Read, 1);
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

/// The cgroup and the command of a task.
#[inline(always)]
fn owner(task: u64) -> Result<(u64, [u8; COMMAND]), i32> {
    // SAFETY: integers.
    unsafe {
        let set: u64 = read(task as *const u8, global(&OFFSETS.task_cgroups))?;
        let cgroup: u64 = read(set as *const u8, global(&OFFSETS.css_set_cgroup))?;
        let node: u64 = read(cgroup as *const u8, global(&OFFSETS.cgroup_node))?;
        let id: u64 = read(node as *const u8, global(&OFFSETS.node_id))?;
        let command: [u8; COMMAND] = read(task as *const u8, global(&OFFSETS.task_command))?;
        Ok((id, command))
    }
}

#[inline(always)]
fn add_task(task: &Task, ns: u64) {
    match get_or_insert(&TASKS, task, || NOTHING) {
        // SAFETY: a value of the map.
        Some(sum) => unsafe { add_to(sum, ns) },
        None => TOTALS.lost(Loss::Task, 1),
    }
}

#[inline(always)]
fn traced_since() -> u64 {
    value_of(&TRACED_SINCE, 0).unwrap_or(u64::MAX)
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
        TOTALS.lost(Loss::Call, 1);
    }
    let stack = STACKS.id(ctx);
    if stack < 0 {
        TOTALS.lost(Loss::Stack, 1);
    }
    let stall = Stall {
        flags,
        began_ns: now_ns(),
        // SAFETY: takes no argument.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        command: bpf_get_current_comm().unwrap_or([0; COMMAND]),
        stack: stack as i32,
        compacts: 0,
    };
    if STALLS.insert(thread, stall, 0).is_err() {
        TOTALS.lost(Loss::Call, 1);
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
        TOTALS.lost(Loss::Call, 1);
        return;
    }
    count(stall, now_ns().saturating_sub(stall.began_ns));
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
    if let Some(totals) = TOTALS.get() {
        // SAFETY: this CPU's own value. Only the end of a wait writes the field, which the
        // kernel does not run again on a CPU where it is running.
        unsafe { Histogram::record(&raw mut (*totals).memory, ns, UNIT_NS) };
    }
    let waiter = Waiter {
        cgroup: stall.cgroup,
        command: stall.command,
        stack: stall.stack,
        compacts: stall.compacts,
        epoch: epoch(),
    };
    match get_or_insert(&WAITERS, &waiter, || NOTHING) {
        // SAFETY: a value of the map.
        Some(sum) => unsafe { add_to(sum, ns) },
        None => TOTALS.lost(Loss::Waiter, 1),
    }
}

const NOTHING: Sum = Sum {
    count: 0,
    ns: 0,
    longest_ns: 0,
};

/// Adds a time to a sum. Where two CPUs have a longest time at the same moment, the shorter
/// of both may win.
///
/// # Safety
///
/// `sum` must point to a map's value.
#[inline(always)]
unsafe fn add_to(sum: *mut Sum, ns: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        add_atomic(&raw mut (*sum).count, 1);
        add_atomic(&raw mut (*sum).ns, ns);
        if (*sum).longest_ns < ns {
            (*sum).longest_ns = ns;
        }
    }
}

/// The number of the next reading.
#[inline(always)]
fn epoch() -> u64 {
    value_of(&EPOCH, 0).unwrap_or(0)
}
