//! Times the passes of the IPVS estimator, and the waits that they cause.
//!
//! - A pass is one run of `estimation_timer` (up to 6.1, in the timer softirq) or
//!   `estimation_work` (some vendors' kernels, on a kworker): all estimators of a
//!   network namespace at once. From 6.2 on it is one of `ip_vs_chain_estimation`, a
//!   short list of them, after which the kernel thread gives way (ip_vs_est.c).
//! - Packets wait from the first `softirq_raise` of `NET_RX` to the next
//!   `softirq_entry` of it on that CPU, where a pass ended in between. A raise may come
//!   before the pass: softirqs that are pending together run in the order of their
//!   numbers, the timer's first (`handle_softirqs`), and while one is pending for a
//!   queue of packets there is no other (`enqueue_to_backlog`, net/core/dev.c).
//! - Tasks wait where a pass has interrupted one, and from `sched_wakeup` to the
//!   CPU of a pass until `sched_switch` to them. Those that were queued before are
//!   in no count.
//!
//! The programs of the last two are attached only while passes are slow.

#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{
        bpf_get_current_comm,
        generated::{bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    },
    macros::{fentry, fexit, kprobe, kretprobe, map, raw_tracepoint},
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
    programs::{FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext},
};
use ebpf::{
    ipvs_estimation::{
        Context, Control, Interval, Longest, Loss, Mark, NamespacePasses, Offsets, REMEMBERED,
        Ring, Slow, Totals, UNIT_NS, Wakeup,
    },
    shared::{UNKNOWN, add, context_id, global, read},
};

/// `NET_RX_SOFTIRQ` of include/linux/interrupt.h.
const NET_RX: u32 = 3;

/// The begin of the names of the threads that run softirqs (kernel/softirq.c).
const KSOFTIRQD: &[u8; 9] = b"ksoftirqd";

/// Set by the agent from the BTF of the running kernel.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::UNKNOWN;

/// From how many nanoseconds on an interval is slow. Set by the agent.
#[unsafe(no_mangle)]
static SLOW_NS: u64 = u64::MAX;

#[map]
static CONTROL: Array<Control> = Array::with_max_entries(1, 0);

/// By CPU; the agent sets the size, as possible CPUs are numbered from 0 on. No
/// per-CPU map, since a wake-up looks at the CPU of the woken.
#[map]
static MARKS: Array<Mark> = Array::with_max_entries(1, 0);

#[map]
static TOTALS: PerCpuArray<Totals> = PerCpuArray::with_max_entries(1, 0);

#[map]
static SLOW: PerCpuArray<Slow> = PerCpuArray::with_max_entries(1, 0);

/// When the chain began that a thread is in.
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

// Hooks: `estimation_timer(struct timer_list *)`.

#[fentry]
fn timer_fentry(ctx: FEntryContext) -> i32 {
    pass_begins(ctx.arg(0));
    0
}

#[fexit]
fn timer_fexit(_ctx: FExitContext) -> i32 {
    pass_ends(Context::Softirq);
    0
}

#[kprobe]
fn timer_kprobe(ctx: ProbeContext) -> u32 {
    pass_begins(ctx.arg(0).unwrap_or(0));
    0
}

#[kretprobe]
fn timer_kretprobe(_ctx: RetProbeContext) -> u32 {
    pass_ends(Context::Softirq);
    0
}

// Hooks: `estimation_work(struct work_struct *)`. Its spin lock keeps it on its CPU.

#[fentry]
fn work_fentry(ctx: FEntryContext) -> i32 {
    pass_begins(ctx.arg(0));
    0
}

#[fexit]
fn work_fexit(_ctx: FExitContext) -> i32 {
    pass_ends(Context::Workqueue);
    0
}

#[kprobe]
fn work_kprobe(ctx: ProbeContext) -> u32 {
    pass_begins(ctx.arg(0).unwrap_or(0));
    0
}

#[kretprobe]
fn work_kretprobe(_ctx: RetProbeContext) -> u32 {
    pass_ends(Context::Workqueue);
    0
}

// Hooks: `ip_vs_chain_estimation(struct hlist_head *)`.

#[fentry]
fn chain_fentry(_ctx: FEntryContext) -> i32 {
    chain_begins();
    0
}

#[fexit]
fn chain_fexit(_ctx: FExitContext) -> i32 {
    chain_ends();
    0
}

#[kprobe]
fn chain_kprobe(_ctx: ProbeContext) -> u32 {
    chain_begins();
    0
}

#[kretprobe]
fn chain_kretprobe(_ctx: RetProbeContext) -> u32 {
    chain_ends();
    0
}

// Hooks: who waits.

/// `softirq_raise(unsigned int vec_nr)`
#[raw_tracepoint]
fn softirq_raise(ctx: RawTracePointContext) -> i32 {
    if ctx.arg::<u32>(0) == NET_RX {
        rx_raised();
    }
    0
}

/// `softirq_entry(unsigned int vec_nr)`
#[raw_tracepoint]
fn softirq_entry(ctx: RawTracePointContext) -> i32 {
    if ctx.arg::<u32>(0) == NET_RX {
        rx_served();
    }
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

// Passes.

#[inline(always)]
fn pass_begins(object: u64) {
    let Some(mark) = mark(cpu()) else {
        lost(Loss::Call);
        return;
    };
    if mark.began_ns != 0 {
        lost(Loss::Call);
    }
    mark.object = object;
    mark.began_ns = now();
}

#[inline(always)]
fn pass_ends(context: Context) {
    let Some(mark) = mark(cpu()) else {
        return;
    };
    // No begin: it ran already when the probes were attached.
    if mark.began_ns == 0 {
        return;
    }
    let pass = since(mark.began_ns);
    mark.began_ns = 0;
    mark.ended_ns = pass.began_ns + pass.ns;
    count_pass(context, pass);
    if let Context::Softirq = context {
        if pass.ns >= global(&SLOW_NS) && interrupted_a_task() {
            count_task_wait(pass);
        }
        count_in_namespace(mark.object, pass.ns);
    }
}

/// A thread may be moved to another CPU inside a chain, so it is known by itself.
#[inline(always)]
fn chain_begins() {
    if CHAINS.insert(context_id(), now(), 0).is_err() {
        lost(Loss::Call);
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
    let Some(totals) = totals() else {
        return;
    };
    totals.passes[context as usize].record(pass.ns, UNIT_NS);
    let epoch = control().epoch;
    let longest = &mut totals.longest[(epoch & 1) as usize];
    if longest.epoch != epoch || longest.pass.ns < pass.ns {
        *longest = Longest { epoch, pass };
    }
    if let Some(slow) = slow(pass) {
        remember(&mut slow.passes, pass);
    }
}

/// Whether something ran on this CPU when a softirq began: neither the idle task nor
/// the thread that runs softirqs when they are many. Who it was does not matter.
#[inline(always)]
fn interrupted_a_task() -> bool {
    // SAFETY: takes no argument.
    if unsafe { bpf_get_current_pid_tgid() } == 0 {
        return false;
    }
    let Ok(name) = bpf_get_current_comm() else {
        return false;
    };
    name[..KSOFTIRQD.len()] != *KSOFTIRQD
}

/// Of a timer, what is known of its namespace.
#[inline(always)]
fn count_in_namespace(timer: u64, ns: u64) {
    let Ok(Namespace {
        key,
        estimating,
        services,
    }) = namespace(timer)
    else {
        lost(Loss::Read);
        return;
    };
    let counts = NamespacePasses {
        passes: estimating,
        sum_ns: ns * estimating,
        skipped: 1 - estimating,
        estimating,
        services,
    };
    // One timer runs on one CPU at a time, so nobody else writes this value.
    if let Some(sum) = NAMESPACES.get_ptr_mut(key) {
        // SAFETY: a value of the map.
        let sum = unsafe { &mut *sum };
        sum.passes += counts.passes;
        sum.sum_ns += counts.sum_ns;
        sum.skipped += counts.skipped;
        sum.estimating = estimating;
        sum.services = services;
    } else if NAMESPACES
        .insert(key, counts, u64::from(BPF_NOEXIST))
        .is_err()
    {
        lost(Loss::Namespace);
    }
}

/// What a timer tells of its network namespace.
struct Namespace {
    key: u64,
    estimating: u64,
    services: u64,
}

/// Where the kernel tells nothing, the timer stands for its namespace.
#[inline(always)]
fn namespace(timer: u64) -> Result<Namespace, i32> {
    let offsets = global(&OFFSETS);
    if !offsets.tell_namespaces() {
        return Ok(Namespace {
            key: timer,
            estimating: 1,
            services: 0,
        });
    }
    let ipvs = timer.wrapping_sub(u64::from(offsets.ipvs_est_timer)) as *const u8;
    // SAFETY: integers.
    unsafe {
        let net: u64 = read(ipvs, offsets.ipvs_net)?;
        let inum: u32 = read(net as *const u8, offsets.net_inum)?;
        let estimating = if offsets.ipvs_run_estimation == UNKNOWN {
            1
        } else {
            u64::from(read::<u32>(ipvs, offsets.ipvs_run_estimation)? != 0)
        };
        let services = if offsets.ipvs_services == UNKNOWN {
            0
        } else {
            u64::from(read::<u32>(ipvs, offsets.ipvs_services)?)
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
    if let Some(mark) = mark(cpu())
        && mark.rx_raised_ns == 0
    {
        mark.rx_raised_ns = now();
    }
}

#[inline(always)]
fn rx_served() {
    let Some(mark) = mark(cpu()) else {
        return;
    };
    let raised = mark.rx_raised_ns;
    if raised == 0 {
        return;
    }
    mark.rx_raised_ns = 0;
    let is_of_a_pass = raised <= mark.ended_ns;
    if !is_of_a_pass || raised < control().watched_since_ns {
        return;
    }
    let wait = since(raised);
    if let Some(totals) = totals() {
        totals.rx_waits.record(wait.ns, UNIT_NS);
    }
    if let Some(slow) = slow(wait) {
        remember(&mut slow.rx_waits, wait);
    }
}

// Tasks.

#[inline(always)]
fn woken(task: u64) {
    // SAFETY: an integer.
    let Ok(cpu) = (unsafe { read::<u32>(task as *const u8, global(&OFFSETS).task_cpu) }) else {
        lost(Loss::Read);
        return;
    };
    if mark(cpu).is_some_and(|mark| mark.began_ns != 0) {
        waits_from(task, now());
    }
}

#[inline(always)]
fn waits_from(task: u64, ns: u64) {
    let Some(wakeup) = WAKEUPS.get_ptr_mut(task) else {
        if WAKEUPS.insert(task, Wakeup { ns }, 0).is_ok() {
            waiting(1);
        } else {
            lost(Loss::Wait);
        }
        return;
    };
    // SAFETY: a value of the map.
    let wakeup = unsafe { &mut *wakeup };
    // Left behind by an earlier watch; of this one, the first wake-up counts.
    if wakeup.ns < control().watched_since_ns {
        wakeup.ns = ns;
    }
}

/// A task that goes without having come was on the CPU when it was woken: a pass had
/// interrupted it on its way to sleep, which is counted there.
#[inline(always)]
fn switched(previous: u64, next: u64) {
    if !anybody_waits() {
        return;
    }
    let _was_running = forget(previous);
    if let Some(woken_ns) = forget(next)
        && woken_ns >= control().watched_since_ns
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
        // In two's complement.
        waiting(u64::MAX);
    }
    Some(ns)
}

#[inline(always)]
fn count_task_wait(wait: Interval) {
    if let Some(totals) = totals() {
        totals.task_waits.record(wait.ns, UNIT_NS);
    }
    if let Some(slow) = slow(wait) {
        remember(&mut slow.task_waits, wait);
    }
}

// Maps.

#[inline(always)]
fn mark(cpu: u32) -> Option<&'static mut Mark> {
    // SAFETY: a value of the map. All but `began_ns`, which wake-ups on other CPUs
    // read, is used by its own CPU alone.
    MARKS.get_ptr_mut(cpu).map(|mark| unsafe { &mut *mark })
}

#[inline(always)]
fn totals() -> Option<&'static mut Totals> {
    // SAFETY: this CPU's own value. No two programs that can interrupt each other
    // write the same field, but for the losses.
    TOTALS.get_ptr_mut(0).map(|totals| unsafe { &mut *totals })
}

/// Where this CPU's slow intervals are remembered, if this one is slow.
#[inline(always)]
fn slow(interval: Interval) -> Option<&'static mut Slow> {
    if interval.ns < global(&SLOW_NS) {
        return None;
    }
    // SAFETY: as of `totals`.
    SLOW.get_ptr_mut(0).map(|slow| unsafe { &mut *slow })
}

#[inline(always)]
fn remember(ring: &mut Ring, interval: Interval) {
    if let Some(place) = ring.intervals.get_mut(ring.written as usize % REMEMBERED) {
        *place = interval;
        ring.written += 1;
    }
}

#[inline(always)]
fn control() -> Control {
    CONTROL.get(0).copied().unwrap_or(Control {
        epoch: 0,
        watched_since_ns: 0,
    })
}

#[inline(always)]
fn anybody_waits() -> bool {
    WAITING.get(0).is_some_and(|waiting| *waiting != 0)
}

#[inline(always)]
fn waiting(more: u64) {
    if let Some(waiting) = WAITING.get_ptr_mut(0) {
        // SAFETY: a value of the map.
        unsafe { add(waiting, more) };
    }
}

#[inline(always)]
fn lost(loss: Loss) {
    if let Some(totals) = TOTALS.get_ptr_mut(0) {
        // SAFETY: a value of the map; several programs count here, so atomically.
        unsafe { add(&raw mut (*totals).lost[loss as usize], 1) };
    }
}

// Time.

#[inline(always)]
fn cpu() -> u32 {
    // SAFETY: takes no argument.
    unsafe { bpf_get_smp_processor_id() }
}

/// `CLOCK_MONOTONIC`, nanoseconds.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: takes no argument.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn since(began_ns: u64) -> Interval {
    Interval {
        began_ns,
        ns: now().saturating_sub(began_ns),
    }
}
