//! Lines that fit.

/// Breaks a text between its words into lines of at most so many characters. A
/// word that is longer has a line of its own.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    wrap_hanging(text, width, width)
}

/// As [`wrap`], where the first line has another width than the others.
pub(super) fn wrap_hanging(text: &str, first: usize, others: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let width = if lines.is_empty() { first } else { others };
        let added = word.chars().count();
        if length > 0 && length + 1 + added > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        line.push_str(word);
        length += added;
    }
    if length > 0 {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_fill_lines() {
        assert_eq!(
            wrap("one two  three\nfour", 7),
            ["one two", "three", "four"]
        );
    }

    #[test]
    fn the_first_line_may_be_shorter() {
        assert_eq!(
            wrap_hanging("one two three four", 4, 10),
            ["one", "two three", "four"]
        );
    }

    #[test]
    fn a_word_longer_than_a_line_stays_whole() {
        assert_eq!(wrap("a 0123456789 b", 5), ["a", "0123456789", "b"]);
    }

    #[test]
    fn characters_count_not_bytes() {
        assert_eq!(wrap("äöü äöü", 7), ["äöü äöü"]);
    }

    #[test]
    fn nothing_has_no_line() {
        assert!(wrap("  ", 10).is_empty());
    }
}
