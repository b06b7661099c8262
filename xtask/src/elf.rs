//! As much of the ELF format as it takes to tell whether a program is static.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// The program header that names the dynamic linker. A static-pie has a dynamic section, too, but
/// never this.
const PT_INTERP: u32 = 3;

pub(crate) fn is_static(path: &Path) -> Result<bool> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let types = program_header_types(&bytes)
        .with_context(|| format!("read the program headers of {}", path.display()))?;
    Ok(!types.contains(&PT_INTERP))
}

/// `e_phoff`, `e_phentsize` and `e_phnum` of a 64-bit little-endian file say where they are; the
/// type is the first word of each.
fn program_header_types(bytes: &[u8]) -> Result<Vec<u32>> {
    ensure!(
        bytes.starts_with(b"\x7fELF\x02\x01"),
        "not a 64-bit little-endian ELF file"
    );
    let offset = u64::from_le_bytes(field(bytes, 0x20)?) as usize;
    let size = usize::from(u16::from_le_bytes(field(bytes, 0x36)?));
    let count = usize::from(u16::from_le_bytes(field(bytes, 0x38)?));
    (0..count)
        .map(|i| Ok(u32::from_le_bytes(field(bytes, offset + i * size)?)))
        .collect()
}

fn field<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N]> {
    let field = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    field
        .copied()
        .with_context(|| format!("it ends before byte {}", offset + N))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_cut_short_is_an_error() {
        assert!(program_header_types(b"\x7fELF\x02\x01").is_err());
        assert!(program_header_types(b"#!/bin/sh").is_err());
    }

    #[test]
    fn an_interpreter_is_found() {
        let mut file = vec![0; 0x40 + 2 * 0x38];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x20] = 0x40;
        file[0x36] = 0x38;
        file[0x38] = 2;
        file[0x40] = 6;
        assert_eq!(program_header_types(&file).unwrap(), [6, 0]);
        file[0x40 + 0x38] = 3;
        assert!(program_header_types(&file).unwrap().contains(&PT_INTERP));
    }
}
