//! What room the hash table leaves: chains that are too long, and eviction that finds nothing.

use super::measure::Reading;

/// Buckets that `early_drop` looks at for an entry to evict (`NF_CT_EVICTION_RANGE`,
/// nf_conntrack_core.c).
const EVICTION_RANGE: f64 = 8.0;

/// Each entry stands in the table twice, once for each direction.
const CHAINS: f64 = 2.0;

/// A table where more than this part of the new connections finds nothing to evict is sparse.
const SPARSE: f64 = 0.05;

/// A chain is refused from a random length between 50 and 80 on (`MIN_CHAINLEN`, `MAX_CHAINLEN`,
/// nf_conntrack_core.c, since 5.17). Lengths follow a Poisson distribution: at this mean less
/// than one chain in 100,000 is longer than 50.
pub(super) const LONG_CHAIN: f64 = 25.0;

/// What is known of the table of the agent's own network namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    entries: u64,
    /// Entries that can be evicted, if a recent scan counted them.
    evictable: Option<u64>,
    buckets: Option<u64>,
}

impl Room {
    pub(super) fn of(reading: &Reading) -> Self {
        // A scan that is older than the load says nothing of it.
        let recent = reading.snapshot.as_ref().filter(|scan| {
            let scanned = scan.udp.total() + scan.other.total();
            scan.complete && scanned.abs_diff(reading.entries) <= reading.entries / 4
        });
        let evictable = recent.map(|scan| {
            [scan.udp, scan.other]
                .map(|state| state.unreplied + state.replied)
                .iter()
                .sum()
        });
        Self {
            entries: reading.entries,
            evictable,
            buckets: reading.buckets.filter(|buckets| *buckets > 0),
        }
    }

    /// The part of new connections for which `early_drop` finds no entry to evict in a full table
    /// of so many buckets. It looks at 8 buckets, so their number of evictable entries follows a
    /// Poisson distribution.
    fn finds_nothing(self, buckets: u64) -> Option<f64> {
        let evictable = self.evictable? as f64;
        Some((-EVICTION_RANGE * CHAINS * evictable / buckets as f64).exp())
    }

    /// Why early drop makes no room, where the scan shows it.
    pub(super) fn why_nothing_is_evicted(self) -> Option<String> {
        let evictable = self.evictable?;
        let buckets = self.buckets?;
        let nothing = self.finds_nothing(buckets).filter(|part| *part > SPARSE)?;
        let assured = self.entries.saturating_sub(evictable);
        Some(if evictable * 10 < self.entries {
            format!(
                "{assured} of {} entries are assured, which the kernel does not evict",
                self.entries
            )
        } else {
            format!(
                "the table is sparse: the kernel looks for an entry to evict in 8 of {buckets} \
                 buckets, and {:.0} % of the time finds none",
                100.0 * nothing
            )
        })
    }

    /// Whether a table of so many buckets makes a full table drop more.
    pub(super) fn would_be_sparser(self, buckets: u64) -> bool {
        self.finds_nothing(buckets)
            .is_none_or(|nothing| nothing > SPARSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_of(evictable: u64, buckets: u64) -> Room {
        Room {
            entries: 500,
            evictable: Some(evictable),
            buckets: Some(buckets),
        }
    }

    /// 280 connections beyond the limit met a table of 500 entries: the kernel dropped 85 to 104
    /// in 8,192 buckets, 3 to 9 in 2,048, and none in 512.
    #[test]
    fn early_drop_fails_as_often_as_kernels_did() {
        let dropped = |buckets| {
            let room = full_of(500, buckets);
            280.0 * room.finds_nothing(buckets).expect("all is known")
        };
        assert!(
            (80.0..110.0).contains(&dropped(8_192)),
            "{}",
            dropped(8_192)
        );
        assert!((3.0..9.0).contains(&dropped(2_048)), "{}", dropped(2_048));
        assert!(dropped(512) < 0.1, "{}", dropped(512));
    }

    #[test]
    fn a_full_table_is_sparse_or_assured_or_neither() {
        let why = |evictable, buckets| full_of(evictable, buckets).why_nothing_is_evicted();
        let sparse = why(500, 8_192).expect("it finds nothing in a third of its attempts");
        assert!(sparse.contains("8 of 8192 buckets"), "{sparse}");
        let assured = why(0, 512).expect("there is nothing to evict");
        assert!(
            assured.contains("500 of 500 entries are assured"),
            "{assured}"
        );
        assert_eq!(why(500, 512), None);
    }

    #[test]
    fn without_a_scan_nothing_is_said_and_a_larger_hash_is_not_trusted() {
        let unknown = Room {
            evictable: None,
            ..full_of(500, 8_192)
        };
        assert_eq!(unknown.why_nothing_is_evicted(), None);
        assert!(unknown.would_be_sparser(16_384));
    }
}
