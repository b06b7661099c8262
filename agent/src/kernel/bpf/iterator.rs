//! The kernel's symbols, picked out by a program that the kernel calls with each of them
//! (kernel/kallsyms.c, `bpf_iter_ksym`).

use std::{
    fs::File,
    io::{self, Read as _},
};

use anyhow::Context as _;
use aya::include_bytes_aligned;
use ebpf::symbols::{Offsets, Prefixes, Symbol};

use super::{Object, Parameters};
use crate::kernel::facts::{BtfFunction, Member};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/symbols"));

/// The program of the object.
const PROGRAM: &str = "wanted_symbols";

/// What of the kernel's types it takes to go through its symbols.
#[derive(Clone, Copy, Debug)]
pub struct SymbolIterator {
    type_id: u32,
    offsets: Offsets,
}

impl SymbolIterator {
    /// The function whose type the program is verified against.
    pub const FUNCTION: &'static str = "bpf_iter_ksym";

    /// What the types have to be asked for: the function, and the structure of a symbol.
    pub const NAMES: [&'static str; 2] = [Self::FUNCTION, "kallsym_iter"];

    /// `None` where the kernel has no such iterator, or another one.
    pub fn of(
        function: &BtfFunction,
        member: impl Fn(&'static str) -> Option<Member>,
    ) -> Option<Self> {
        let (name, kind) = (member("kallsym_iter.name")?, member("kallsym_iter.type")?);
        (kind.size == 1).then_some(Self {
            type_id: function.type_id,
            offsets: Offsets {
                name: name.offset,
                kind: kind.offset,
            },
        })
    }

    /// The symbols whose names may begin with one of these, and some others.
    ///
    /// # Errors
    ///
    /// Where the kernel does not take the program, or ends before all symbols are through.
    pub fn symbols(&self, prefixes: &Prefixes) -> anyhow::Result<Vec<Symbol>> {
        let parameters = Parameters::default()
            .global("OFFSETS", &self.offsets)
            .global("PREFIXES", prefixes);
        let mut object = Object::load("symbols", OBJECT, &parameters)?;
        let file = object.iterate(PROGRAM, self.type_id)?;
        symbols(&read_to_end(file).context("read from the iterator")?)
    }
}

/// An iterator gives its reader a turn when it has found nothing for long.
fn read_to_end(mut file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        match file.read_to_end(&mut bytes) {
            Ok(_) => return Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn symbols(bytes: &[u8]) -> anyhow::Result<Vec<Symbol>> {
    let (symbols, rest) = bytes.as_chunks::<{ size_of::<Symbol>() }>();
    anyhow::ensure!(rest.is_empty(), "the last symbol is cut off");
    let symbols = symbols.iter().map(|[kind, name @ ..]| Symbol {
        kind: *kind,
        name: *name,
    });
    Ok(symbols.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_come_one_after_the_other() {
        let mut bytes = vec![0; 2 * size_of::<Symbol>()];
        bytes[..3].copy_from_slice(b"Ta\0");
        bytes[128..131].copy_from_slice(b"tb\0");
        let found = symbols(&bytes).expect("whole symbols");
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].kind, &found[0].name[..2]), (b'T', &b"a\0"[..]));
        assert_eq!((found[1].kind, &found[1].name[..2]), (b't', &b"b\0"[..]));
        assert!(symbols(&bytes[..200]).is_err());
        assert!(symbols(&[]).expect("none").is_empty());
    }
}
