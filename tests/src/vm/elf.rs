//! What the harness asks of an ELF file.

use anyhow::{Context as _, Result};
use object::elf::{DT_NEEDED, PT_INTERP};
use object::read::elf::{Dyn as _, ElfFile64, FileHeader as _, ProgramHeader as _};
use object::{Endianness, Object as _, ObjectSection as _};

#[derive(Debug)]
pub(crate) struct Elf<'data>(ElfFile64<'data, Endianness>);

impl<'data> Elf<'data> {
    pub(crate) fn parse(bytes: &'data [u8]) -> Result<Self> {
        ElfFile64::parse(bytes)
            .map(Self)
            .context("parse as a 64-bit ELF file")
    }

    /// Whether the kernel alone can start it. A static-pie has a dynamic section, but names no
    /// dynamic linker.
    pub(crate) fn is_static(&self) -> bool {
        let endian = self.0.endian();
        let mut headers = self.0.elf_program_headers().iter();
        !headers.any(|header| header.p_type(endian) == PT_INTERP)
    }

    /// The path of the dynamic linker.
    pub(crate) fn interpreter(&self) -> Result<Option<&'data str>> {
        let (endian, data) = (self.0.endian(), self.0.data());
        for header in self.0.elf_program_headers() {
            if let Some(path) = header.interpreter(endian, data)? {
                return Ok(Some(std::str::from_utf8(path)?));
            }
        }
        Ok(None)
    }

    /// The names of the libraries it needs.
    pub(crate) fn needed(&self) -> Result<Vec<&'data str>> {
        let (endian, data) = (self.0.endian(), self.0.data());
        let sections = self.0.elf_header().sections(endian, data)?;
        let Some((entries, strings)) = sections.dynamic(endian, data)? else {
            return Ok(Vec::new());
        };
        let strings = sections.strings(endian, data, strings)?;
        entries
            .iter()
            .filter(|entry| entry.tag(endian) == DT_NEEDED)
            .map(|entry| Ok(std::str::from_utf8(entry.string(endian, strings)?)?))
            .collect()
    }

    /// A section's bytes, none if it has no such section.
    pub(crate) fn section(&self, name: &str) -> Result<Option<&'data [u8]>> {
        let section = self.0.section_by_name(name);
        section.map(|section| Ok(section.data()?)).transpose()
    }
}
