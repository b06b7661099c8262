//! Text that came from outside: names of processes, cgroups and pods, values of labels, answers of
//! other programs, files. Users who may run a process or make a cgroup on the node choose some of it.
//! Here it becomes text that a terminal, a log and a page show as it is, and that a shell takes as
//! one word.

use std::{borrow::Cow, fmt::Write as _};

/// Whether a character does something other than to be seen: it controls a terminal (C0, DEL, C1),
/// ends a line, is invisible, or turns the direction of what follows (Unicode Standard Annex 9).
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text on one line. What is hidden becomes `\n` or `\u001b`, as JSON has it.
pub fn one_line(text: &str) -> Cow<'_, str> {
    escape(text, is_hidden)
}

/// The text with its lines and tabs, else as [`one_line`]. JSON stays the same JSON.
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_hidden(c) && !matches!(c, '\n' | '\t'))
}

/// As `escape` has it, but for the colours that the program itself has put in.
pub fn styled(text: &str, escape: fn(&str) -> Cow<'_, str>) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\x1b[") {
        let (before, style) = rest.split_at(at);
        let parameters = style[2..].bytes();
        let parameters = parameters.take_while(|byte| byte.is_ascii_digit() || *byte == b';');
        let end = 2 + parameters.count();
        let is_style = style[end..].starts_with('m');
        let (style, after) = style.split_at(if is_style { end + 1 } else { 1 });
        shown += &escape(before);
        shown += &if is_style {
            style.into()
        } else {
            escape(style)
        };
        rest = after;
    }
    shown += &escape(rest);
    shown
}

/// One word of a command for a POSIX shell.
pub fn shell_word(text: &str) -> String {
    shell_words::quote(text).into_owned()
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(&is_escaped) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !is_escaped(c) => escaped.push(c),
            '\n' => escaped += "\\n",
            '\r' => escaped += "\\r",
            '\t' => escaped += "\\t",
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    let _ = write!(escaped, "\\u{unit:04x}");
                }
            }
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_hidden_is_shown() {
        for (text, shown) in [
            ("kworker/0:1", "kworker/0:1"),
            ("\u{fc}ber \u{1f980}", "\u{fc}ber \u{1f980}"),
            ("a\nnode-7: healthy", "a\\nnode-7: healthy"),
            ("\x1b[2J\x07", "\\u001b[2J\\u0007"),
            ("\u{9b}31m", "\\u009b31m"),
            ("\u{202e}daeh", "\\u202edaeh"),
            ("\u{e0041}", "\\udb40\\udc41"),
        ] {
            assert_eq!(one_line(text), shown);
        }
        assert_eq!(lines("a\n\tb\r\u{200b}"), "a\n\tb\\r\\u200b");
    }

    #[test]
    fn colours_stay_and_nothing_else_does() {
        let text = "\x1b[1m\x1b[31mcritical\x1b[0m \x1b[2J\x1b]0;title\x07\x1b[";
        assert_eq!(
            styled(text, one_line),
            "\x1b[1m\x1b[31mcritical\x1b[0m \\u001b[2J\\u001b]0;title\\u0007\\u001b["
        );
    }

    #[test]
    fn a_word_is_quoted_where_a_shell_would_read_more_into_it() {
        for (text, word) in [
            ("/sys/fs/cgroup/a.slice", "/sys/fs/cgroup/a.slice"),
            (r"/a/cri\x2dd.slice", r"'/a/cri\x2dd.slice'"),
            ("/a; reboot", "'/a; reboot'"),
            ("/$(reboot)", "'/$(reboot)'"),
        ] {
            assert_eq!(shell_word(text), word);
        }
    }

    proptest! {
        #[test]
        fn json_stays_the_same(text in any::<String>()) {
            let json = serde_json::to_string_pretty(&[&text, &text]).expect("strings");
            let shown = lines(&json);
            prop_assert!(!shown.chars().any(|c| is_hidden(c) && c != '\n'));
            let [read, _]: [String; 2] = serde_json::from_str(&shown).expect("still JSON");
            prop_assert_eq!(read, text);
        }

        #[test]
        fn no_text_gets_a_hidden_character_through(text in "[\x1b\\[\\]0-9;m\u{9b}\n\u{202e}ab]{0,40}") {
            let shown = styled(&text, one_line);
            let colours = shown.split("\x1b[").skip(1);
            for colour in colours {
                let (parameters, _) = colour.split_once('m').expect("it is a colour");
                prop_assert!(parameters.bytes().all(|byte| byte.is_ascii_digit() || byte == b';'));
            }
            prop_assert!(!shown.replace("\x1b[", "").chars().any(is_hidden));
        }

        #[test]
        fn a_shell_reads_the_word_again(text in "[^\0]{0,20}") {
            prop_assert_eq!(shell_words::split(&shell_word(&text)), Ok(vec![text]));
        }
    }
}
