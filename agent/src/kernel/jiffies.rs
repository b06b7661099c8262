//! The length of a jiffy, which no file states.

use std::fs;

const PATH: &str = "/proc/timer_list";

/// The values of `CONFIG_HZ` (kernel/Kconfig.hz, and alpha's, mips's).
const CHOICES: [u32; 8] = [24, 48, 100, 128, 250, 256, 300, 1000];

/// Jiffies a second (`CONFIG_HZ`), worked out from the timer list: jiffies begin
/// at -300 s in 32 bits (`INITIAL_JIFFIES`, include/linux/jiffies.h) when the
/// monotonic clock begins at 0.
///
/// # Errors
///
/// Where the list cannot be read (it wants root), or fits no `CONFIG_HZ`.
pub(super) fn per_second() -> Result<u32, String> {
    let list = fs::read_to_string(PATH).map_err(|error| format!("read {PATH}: {error}"))?;
    from_timer_list(&list)
        .ok_or_else(|| format!("read {PATH}: its jiffies and its clock fit no known CONFIG_HZ"))
}

fn from_timer_list(list: &str) -> Option<u32> {
    let now_ns: u64 = list
        .lines()
        .find_map(|line| line.strip_prefix("now at ")?.strip_suffix(" nsecs"))?
        .parse()
        .ok()?;
    // One line a CPU; one that sleeps without ticks shows an old value.
    let jiffies: u64 = list
        .lines()
        .filter_map(|line| line.trim().strip_prefix("jiffies: ")?.parse().ok())
        .max()?;
    CHOICES
        .into_iter()
        .min_by_key(|hz| deviation(*hz, jiffies, now_ns))
        .filter(|hz| {
            // A second of error, and one percent for the ticks that a VM lost.
            deviation(*hz, jiffies, now_ns) <= 1_000_000_000 + now_ns / 100
        })
}

/// How far the clock is from where it would be at this rate, nanoseconds.
fn deviation(hz: u32, jiffies: u64, now_ns: u64) -> u64 {
    let initial = (1_u64 << 32) - 300 * u64::from(hz);
    let elapsed = jiffies.wrapping_sub(initial);
    match elapsed.checked_mul(1_000_000_000) {
        Some(product) => (product / u64::from(hz)).abs_diff(now_ns),
        // Jiffies are below this rate's first: it cannot be this rate.
        None => u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(now_ns: u64, jiffies: u64) -> String {
        format!(
            "Timer List Version: v0.10\nnow at {now_ns} nsecs\n\ncpu: 0\n  jiffies: {jiffies}\n"
        )
    }

    #[test]
    fn each_rate_is_found_shortly_and_long_after_boot() {
        for hz in CHOICES {
            for seconds in [20, 3_600, 86_400 * 90] {
                let jiffies = (1_u64 << 32) - 300 * u64::from(hz) + seconds * u64::from(hz);
                let list = list(seconds * 1_000_000_000, jiffies);
                assert_eq!(
                    from_timer_list(&list),
                    Some(hz),
                    "{hz} Hz after {seconds} s"
                );
            }
        }
    }

    #[test]
    fn what_fits_no_rate_is_not_guessed() {
        assert_eq!(from_timer_list(&list(3_600_000_000_000, 17)), None);
        assert_eq!(from_timer_list(""), None);
    }
}
