//! Keeps a panic of one ailment from being the end of the others.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs something; a panic comes back as an error.
///
/// Whatever the work has changed may be half changed afterwards: the caller must
/// not use it again.
pub(super) fn guarded<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(anyhow::anyhow!("panicked: {}", message(panic.as_ref()))))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    if let Some(message) = panic.downcast_ref::<&str>() {
        message
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message
    } else {
        "no message"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_well_passes() {
        assert_eq!(guarded(|| Ok(5)).unwrap(), 5);
    }

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        let error = guarded(|| -> anyhow::Result<()> { panic!("slot {}", 7) }).unwrap_err();
        assert_eq!(error.to_string(), "panicked: slot 7");
    }
}
