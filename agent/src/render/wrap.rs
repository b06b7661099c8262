//! Lines that fit.

use crate::text::{one_line, styled};

use textwrap::{Options, WordSeparator, WordSplitter};

/// Breaks a text between its words into lines of at most so many columns, each with its end. The
/// first begins with `first`, the others with as many blanks as `further`. A word that is longer
/// than a line stays whole: it may be a command. What is hidden in the text is shown.
pub fn fill(text: &str, width: usize, first: &str, further: &str) -> String {
    let options = Options::new(width)
        .initial_indent(first)
        .subsequent_indent(further)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation);
    let mut lines = textwrap::fill(&styled(text, one_line), options);
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_fill_lines_and_long_ones_stay_whole() {
        assert_eq!(
            fill("one two three four", 7, "", ""),
            "one two\nthree\nfour\n"
        );
        let command = "run: sysctl -w net.ipv4.vs.run_estimation=0";
        assert_eq!(
            fill(command, 12, "- ", "  "),
            "- run:\n  sysctl -w\n  net.ipv4.vs.run_estimation=0\n"
        );
    }

    #[test]
    fn columns_count_and_not_bytes() {
        assert_eq!(fill("äöü äöü", 7, "", ""), "äöü äöü\n");
    }
}
