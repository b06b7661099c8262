//! Histograms with power-of-two buckets, filled in the kernel.
//!
//! Bucket `i` counts the values in `(2^(i-1), 2^i]` of a unit (bucket 0 counts
//! `0..=1`), so its upper bound is *inclusive*, as `le` is in Prometheus. The
//! last bucket takes all that is larger and has no bound.

use super::add_exclusive;

/// Counts and sum of one histogram of `N` buckets.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Histogram<const N: usize> {
    /// Events by bucket; not cumulative.
    pub buckets: [u64; N],
    /// Sum of all values, in nanoseconds.
    pub sum_ns: u64,
}

// SAFETY: `repr(C)` and nothing but u64.
#[cfg(feature = "user")]
unsafe impl<const N: usize> aya::Pod for Histogram<N> {}

impl<const N: usize> Histogram<N> {
    /// No events.
    pub const ZERO: Self = Self {
        buckets: [0; N],
        sum_ns: 0,
    };

    /// Counts a duration of `ns` nanoseconds in buckets of `unit_ns`.
    ///
    /// # Safety
    ///
    /// `histogram` must point to one that nothing else writes at the same time (see
    /// [`add_exclusive`]).
    #[inline(always)]
    pub unsafe fn record(histogram: *mut Self, ns: u64, unit_ns: u64) {
        let bucket = bucket_of(ns, unit_ns, N);
        // SAFETY: the caller's promise.
        unsafe {
            if bucket < N {
                add_exclusive(&raw mut (*histogram).buckets[bucket], 1);
            }
            add_exclusive(&raw mut (*histogram).sum_ns, ns);
        }
    }
}

/// The bucket that counts a duration of `ns` when bucket bounds are powers of
/// two of `unit_ns`, out of `buckets`.
#[inline(always)]
pub fn bucket_of(ns: u64, unit_ns: u64, buckets: usize) -> usize {
    let units = ns.div_ceil(unit_ns);
    let index = if units <= 1 { 0 } else { ceil_log2(units) };
    if index < buckets { index } else { buckets - 1 }
}

/// The inclusive upper bound of bucket `index`, in nanoseconds.
pub fn bound_ns(index: usize, unit_ns: u64) -> u64 {
    unit_ns << index
}

/// Rounded-up binary logarithm of a number above one, without a loop or a table:
/// BPF has no instruction that counts leading zeros.
#[inline(always)]
fn ceil_log2(value: u64) -> usize {
    let mut rest = value - 1;
    let mut log = 1;
    if rest >= 1 << 32 {
        rest >>= 32;
        log += 32;
    }
    if rest >= 1 << 16 {
        rest >>= 16;
        log += 16;
    }
    if rest >= 1 << 8 {
        rest >>= 8;
        log += 8;
    }
    if rest >= 1 << 4 {
        rest >>= 4;
        log += 4;
    }
    if rest >= 1 << 2 {
        rest >>= 2;
        log += 2;
    }
    if rest >= 1 << 1 {
        log += 1;
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn an_exact_bound_belongs_to_its_own_bucket() {
        for index in 0..16 {
            let bound = bound_ns(index, SECOND);
            assert_eq!(bucket_of(bound, SECOND, 17), index, "{bound} ns");
            assert_eq!(
                bucket_of(bound + 1, SECOND, 17),
                index + 1,
                "{bound} ns + 1"
            );
        }
    }

    #[test]
    fn what_is_below_the_unit_is_in_the_first_bucket_and_what_is_beyond_in_the_last() {
        assert_eq!(bucket_of(0, SECOND, 8), 0);
        assert_eq!(bucket_of(1, SECOND, 8), 0);
        assert_eq!(bucket_of(u64::MAX, SECOND, 8), 7);
    }

    #[test]
    fn the_logarithm_agrees_with_the_standard_library() {
        for value in (2..5_000).chain((2..63).flat_map(|p| [(1 << p) - 1, 1 << p, (1 << p) + 1])) {
            if value > 1 {
                let wanted = u64::BITS - (value - 1_u64).leading_zeros();
                assert_eq!(ceil_log2(value), wanted as usize, "{value}");
            }
        }
    }

    #[test]
    fn a_record_adds_one_event_and_its_time() {
        let mut histogram = Histogram::<4>::ZERO;
        // SAFETY: it is this test's own.
        unsafe { Histogram::record(&raw mut histogram, 3 * SECOND, SECOND) };
        assert_eq!(histogram.buckets, [0, 0, 1, 0]);
        assert_eq!(histogram.sum_ns, 3 * SECOND);
    }
}
