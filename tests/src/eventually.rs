//! Waiting for what must come true, instead of sleeping and hoping.

use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::phase::{Phase, during};

/// Between two tries at first, and at most. The longer it takes, the rarer they are: a try costs
/// those it asks, and on an emulated CPU they are what is waited for.
const PAUSE: Range<Duration> = Duration::from_millis(20)..Duration::from_millis(500);

/// Tries until it works; when time is up, the last try's error says why it did not.
pub fn eventually<T>(limit: Duration, what: &str, attempt: impl FnMut() -> Result<T>) -> Result<T> {
    during(Phase::Waiting, || wait(limit, what, attempt))
}

fn wait<T>(limit: Duration, what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let deadline = begun + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("{what}: not within {limit:?}"));
            }
            Err(_) => sleep((begun.elapsed() / 8).clamp(PAUSE.start, PAUSE.end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn the_first_success_ends_it() {
        let mut tries = 0;
        let value = eventually(Duration::from_secs(60), "a third try", || {
            tries += 1;
            if tries < 3 {
                bail!("not yet")
            } else {
                Ok(tries)
            }
        });
        assert_eq!(value.unwrap(), 3);
    }

    #[test]
    fn the_last_error_is_kept() {
        let never = eventually(Duration::ZERO, "never", || -> Result<()> {
            bail!("no wonder")
        });
        let message = format!("{:#}", never.unwrap_err());
        assert_eq!(message, "never: not within 0ns: no wonder");
    }
}
