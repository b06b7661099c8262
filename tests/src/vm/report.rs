//! What a person at the terminal sees beside the tests' own results.

use std::io;

/// A line about what is being done, on standard error: standard output belongs to the results.
/// Written at once, because several VMs and libtest-mimic write at the same time.
macro_rules! say {
    ($($argument:tt)*) => {
        eprint!("{}", format!("vm: {}\n", format_args!($($argument)*)))
    };
}
pub(crate) use say;

/// An error with what to do about it, where that is known.
pub(crate) fn explained(error: &anyhow::Error) -> String {
    let is_full = |cause: &(dyn std::error::Error + 'static)| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::StorageFull)
    };
    match error.chain().any(is_full) {
        true => format!(
            "{error:#}; make room there, or let NODEMEDIC_CACHE name a folder on another disk"
        ),
        false => format!("{error:#}"),
    }
}

/// The last lines of a text, indented, for the end of a failure's message.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all = text.lines().map(str::trim_end).collect::<Vec<_>>();
    let start = all.len().saturating_sub(lines);
    let kept = all[start..].iter().map(|line| format!("    {line}"));
    kept.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_comes_with_advice() {
        let error = |kind| anyhow::Error::from(io::Error::from(kind)).context("write it");
        let advice = "NODEMEDIC_CACHE";
        assert!(explained(&error(io::ErrorKind::StorageFull)).contains(advice));
        assert!(!explained(&error(io::ErrorKind::NotFound)).contains(advice));
    }

    #[test]
    fn a_tail_keeps_the_end() {
        assert_eq!(tail("a\nb\r\nc\n", 2), "    b\n    c");
        assert_eq!(tail("", 2), "");
    }
}
