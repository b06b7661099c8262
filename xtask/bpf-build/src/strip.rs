//! Takes the DWARF out of an object.
//!
//! The compiler has to make it, because the BTF is made from it; nobody reads it afterwards. It is
//! most of an object, and full of the paths of the machine that built it.

use anyhow::{Context as _, Result};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;

/// The sections that stay are moved, nothing else of them changes: code, maps, licence, BTF, and
/// the symbols and relocations that join them.
pub(crate) fn without_dwarf(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("read the ELF file")?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        section.delete = name
            .strip_prefix(b".rel")
            .unwrap_or(name)
            .starts_with(b".debug_");
    }
    builder.delete_orphans();
    // LLVM keeps the names of sections with those of symbols, the builder writes them apart.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("write the ELF file")?;
    Ok(stripped)
}
