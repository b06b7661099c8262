//! The lines of `/proc/kallsyms`: all symbols of the kernel and its modules.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    ops::ControlFlow,
};

pub(super) const KALLSYMS: &str = "/proc/kallsyms";

/// A line of `address type name [module]`. There are 200,000, so of most no more is looked at
/// than has to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'l> {
    address: &'l [u8],
    kind: u8,
    /// The name, and what comes after it.
    rest: &'l [u8],
}

impl<'l> Line<'l> {
    fn parse(line: &'l [u8]) -> Option<Self> {
        let end = line.iter().position(|byte| *byte == b' ')?;
        let [kind, b' ', rest @ ..] = line.get(end + 1..)? else {
            return None;
        };
        Some(Self {
            address: &line[..end],
            kind: *kind,
            rest,
        })
    }

    /// 0 where the kernel hides it from this process.
    pub(super) fn address(&self) -> Option<u64> {
        u64::from_str_radix(str::from_utf8(self.address).ok()?, 16).ok()
    }

    pub(super) fn is_code(&self) -> bool {
        is_code(self.kind)
    }

    pub(super) fn name(&self) -> Option<&'l str> {
        let name = self.rest.split(u8::is_ascii_whitespace).next()?;
        str::from_utf8(name).ok()
    }

    pub(super) fn is_of_module(&self) -> bool {
        self.rest.contains(&b'[')
    }

    /// The name, and what comes after it.
    pub(super) fn text(&self) -> &'l [u8] {
        self.rest
    }
}

/// Whether a symbol's type says that it is code.
pub(super) const fn is_code(kind: u8) -> bool {
    matches!(kind, b't' | b'T' | b'w' | b'W')
}

/// # Errors
///
/// Where `/proc/kallsyms` cannot be read.
pub(super) fn open() -> io::Result<impl BufRead> {
    Ok(BufReader::with_capacity(1 << 16, File::open(KALLSYMS)?))
}

/// Goes through all lines until it is told to stop. What is no such line is passed over.
///
/// # Errors
///
/// The reader's.
pub(super) fn each(
    mut lines: impl BufRead,
    mut visit: impl FnMut(Line<'_>) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        if Line::parse(&line).is_some_and(|line| visit(line).is_break()) {
            break;
        }
        line.clear();
    }
    Ok(())
}

/// For fuzzing: lists of symbols.
#[cfg(any(test, fuzzing))]
pub(super) const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "kallsyms",
    read: |bytes| {
        let _ = each(bytes, |line| {
            let _ = (
                line.address(),
                line.is_code(),
                line.name(),
                line.is_of_module(),
            );
            ControlFlow::Continue(())
        });
    },
    seeds: &[b"ffffffffc0001000 t nf_ct_delete\t[nf_conntrack]\n0000000000000000 T schedule\n"],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line = Line::parse(b"ffffffffc0001000 t nf_ct_delete\t[nf_conntrack]\n").unwrap();
        assert_eq!(line.address(), Some(0xffff_ffff_c000_1000));
        assert_eq!(line.name(), Some("nf_ct_delete"));
        assert!(line.is_code() && line.is_of_module());
        let data = Line::parse(b"0 d x\n").unwrap();
        assert!(!data.is_code() && !data.is_of_module());
        for garbage in ["", "\n", "1", "0 t", "0 tt x"] {
            assert!(Line::parse(garbage.as_bytes()).is_none(), "{garbage:?}");
        }
    }
}
