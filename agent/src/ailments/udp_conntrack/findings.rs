//! The kinds of finding, worst first.

use super::judge::{CLASH, FEW_BUCKETS, IDLE_ENTRIES, TABLE_FILLING, TABLE_FULL};
use crate::model::FindingKind;

pub(super) const FINDINGS: &[FindingKind] = &[
    FindingKind {
        kind: TABLE_FULL,
        severity: "critical",
        numbers: "early_drop of /proc/net/stat/nf_conntrack rose, or drop without packets that lost a clash. Or the probe early_drops counted refusals in another network namespace. Or a table has as many entries as nf_conntrack_max",
        not: "clashes and chains that are too long lose packets with room in the table: insert_failed and chaintoolong tell them apart",
    },
    FindingKind {
        kind: FEW_BUCKETS,
        severity: "critical where connections were refused, else a warning",
        numbers: "the counter chaintoolong rose; or the mean hash chain, 2 x entries of all network namespaces / nf_conntrack_buckets, is above few_buckets_chain_length",
        not: "a full table: there drop or early_drop rises; a clash: there chaintoolong does not",
    },
    FindingKind {
        kind: CLASH,
        severity: "a warning",
        numbers: "insert_failed rose by more than chaintoolong, and drop rose as well; or the probe creations counted lost clashes",
        not: "a full table; clashes that are resolved (clash_resolve) and lose nothing are a note",
    },
    FindingKind {
        kind: TABLE_FILLING,
        severity: "a warning",
        numbers: "the growth of the last minute fills the table within table_filling_within; or more than table_filling_ratio of it is in use",
        not: "a new load that levels off below the limit, which the rate of creations and the timeout predict",
    },
    FindingKind {
        kind: IDLE_ENTRIES,
        severity: "a warning",
        numbers: "more than idle_entries_ratio of the entries are not assured in a scan, and more than idle_entries_usage_ratio of the table is in use",
        not: "long-lived streams, which are assured",
    },
];
