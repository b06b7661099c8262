//! Names of cgroups, which are bytes, as text.

use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    fmt::Write as _,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use crate::text::is_hidden;

/// The name of a cgroup as text. A name is any bytes but a newline and a slash
/// (kernel/cgroup/cgroup.c, `cgroup_mkdir`): what is no UTF-8, and what is hidden, becomes
/// `\xff`, as systemd writes it. [`place`] finds the folder again.
pub fn shown(name: &OsStr) -> Cow<'_, str> {
    let is_plain = |text: &str| !text.chars().any(is_escaped);
    if let Some(text) = name.to_str()
        && is_plain(text)
    {
        return Cow::Borrowed(text);
    }
    let mut text = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match is_escaped(c) {
                true => escape(&mut text, c.to_string().as_bytes()),
                false => text.push(c),
            }
        }
        escape(&mut text, chunk.invalid());
    }
    Cow::Owned(text)
}

/// A newline stands between the lines of a file alone.
fn is_escaped(c: char) -> bool {
    is_hidden(c) && c != '\n'
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// The folder of a cgroup below the root of a tree, by its path as [`shown`]. A name that
/// really has a backslash, as many of systemd's have, is found first.
pub fn place(root: &Path, path: &str) -> PathBuf {
    let whole = root.join(path.trim_start_matches('/'));
    if !path.contains("\\x") || whole.exists() {
        return whole;
    }
    let parts = path.split('/').filter(|part| !part.is_empty());
    parts.fold(root.to_owned(), |folder, part| {
        let literal = folder.join(part);
        match literal.exists() {
            true => literal,
            false => folder.join(OsString::from_vec(unescape(part))),
        }
    })
}

/// The bytes of a name in which some are written as `\x2d`.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.get(..2);
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.extend_from_slice(b"\\x");
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_name_that_is_no_text_is_shown_and_found_again() {
        let folder = tempfile::tempdir().expect("a folder");
        for (bytes, text) in [
            (&b"pod"[..], "pod"),
            ("\u{e4}\u{1f980}".as_bytes(), "\u{e4}\u{1f980}"),
            (b"a\xff\xfe", r"a\xff\xfe"),
            (b"\xc3", r"\xc3"),
            (b"a\x1b[31m", r"a\x1b[31m"),
            ("a\u{202e}b".as_bytes(), r"a\xe2\x80\xaeb"),
            // systemd wrote this backslash itself: it is part of the name.
            (
                br"system-cri\x2dcontainerd.slice",
                r"system-cri\x2dcontainerd.slice",
            ),
        ] {
            let name = OsStr::from_bytes(bytes);
            assert_eq!(shown(name), text);
            let made = folder.path().join(name).join("below");
            fs::create_dir_all(&made).expect("made");
            assert_eq!(place(folder.path(), &format!("/{text}/below")), made);
        }
        let gone = place(folder.path(), r"/gone\xff/a");
        assert!(!gone.exists());
    }

    #[test]
    fn escapes_are_undone_and_what_is_none_stays() {
        for (text, is) in [
            ("db1", &b"db1"[..]),
            (r"db\x2d1", b"db-1"),
            (r"\xff", b"\xff"),
            (r"a\x", br"a\x"),
            (r"a\xzz\x2d", br"a\xzz-"),
            ("a\\x\u{e9}", "a\\x\u{e9}".as_bytes()),
        ] {
            assert_eq!(unescape(text), is, "{text}");
        }
    }
}
