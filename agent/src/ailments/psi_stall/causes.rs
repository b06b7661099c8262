//! Why tasks wait, by the path of the kernel in which they do.

use serde::{Deserialize, Serialize};

use crate::kernel::{addresses::Ranges, pressure::Resource};

/// A path of the kernel that makes tasks wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The node is short of memory, and who wants some has to free it.
    DirectReclaim,
    /// A cgroup is at its `memory.high` or `memory.max`.
    CgroupReclaim,
    /// Pages are moved together for a block of many.
    Compaction,
    /// Pages are read back from swap.
    SwapIn,
    /// Pages of files are read back that were let go too soon.
    Refault,
    /// The kernel's thread that frees memory, for others.
    Kswapd,
    /// The kernel's thread that compacts, for others.
    Kcompactd,
    /// The kernel's thread that makes huge pages of a task's small ones, and has the task's
    /// cgroup pay for them.
    Khugepaged,
    /// A cgroup is kept from swapping more by its share of a disk.
    BlkcgThrottle,
    /// Others run.
    RunQueue,
    /// A CPU quota is used up.
    Throttled,
    /// A disk has not answered yet.
    Iowait,
    /// A path that is not in the table.
    Other,
    /// The stack was not taken, or the kernel hides where its functions are.
    Unknown,
}

/// The functions that call `psi_memstall_enter`, or that the compiler has put such a one
/// into, by cause. They were read off the calls in Debian's 5.10.262, 6.12.117 and 7.3.4,
/// disassembled. The first row that is on the stack tells.
const TABLE: &[(Cause, &[&str])] = &[
    (Cause::Kswapd, &["balance_pgdat"]),
    (Cause::Kcompactd, &["kcompactd"]),
    // Of these the compiler leaves the one or the other.
    (
        Cause::Khugepaged,
        &[
            "khugepaged",
            "khugepaged_do_scan",
            "khugepaged_scan_mm_slot",
            "collapse_scan_mm_slot",
        ],
    ),
    (
        Cause::BlkcgThrottle,
        &["blkcg_maybe_throttle_current", "blkcg_maybe_throttle_blkg"],
    ),
    (
        Cause::CgroupReclaim,
        &[
            "try_charge",
            "try_charge_memcg",
            "reclaim_high",
            "mem_cgroup_handle_over_high",
            "__mem_cgroup_handle_over_high",
            "try_to_free_mem_cgroup_pages",
        ],
    ),
    (Cause::Compaction, &["__alloc_pages_direct_compact"]),
    (
        Cause::DirectReclaim,
        &["__alloc_pages_slowpath", "__node_reclaim"],
    ),
    // Waits for a page lie below, whoever reads it.
    (
        Cause::SwapIn,
        &["swap_readpage", "swap_read_folio", "do_swap_page"],
    ),
    (
        Cause::Refault,
        &[
            "wait_on_page_bit_common",
            "folio_wait_bit_common",
            "filemap_read_folio",
            "read_pages",
            "readahead_expand",
            // A bio of pages that were let go lately, as in 5.10.
            "submit_bio",
            "migration_entry_wait_on_locked",
            "softleaf_entry_wait_on_locked",
        ],
    ),
];

impl Cause {
    /// All of memory, in the order of reports.
    const OF_MEMORY: [Self; 11] = [
        Self::DirectReclaim,
        Self::CgroupReclaim,
        Self::Compaction,
        Self::SwapIn,
        Self::Refault,
        Self::Kswapd,
        Self::Kcompactd,
        Self::Khugepaged,
        Self::BlkcgThrottle,
        Self::Other,
        Self::Unknown,
    ];

    /// All of a resource, in the order of reports.
    pub const fn of(resource: Resource) -> &'static [Self] {
        match resource {
            Resource::Memory => &Self::OF_MEMORY,
            Resource::Cpu => &[Self::RunQueue, Self::Throttled],
            Resource::Io => &[Self::Iowait],
            Resource::Irq => &[],
        }
    }

    /// The value of the metric's label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DirectReclaim => "direct_reclaim",
            Self::CgroupReclaim => "cgroup_reclaim",
            Self::Compaction => "compaction",
            Self::SwapIn => "swap_in",
            Self::Refault => "refault",
            Self::Kswapd => "kswapd",
            Self::Kcompactd => "kcompactd",
            Self::Khugepaged => "khugepaged",
            Self::BlkcgThrottle => "blkcg_throttle",
            Self::RunQueue => "run_queue",
            Self::Throttled => "throttled",
            Self::Iowait => "iowait",
            Self::Other => "other",
            Self::Unknown => "unknown",
        }
    }

    /// What the tasks did, after their names.
    pub const fn activity(self) -> &'static str {
        match self {
            Self::DirectReclaim => "reclaimed memory themselves, because the node is short of it",
            Self::CgroupReclaim => "reclaimed memory of a cgroup at its limit",
            Self::Compaction => "compacted memory",
            Self::SwapIn => "read pages back from swap",
            Self::Refault => "read file pages back that were reclaimed too early",
            Self::Kswapd | Self::Kcompactd | Self::Khugepaged => "worked on behalf of other tasks",
            Self::BlkcgThrottle => "were throttled because they swap too much",
            Self::RunQueue => "waited for a CPU that other tasks used",
            Self::Throttled => "waited for the next period of the quota",
            Self::Iowait => "waited for the disk",
            Self::Other => "waited, cause unknown",
            Self::Unknown => "waited, cause not traced",
        }
    }

    /// Why tasks wait, after "wait for memory:".
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::DirectReclaim => "they reclaim it themselves, because the node is short of it",
            Self::CgroupReclaim => "they reclaim that of their own cgroup, which is at its limit",
            Self::Compaction => "they compact it",
            Self::SwapIn => "they read it back from swap",
            Self::Refault => "they read file pages back that were reclaimed too early",
            Self::BlkcgThrottle => "they pause, because they swap too much",
            Self::Kswapd
            | Self::Kcompactd
            | Self::Khugepaged
            | Self::RunQueue
            | Self::Throttled
            | Self::Iowait
            | Self::Other
            | Self::Unknown => "the cause is unknown",
        }
    }

    /// Whether it is the kernel's own work that spares others a wait.
    pub const fn is_for_others(self) -> bool {
        matches!(self, Self::Kswapd | Self::Kcompactd | Self::Khugepaged)
    }

    /// The functions whose addresses [`Self::of_stack`] needs.
    pub(super) fn functions() -> Vec<&'static str> {
        let functions = TABLE.iter().flat_map(|(_, functions)| *functions);
        functions.copied().collect()
    }

    /// The cause of a wait whose frames these are.
    pub(super) fn of_stack(frames: &[u64], ranges: &Ranges) -> Self {
        let on_stack: Vec<_> = frames
            .iter()
            .filter_map(|it| ranges.function(*it))
            .collect();
        Self::of_functions(&on_stack)
    }

    fn of_functions(on_stack: &[&str]) -> Self {
        let holds = |functions: &[&str]| functions.iter().any(|it| on_stack.contains(it));
        let row = TABLE.iter().find(|(_, functions)| holds(functions));
        row.map_or(Self::Other, |(cause, _)| *cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_tells_the_cause_and_who_waits_for_a_page_of_swap_is_told_from_a_refault() {
        let swap = ["folio_wait_bit_common", "do_swap_page"];
        assert_eq!(Cause::of_functions(&swap), Cause::SwapIn);
        assert_eq!(Cause::of_functions(&swap[..1]), Cause::Refault);
        // Reading from swap takes memory, for which the node has to be reclaimed.
        let reclaim = ["__alloc_pages_slowpath", "do_swap_page"];
        assert_eq!(Cause::of_functions(&reclaim), Cause::DirectReclaim);
        assert_eq!(Cause::of_functions(&[]), Cause::Other);
    }

    #[test]
    fn who_reclaims_a_cgroup_for_a_huge_page_of_others_is_told_from_its_tasks() {
        let path = ["try_charge_memcg", "khugepaged_scan_mm_slot", "khugepaged"];
        assert_eq!(Cause::of_functions(&path), Cause::Khugepaged);
        assert_eq!(Cause::of_functions(&path[..1]), Cause::CgroupReclaim);
    }

    #[test]
    fn no_function_has_two_causes() {
        let mut functions = Cause::functions();
        functions.sort_unstable();
        let all = functions.len();
        functions.dedup();
        assert_eq!(functions.len(), all);
    }
}
