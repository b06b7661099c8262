//! What can be done against it: what each change does, what it costs, how it is undone.

use super::{
    judge::{IO_STALL, MEMORY_RECLAIM},
    measure::{NodeReading, Reading},
};

use crate::model::{Bound, Change, Proposal, Treatment};

/// Safest first.
pub(super) const TREATMENTS: &[&Treatment] = &[&DIRTY_BACKGROUND, &WATERMARKS];

/// Part of the memory, in percent, from which on the kernel writes by itself.
const LOWER_BACKGROUND: u64 = 3;

/// Five times the default: kswapd begins when half a percent of the memory is free.
const WIDER_WATERMARKS: u64 = 50;

static DIRTY_BACKGROUND: Treatment = Treatment {
    name: "dirty_background",
    effect: "the kernel starts earlier to write dirty pages, and in smaller batches",
    cost: "the kernel also writes files that are soon overwritten or deleted, so it writes more \
           in total",
    acts: "at once",
    applies: "where vm.dirty_background_ratio is in use and above 3, and more than half of what \
           it allows is dirty",
    keys: &[Bound {
        key: "vm.dirty_background_ratio",
        allowed: LOWER_BACKGROUND..=LOWER_BACKGROUND,
    }],
    durable: "set vm.dirty_background_ratio in a file of /etc/sysctl.d",
};

static WATERMARKS: Treatment = Treatment {
    name: "watermark_scale",
    effect: "kswapd starts to reclaim earlier, so that fewer allocations reclaim themselves",
    cost: "up to 0.5 % of the memory stays free, and is lost to the page cache",
    acts: "at once",
    applies: "where vm.watermark_scale_factor is below 50, allocations reclaimed although kswapd \
           was active, and vm.min_free_kbytes does not wake kswapd as early",
    keys: &[Bound {
        key: "vm.watermark_scale_factor",
        allowed: WIDER_WATERMARKS..=WIDER_WATERMARKS,
    }],
    durable: "set vm.watermark_scale_factor in a file of /etc/sysctl.d",
};

/// What each treatment would be now.
pub(super) fn proposals(reading: &Reading) -> Vec<Proposal> {
    let node = &reading.node;
    let lower = node
        .sysctl(DIRTY_BACKGROUND.keys[0].key)
        .filter(|from| *from > LOWER_BACKGROUND)
        .map(|from| change(&DIRTY_BACKGROUND, node, from));
    let wider = node
        .sysctl(WATERMARKS.keys[0].key)
        .filter(|from| *from < WIDER_WATERMARKS)
        .map(|from| change(&WATERMARKS, node, from));
    vec![
        Proposal {
            objection: no_wave(node),
            ..Proposal::new(&DIRTY_BACKGROUND, &[IO_STALL], lower)
        },
        Proposal {
            objection: not_short(node),
            ..Proposal::new(&WATERMARKS, &[MEMORY_RECLAIM], wider)
        },
    ]
}

fn change(treatment: &'static Treatment, node: &NodeReading, from: u64) -> Change {
    let Bound { key, allowed } = &treatment.keys[0];
    Change::new(key, node.netns, from, *allowed.start())
}

/// Why writing sooner would do no good: what waits to be written is not what holds the
/// disks up.
fn no_wave(node: &NodeReading) -> Option<String> {
    let dirty = node.memory.dirty.saturating_add(node.memory.writeback);
    let ratio = node.sysctl("vm.dirty_background_ratio").unwrap_or(0);
    let allowed = node.memory.available / 100 * ratio;
    (dirty.saturating_mul(2) < allowed).then(|| {
        format!(
            "{} MiB wait to be written, less than half of the {} MiB that \
             vm.dirty_background_ratio={ratio} allows",
            dirty >> 20,
            allowed >> 20
        )
    })
}

/// Why an earlier kswapd would do no good: the counters do not say that the node was
/// short of memory.
fn not_short(node: &NodeReading) -> Option<String> {
    let events = &node.events;
    let wider = node.memory.total / 10_000 * WIDER_WATERMARKS;
    let least = node.sysctl("vm.min_free_kbytes");
    if let Some(least) = least.filter(|least| wakes_kswapd(*least) >= wider) {
        Some(format!(
            "vm.min_free_kbytes={least} already wakes kswapd as early"
        ))
    } else if events.allocstall == 0 {
        Some("no allocation reclaimed memory itself in the window".to_owned())
    } else if events.pgscan_kswapd == 0 {
        Some("kswapd was not active in the window, so it was not late".to_owned())
    } else {
        None
    }
}

/// How far above the least that is kept free kswapd begins for this `vm.min_free_kbytes` alone, in
/// bytes; what `vm.watermark_scale_factor` asks for counts where it is more (mm/page_alloc.c,
/// `__setup_per_zone_wmarks`).
const fn wakes_kswapd(min_free_kbytes: u64) -> u64 {
    min_free_kbytes.saturating_mul(1024) / 4
}
