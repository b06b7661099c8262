//! Waiting for what must come true, instead of sleeping and hoping.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

const PAUSE: Duration = Duration::from_millis(50);

/// Tries until it works; when time is up, the last try's error says why it did not.
pub fn eventually<T>(
    limit: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).with_context(|| format!("{what}: not within {limit:?}"));
            }
            Err(_) => sleep(PAUSE),
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
