//! Times the passes of the IPVS estimator, and the waits that they cause.
//!
//! - A pass is one run of `estimation_timer` (up to 6.1, in the timer softirq) or
//!   `estimation_work` (some vendors' kernels, on a kworker): all estimators of a
//!   network namespace at once. From 6.2 on it is one of `ip_vs_chain_estimation`, a
//!   short list of them, after which the kernel thread yields (ip_vs_est.c).
//! - Packets wait from the first `softirq_raise` of `NET_RX` to the next
//!   `softirq_entry` of it on that CPU, where a pass ended in between. A raise may come
//!   before the pass: the kernel runs softirqs that are pending together in the order of their
//!   numbers, the timer's first (`handle_softirqs`), and while one is pending for a
//!   queue of packets there is no other (`enqueue_to_backlog`, net/core/dev.c).
//! - Tasks wait where a pass has interrupted one, and from `sched_wakeup` to the
//!   CPU of a pass until `sched_switch` to them. Tasks that were queued before are not
//!   counted.
//!
//! The programs of the last two are attached only while passes are slow.
//!
//! The prototypes are those of Linux 5.10.262, 6.1.176, 6.12.117 and 7.3.4, as Debian ships
//! them; "all" means these four.

#![no_std]
#![no_main]

use aya_ebpf::{
    helpers::bpf_get_current_comm,
    macros::{fentry, fexit, kprobe, kretprobe, map, raw_tracepoint},
    maps::{Array, HashMap, LruHashMap},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use ebpf::{
    ipvs_estimation::{
        Context, Control, Interval, Longest, Loss, Mark, NamespacePasses, Offsets, REMEMBERED,
        Ring, Slow, Totals, UNIT_NS, Wakeup,
    },
    scheduler_programs,
    shared::{
        PerCpu, UNKNOWN, add_atomic, add_exclusive, context_id, cpu, get_or_insert, global,
        histogram::Histogram, now_ns, read, thread, value_of,
    },
};

/// `NET_RX_SOFTIRQ` of include/linux/interrupt.h.
const NET_RX: u32 = 3;

/// How the names of the threads begin that run softirqs (kernel/softirq.c).
const KSOFTIRQD: &[u8; 9] = b"ksoftirqd";

/// Set by the agent from the BTF of the running kernel.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::UNKNOWN;

/// From how many nanoseconds on an interval is slow. Set by the agent.
#[unsafe(no_mangle)]
static SLOW_NS: u64 = u64::MAX;

#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

/// By CPU; the agent sets the size, as possible CPUs are numbered from 0 on. It is no
/// per-CPU map, since a wake-up looks at the CPU of the task that is woken.
#[map]
static MARKS: Array<Mark> = Array::with_max_entries(1, 0);

#[map]
static TOTALS: PerCpu<Totals> = PerCpu::new();

#[map]
static SLOW: PerCpu<Slow> = PerCpu::new();

/// When the chain began that a thread estimates, by [`context_id`].
#[map]
static CHAINS: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

#[map]
static NAMESPACES: LruHashMap<u64, NamespacePasses> = LruHashMap::with_max_entries(1024, 0);

#[map]
static WAKEUPS: HashMap<u64, Wakeup> = HashMap::with_max_entries(4096, 0);

/// How many tasks [`WAKEUPS`] has, so that a switch of tasks looks nowhere else
/// while it has none.
#[map]
static WAITING: Array<u64> = Array::with_max_entries(1, 0);

// Passes: programs.

/// 5.10, 6.1: `void estimation_timer(struct timer_list *t)`, static
#[fentry]
fn timer_fentry(ctx: FEntryContext) -> i32 {
    pass_begins(ctx.arg(0));
    0
}

/// As of [`timer_fentry`].
#[fexit]
fn timer_fexit(_ctx: FExitContext) -> i32 {
    pass_ends(Context::Softirq);
    0
}

/// As of [`timer_fentry`].
#[kprobe]
fn timer_kprobe(ctx: ProbeContext) -> u32 {
    pass_begins(ctx.arg(0).unwrap_or(0));
    0
}

/// As of [`timer_fentry`].
#[kretprobe]
fn timer_kretprobe(_ctx: RetProbeContext) -> u32 {
    pass_ends(Context::Softirq);
    0
}

/// None of the four; alibaba/cloud-kernel 4.19: `void estimation_work(struct work_struct *work)`,
/// static. Its spin lock keeps it on its CPU.
#[fentry]
fn work_fentry(ctx: FEntryContext) -> i32 {
    pass_begins(ctx.arg(0));
    0
}

/// As of [`work_fentry`].
#[fexit]
fn work_fexit(_ctx: FExitContext) -> i32 {
    pass_ends(Context::Workqueue);
    0
}

/// As of [`work_fentry`].
#[kprobe]
fn work_kprobe(ctx: ProbeContext) -> u32 {
    pass_begins(ctx.arg(0).unwrap_or(0));
    0
}

/// As of [`work_fentry`].
#[kretprobe]
fn work_kretprobe(_ctx: RetProbeContext) -> u32 {
    pass_ends(Context::Workqueue);
    0
}

/// 6.12, 7.3: `void ip_vs_chain_estimation(struct hlist_head *chain)`, static
#[fentry]
fn chain_fentry(_ctx: FEntryContext) -> i32 {
    chain_begins();
    0
}

/// As of [`chain_fentry`].
#[fexit]
fn chain_fexit(_ctx: FExitContext) -> i32 {
    chain_ends();
    0
}

/// As of [`chain_fentry`].
#[kprobe]
fn chain_kprobe(_ctx: ProbeContext) -> u32 {
    chain_begins();
    0
}

/// As of [`chain_fentry`].
#[kretprobe]
fn chain_kretprobe(_ctx: RetProbeContext) -> u32 {
    chain_ends();
    0
}

// Waits: programs.

/// All: `softirq_raise(unsigned int vec_nr)`, include/trace/events/irq.h
#[raw_tracepoint]
fn softirq_raise(ctx: RawTracePointContext) -> i32 {
    if ctx.arg::<u32>(0) == NET_RX {
        rx_raised();
    }
    0
}

/// All: `softirq_entry(unsigned int vec_nr)`, include/trace/events/irq.h
#[raw_tracepoint]
fn softirq_entry(ctx: RawTracePointContext) -> i32 {
    if ctx.arg::<u32>(0) == NET_RX {
        rx_served();
    }
    0
}

scheduler_programs!(woken: woken, switched: switched);

// Passes.

#[inline(always)]
fn pass_begins(object: u64) {
    let Some(mark) = MARKS.get_ptr_mut(cpu()) else {
        TOTALS.lost(Loss::Call, 1);
        return;
    };
    // SAFETY: a value of the map. Other CPUs read `began_ns`, and write nothing.
    unsafe {
        if (*mark).began_ns != 0 {
            TOTALS.lost(Loss::Call, 1);
        }
        (*mark).object = object;
        (&raw mut (*mark).began_ns).write_volatile(now_ns());
    }
}

#[inline(always)]
fn pass_ends(context: Context) {
    let Some(mark) = MARKS.get_ptr_mut(cpu()) else {
        return;
    };
    // SAFETY: as in `pass_begins`.
    let (began_ns, object) = unsafe { ((*mark).began_ns, (*mark).object) };
    // No begin: it ran already when the probes were attached.
    if began_ns == 0 {
        return;
    }
    let pass = since(began_ns);
    // SAFETY: as in `pass_begins`.
    unsafe {
        (&raw mut (*mark).began_ns).write_volatile(0);
        (*mark).ended_ns = pass.began_ns + pass.ns;
    }
    count_pass(context, pass);
    if let Context::Softirq = context {
        if pass.ns >= global(&SLOW_NS) && interrupted_a_task() {
            count_task_wait(pass);
        }
        count_in_namespace(object, pass.ns);
    }
}

/// The scheduler may move a thread to another CPU inside a chain, so the thread is the key.
#[inline(always)]
fn chain_begins() {
    if CHAINS.insert(context_id(), now_ns(), 0).is_err() {
        TOTALS.lost(Loss::Call, 1);
    }
}

#[inline(always)]
fn chain_ends() {
    let key = context_id();
    if let Some(began) = CHAINS.get_ptr(key) {
        // SAFETY: a value of the map, written by this thread alone.
        let chain = since(unsafe { *began });
        let _gone = CHAINS.remove(key);
        count_pass(Context::Kthread, chain);
    }
}

#[inline(always)]
fn count_pass(context: Context, pass: Interval) {
    let Some(totals) = TOTALS.get() else {
        return;
    };
    let epoch = control().epoch;
    // SAFETY: this CPU's own value. Only the end of a pass writes these fields, and it does
    // not interrupt another.
    unsafe {
        Histogram::record(
            &raw mut (*totals).passes[context as usize],
            pass.ns,
            UNIT_NS,
        );
        let longest = &raw mut (*totals).longest[(epoch & 1) as usize];
        if (*longest).epoch != epoch || (*longest).pass.ns < pass.ns {
            longest.write(Longest { epoch, pass });
        }
    }
    if let Some(slow) = slow(pass) {
        // SAFETY: as above.
        unsafe { remember(&raw mut (*slow).passes, pass) };
    }
}

/// Whether something ran on this CPU when a softirq began: neither the idle task nor
/// the thread that runs softirqs when they are many. Who it was does not matter.
#[inline(always)]
fn interrupted_a_task() -> bool {
    if thread() == 0 {
        return false;
    }
    let Ok(name) = bpf_get_current_comm() else {
        return false;
    };
    name[..KSOFTIRQD.len()] != *KSOFTIRQD
}

/// Counts a pass for the network namespace of its timer.
#[inline(always)]
fn count_in_namespace(timer: u64, ns: u64) {
    let Ok(Namespace {
        key,
        estimating,
        services,
    }) = namespace(timer)
    else {
        TOTALS.lost(Loss::Read, 1);
        return;
    };
    let Some(sum) = get_or_insert(&NAMESPACES, &key, || NO_PASSES) else {
        TOTALS.lost(Loss::Namespace, 1);
        return;
    };
    // SAFETY: a value of the map. One timer runs on one CPU at a time, so nothing else
    // writes it meanwhile.
    unsafe {
        add_exclusive(&raw mut (*sum).passes, estimating);
        add_exclusive(&raw mut (*sum).sum_ns, ns * estimating);
        add_exclusive(&raw mut (*sum).skipped, 1 - estimating);
        (*sum).estimating = estimating;
        (*sum).services = services;
    }
}

const NO_PASSES: NamespacePasses = NamespacePasses {
    passes: 0,
    sum_ns: 0,
    skipped: 0,
    estimating: 0,
    services: 0,
};

/// What a timer tells of its network namespace.
struct Namespace {
    key: u64,
    estimating: u64,
    services: u64,
}

/// Where the offsets are unknown, the timer stands for its namespace.
#[inline(always)]
fn namespace(timer: u64) -> Result<Namespace, i32> {
    if !global(&OFFSETS).tell_namespaces() {
        return Ok(Namespace {
            key: timer,
            estimating: 1,
            services: 0,
        });
    }
    let ipvs = timer.wrapping_sub(u64::from(global(&OFFSETS.ipvs_est_timer))) as *const u8;
    // SAFETY: integers.
    unsafe {
        let net: u64 = read(ipvs, global(&OFFSETS.ipvs_net))?;
        let inum: u32 = read(net as *const u8, global(&OFFSETS.net_inum))?;
        let estimating = if global(&OFFSETS.ipvs_run_estimation) == UNKNOWN {
            1
        } else {
            u64::from(read::<u32>(ipvs, global(&OFFSETS.ipvs_run_estimation))? != 0)
        };
        let services = if global(&OFFSETS.ipvs_services) == UNKNOWN {
            0
        } else {
            u64::from(read::<u32>(ipvs, global(&OFFSETS.ipvs_services))?)
        };
        Ok(Namespace {
            key: u64::from(inum),
            estimating,
            services,
        })
    }
}

// Packets.

#[inline(always)]
fn rx_raised() {
    let Some(mark) = MARKS.get_ptr_mut(cpu()) else {
        return;
    };
    // SAFETY: a value of the map. Other CPUs do not use this field.
    unsafe {
        if (*mark).rx_raised_ns == 0 {
            (*mark).rx_raised_ns = now_ns();
        }
    }
}

#[inline(always)]
fn rx_served() {
    let Some(mark) = MARKS.get_ptr_mut(cpu()) else {
        return;
    };
    // SAFETY: a value of the map. Other CPUs do not use these fields.
    let (raised, pass_ended) = unsafe { ((*mark).rx_raised_ns, (*mark).ended_ns) };
    if raised == 0 {
        return;
    }
    // SAFETY: as above.
    unsafe { (*mark).rx_raised_ns = 0 };
    if raised > pass_ended || raised < control().traced_since_ns {
        return;
    }
    let wait = since(raised);
    if let Some(totals) = TOTALS.get() {
        // SAFETY: this CPU's own value. Only this program writes the field, and it does not
        // interrupt itself: softirqs of a kind are not nested.
        unsafe { Histogram::record(&raw mut (*totals).rx_waits, wait.ns, UNIT_NS) };
    }
    if let Some(slow) = slow(wait) {
        // SAFETY: as above.
        unsafe { remember(&raw mut (*slow).rx_waits, wait) };
    }
}

// Tasks.

#[inline(always)]
fn woken(task: u64) {
    // SAFETY: an integer.
    let Ok(cpu) = (unsafe { read::<u32>(task as *const u8, global(&OFFSETS.task_cpu)) }) else {
        TOTALS.lost(Loss::Read, 1);
        return;
    };
    let Some(mark) = MARKS.get_ptr(cpu) else {
        return;
    };
    // SAFETY: a value of the map, which that CPU may write now: hence volatile.
    if unsafe { (&raw const (*mark).began_ns).read_volatile() } != 0 {
        waits_from(task, now_ns());
    }
}

#[inline(always)]
fn waits_from(task: u64, ns: u64) {
    let Some(wakeup) = WAKEUPS.get_ptr_mut(task) else {
        if WAKEUPS.insert(task, Wakeup { ns }, 0).is_ok() {
            count_waiting(1);
        } else {
            TOTALS.lost(Loss::Wait, 1);
        }
        return;
    };
    // SAFETY: a value of the map.
    unsafe {
        // Left behind by an earlier trace; of this one, the first wake-up counts.
        if (*wakeup).ns < control().traced_since_ns {
            (*wakeup).ns = ns;
        }
    }
}

/// A task that leaves the CPU while it waits was still on it when it was woken: a pass had
/// interrupted it on its way to sleep. The end of that pass counts its wait.
#[inline(always)]
fn switched(previous: u64, next: u64) {
    if !anybody_waits() {
        return;
    }
    let _was_running = forget(previous);
    if let Some(woken_ns) = forget(next)
        && woken_ns >= control().traced_since_ns
    {
        count_task_wait(since(woken_ns));
    }
}

/// Takes a waiting task off the map; when it was woken.
#[inline(always)]
fn forget(task: u64) -> Option<u64> {
    let wakeup = WAKEUPS.get_ptr(task)?;
    // SAFETY: a value of the map.
    let ns = unsafe { (*wakeup).ns };
    if WAKEUPS.remove(task).is_ok() {
        // Minus one, in two's complement.
        count_waiting(u64::MAX);
    }
    Some(ns)
}

#[inline(always)]
fn count_task_wait(wait: Interval) {
    if let Some(totals) = TOTALS.get() {
        // SAFETY: this CPU's own value. A switch of tasks and the end of a pass write the
        // field; the former runs with interrupts off, so neither interrupts the other.
        unsafe { Histogram::record(&raw mut (*totals).task_waits, wait.ns, UNIT_NS) };
    }
    if let Some(slow) = slow(wait) {
        // SAFETY: as above.
        unsafe { remember(&raw mut (*slow).task_waits, wait) };
    }
}

// Maps.

/// Where this CPU's slow intervals are remembered, if this one is slow.
#[inline(always)]
fn slow(interval: Interval) -> Option<*mut Slow> {
    if interval.ns < global(&SLOW_NS) {
        return None;
    }
    SLOW.get()
}

/// Overwrites the oldest interval of a ring.
///
/// # Safety
///
/// `ring` must point to one in a map's value that nothing else writes at the same time.
#[inline(always)]
unsafe fn remember(ring: *mut Ring, interval: Interval) {
    // SAFETY: the caller's promise.
    unsafe {
        let place = (*ring).written as usize % REMEMBERED;
        (*ring).intervals[place] = interval;
        add_exclusive(&raw mut (*ring).written, 1);
    }
}

#[inline(always)]
fn control() -> Control {
    value_of(&CONTROL, 0).unwrap_or(Control {
        epoch: 0,
        traced_since_ns: 0,
    })
}

#[inline(always)]
fn anybody_waits() -> bool {
    value_of(&WAITING, 0).is_some_and(|waiting| waiting != 0)
}

#[inline(always)]
fn count_waiting(change: u64) {
    if let Some(waiting) = WAITING.get_ptr_mut(0) {
        // SAFETY: a value of the map.
        unsafe { add_atomic(waiting, change) };
    }
}

/// The time from `began_ns` until now.
#[inline(always)]
fn since(began_ns: u64) -> Interval {
    Interval {
        began_ns,
        ns: now_ns().saturating_sub(began_ns),
    }
}
