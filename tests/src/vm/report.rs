//! What a person at the terminal sees beside the tests' own results.

/// A line about what is being done, on standard error: standard output belongs to the results.
/// Written at once, because several VMs and libtest-mimic write at the same time.
macro_rules! say {
    ($($argument:tt)*) => {
        eprint!("{}", format!("vm: {}\n", format_args!($($argument)*)))
    };
}
pub(crate) use say;

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
    fn a_tail_keeps_the_end() {
        assert_eq!(tail("a\nb\r\nc\n", 2), "    b\n    c");
        assert_eq!(tail("", 2), "");
    }
}
