//! More CPUs than there are: a table of ACPI's that lists them.
//!
//! A kernel makes room for every CPU that its firmware lists, and what it does once for each of
//! them then takes long. QEMU can list CPUs that may be plugged in, but from 6.12 on the kernel
//! heeds such an entry only on hypervisors that it knows, and an emulator is none
//! (`acpi_is_processor_usable()`, arch/x86/kernel/acpi/boot.c); and a hundred CPUs that are really
//! emulated make the guest ten times as slow. So this table, the second of its kind beside QEMU's
//! own, calls all of them present, and the command line says which table counts and how many CPUs
//! are to be started.

/// For the command line: the kernel counts the tables of a kind from 1.
pub(crate) const CHOICE: &str = "acpi_apic_instance=2";

/// ACPI 6.5, table 5.19: where each CPU finds its own interrupt controller, and that there is an
/// old one, too.
const LOCAL_CONTROLLER: u32 = 0xfee0_0000;
const HAS_8259: u32 = 1;

/// The one of the whole machine, as QEMU's q35 has it.
const IO_CONTROLLER: u32 = 0xfec0_0000;

/// ISA interrupts that PCI takes: active high, level-triggered (table 5.26).
const PCI_INTERRUPTS: [u8; 4] = [5, 9, 10, 11];
const HIGH_AND_LEVEL: u16 = 0xd;

/// QEMU's option for a table in a file without its header.
pub(crate) fn option(file: &str) -> String {
    format!("sig=APIC,rev=1,data={file}")
}

/// The table without its header, for this many CPUs.
pub(crate) fn table(cpus: u8) -> Vec<u8> {
    let mut table = Vec::new();
    table.extend(LOCAL_CONTROLLER.to_le_bytes());
    table.extend(HAS_8259.to_le_bytes());
    for cpu in 0..cpus {
        entry(&mut table, 0, &[&[cpu, cpu], &1_u32.to_le_bytes()]);
    }
    let first_interrupt = 0_u32.to_le_bytes();
    let address = IO_CONTROLLER.to_le_bytes();
    entry(&mut table, 1, &[&[0, 0], &address, &first_interrupt]);
    // The timer's wire is the third.
    interrupt(&mut table, 0, 2, 0);
    for number in PCI_INTERRUPTS {
        interrupt(&mut table, number, number, HIGH_AND_LEVEL);
    }
    // Of all CPUs, the second input is the non-maskable interrupt.
    entry(&mut table, 4, &[&[0xff], &0_u16.to_le_bytes(), &[1]]);
    table
}

/// Where an ISA interrupt differs from its number or its usual kind.
fn interrupt(table: &mut Vec<u8>, isa: u8, global: u8, flags: u16) {
    let global = u32::from(global).to_le_bytes();
    entry(table, 2, &[&[0, isa], &global, &flags.to_le_bytes()]);
}

/// Each begins with its kind and its length.
fn entry(table: &mut Vec<u8>, kind: u8, fields: &[&[u8]]) {
    let start = table.len();
    table.extend([kind, 0]);
    for field in fields {
        table.extend(*field);
    }
    // None of them is longer than 12 bytes.
    table[start + 1] = u8::try_from(table.len() - start).unwrap_or(u8::MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kinds and lengths, as a kernel walks over them.
    fn entries(table: &[u8]) -> Vec<(u8, usize)> {
        let (mut entries, mut rest) = (Vec::new(), &table[8..]);
        while let [kind, length, ..] = rest {
            entries.push((*kind, usize::from(*length)));
            rest = &rest[usize::from(*length)..];
        }
        entries
    }

    #[test]
    fn the_lengths_are_those_of_the_standard() {
        let entries = entries(&table(3));
        let others = [(1, 12), (2, 10), (2, 10), (2, 10), (2, 10), (2, 10), (4, 6)];
        assert_eq!(entries[..3], [(0, 8); 3]);
        assert_eq!(entries[3..], others);
    }
}
