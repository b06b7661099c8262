//! Reads of kernel memory without the helpers for it, which a kernel that is locked down to
//! confidentiality gives to no program (kernel/trace/bpf_trace.c, `bpf_tracing_func_proto`).
//!
//! Loads by a type that the verifier knows stay allowed there. The kernel function
//! `bpf_rdonly_cast` gives a type to any address, and the kernel catches the fault of a bad
//! one: the load is 0. rustc emits no calls of kernel functions, so the agent replaces the
//! calls of the helper by calls of a function that it appends to the program.

use aya_obj::generated::{
    BPF_PSEUDO_CALL, BPF_PSEUDO_KFUNC_CALL, bpf_func_id::BPF_FUNC_probe_read_kernel, bpf_insn,
};

use crate::kernel::facts::TypedReads;

/// Bytes that a program may read at once. It is refused more: `E2BIG`.
const MOST: i32 = 512;

/// A program with the calls of `bpf_probe_read_kernel` replaced.
///
/// The replacement takes the same arguments, but the size has to be a constant to the verifier.
/// It returns `EFAULT` only for addresses that are not the kernel's; any other that cannot be
/// read gives zeros.
pub(super) fn instead_of_helpers(program: &[bpf_insn], reads: &TypedReads) -> Vec<bpf_insn> {
    let mut program = program.to_vec();
    let target = program.len() as i32;
    let (mut wide, mut replaced) = (false, false);
    for (at, insn) in (0..).zip(&mut program) {
        // The second half of a load of 64 bits is no instruction.
        if wide {
            wide = false;
            continue;
        }
        wide = insn.code == LOAD_WIDE;
        let is_helper = insn.code == CALL && insn.src_reg() == 0;
        if is_helper && insn.imm == BPF_FUNC_probe_read_kernel as i32 {
            insn.set_src_reg(BPF_PSEUDO_CALL as u8);
            insn.imm = target - at - 1;
            replaced = true;
        }
    }
    // The verifier refuses a function that nothing calls.
    if replaced {
        program.extend(read(reads));
    }
    program
}

// Operations, of include/uapi/linux/bpf.h and bpf_common.h.
const LOAD_WIDE: u8 = 0x18;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const MOVE: u8 = 0xbf;
const SET: u8 = 0xb7;
const ADD: u8 = 0x0f;
const ADD_CONSTANT: u8 = 0x07;
const AND_CONSTANT: u8 = 0x57;
const JUMP_IF_EQUAL: u8 = 0x15;
const JUMP_IF_ABOVE: u8 = 0x25;
const JUMP_IF_BELOW: u8 = 0xa5;
const JUMP_IF_NEGATIVE: u8 = 0xc5;

/// Loads and stores of so many bytes.
const SIZES: [(i32, u8, u8); 4] = [
    (8, 0x79, 0x7b),
    (4, 0x61, 0x63),
    (2, 0x69, 0x6b),
    (1, 0x71, 0x73),
];

/// `long read(void *to, u32 size, const void *from)`
///
/// Words first, then what is left. Each jump depends on `size` alone, so the verifier follows one
/// path for each call.
fn read(reads: &TypedReads) -> Vec<bpf_insn> {
    let (to, size, result, from) = (6, 7, 8, 9);
    let mut code = Code(Vec::new());
    let [(_, load, store), rest @ ..] = SIZES;
    code.push(MOVE, to, 1, 0, 0);
    code.push(MOVE, size, 2, 0, 0);
    code.push(MOVE, from, 3, 0, 0);
    code.push(SET, result, 0, 0, -libc::E2BIG);
    let too_big = code.push(JUMP_IF_ABOVE, size, 0, 0, MOST);
    code.push(SET, result, 0, 0, 0);
    // Addresses of the kernel have their highest bit set.
    code.push(JUMP_IF_NEGATIVE, from, 0, 2, 0);
    code.push(SET, from, 0, 0, 0);
    code.push(SET, result, 0, 0, -libc::EFAULT);
    let mut jumps = Vec::new();
    let span = reads.bytes as i32 / 8 * 8;
    for offset in (0..MOST).step_by(8) {
        jumps.push(code.push(JUMP_IF_BELOW, size, 0, 0, offset + 8));
        let within = offset % span;
        if within == 0 {
            code.cast(from, offset, reads);
        }
        code.push(load, 1, 0, within as i16, 0);
        code.push(store, to, 1, offset as i16, 0);
    }
    for jump in jumps {
        code.lands_here(jump);
    }
    code.push(MOVE, 1, size, 0, 0);
    code.push(AND_CONSTANT, 1, 0, 0, -8);
    code.push(ADD, to, 1, 0, 0);
    code.push(ADD, from, 1, 0, 0);
    code.push(AND_CONSTANT, size, 0, 0, 7);
    let nothing_left = code.push(JUMP_IF_EQUAL, size, 0, 0, 0);
    code.cast(from, 0, reads);
    for (bytes, load, store) in rest {
        let fewer = code.push(JUMP_IF_BELOW, size, 0, 0, bytes);
        code.push(load, 1, 0, 0, 0);
        code.push(store, to, 1, 0, 0);
        for register in [0, to] {
            code.push(ADD_CONSTANT, register, 0, 0, bytes);
        }
        code.push(ADD_CONSTANT, size, 0, 0, -bytes);
        code.lands_here(fewer);
    }
    for jump in [too_big, nothing_left] {
        code.lands_here(jump);
    }
    code.push(MOVE, 0, result, 0, 0);
    code.push(EXIT, 0, 0, 0, 0);
    code.0
}

/// Instructions in the making.
struct Code(Vec<bpf_insn>);

impl Code {
    /// Appends an instruction; returns where it is.
    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, constant: i32) -> usize {
        self.0.push(bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(to, from),
            off: offset,
            imm: constant,
        });
        self.0.len() - 1
    }

    /// Gives the address that is `offset` bytes behind that of a register a type, in register 0.
    fn cast(&mut self, register: u8, offset: i32, reads: &TypedReads) {
        self.push(MOVE, 1, register, 0, 0);
        self.push(ADD_CONSTANT, 1, 0, 0, offset);
        self.push(SET, 2, 0, 0, reads.structure as i32);
        self.push(CALL, 0, BPF_PSEUDO_KFUNC_CALL as u8, 0, reads.cast as i32);
    }

    /// Lets a jump lead to the next instruction.
    fn lands_here(&mut self, jump: usize) {
        self.0[jump].off = (self.0.len() - jump - 1) as i16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READS: TypedReads = TypedReads {
        cast: 7,
        structure: 8,
        bytes: 256,
    };

    fn program(insns: &[(u8, u8, i32)]) -> Vec<bpf_insn> {
        let mut code = Code(Vec::new());
        for (operation, from, constant) in insns {
            code.push(*operation, 0, *from, 0, *constant);
        }
        code.0
    }

    #[test]
    fn calls_of_the_helper_become_calls_of_what_is_appended() {
        const OTHER: i32 = 5;
        let before = program(&[
            (CALL, 0, 113),
            (CALL, 0, OTHER),
            (LOAD_WIDE, 0, 0),
            // A constant that looks like the call.
            (CALL, 0, 113),
            (CALL, 0, 113),
            (EXIT, 0, 0),
        ]);
        let after = instead_of_helpers(&before, &READS);
        let calls: Vec<_> = after[..before.len()]
            .iter()
            .map(|insn| (insn.src_reg(), insn.imm))
            .collect();
        assert_eq!(
            calls,
            [(1, 5), (0, OTHER), (0, 0), (0, 113), (1, 1), (0, 0)]
        );
        assert_eq!(after.last().map(|insn| insn.code), Some(EXIT));
        assert!(after.len() > before.len());
    }

    #[test]
    fn a_program_that_reads_no_memory_stays_as_it_is() {
        let before = program(&[(CALL, 0, 5), (EXIT, 0, 0)]);
        let after = instead_of_helpers(&before, &READS);
        assert_eq!(after.len(), before.len());
    }

    /// What the function does, run on numbers in place of memory: a load gives the address it
    /// is from.
    fn run(reads: &TypedReads, size: u64, from: i64) -> (i64, Vec<(u64, i64, u8)>) {
        let code = read(reads);
        let mut registers = [0_i64; 10];
        (registers[1], registers[2], registers[3]) = (0x1000, size as i64, from);
        let (mut at, mut stored) = (0, Vec::new());
        loop {
            let insn = code[at];
            let (to, source) = (insn.dst_reg() as usize, insn.src_reg() as usize);
            let (offset, constant) = (i64::from(insn.off), i64::from(insn.imm));
            at += 1;
            let mut jumps = false;
            match insn.code {
                MOVE => registers[to] = registers[source],
                SET => registers[to] = constant,
                ADD => registers[to] += registers[source],
                ADD_CONSTANT => registers[to] += constant,
                AND_CONSTANT => registers[to] &= constant,
                JUMP_IF_EQUAL => jumps = registers[to] == constant,
                JUMP_IF_ABOVE => jumps = registers[to] as u64 > constant as u64,
                JUMP_IF_BELOW => jumps = (registers[to] as u64) < constant as u64,
                JUMP_IF_NEGATIVE => jumps = registers[to] < constant,
                CALL => {
                    assert_eq!((source as u32, insn.imm), (BPF_PSEUDO_KFUNC_CALL, 7));
                    assert_eq!(registers[2], 8);
                    registers[0] = registers[1];
                }
                EXIT => return (registers[0], stored),
                code => {
                    let load = SIZES.iter().find(|(_, load, _)| *load == code);
                    let store = SIZES.iter().find(|(_, _, store)| *store == code);
                    if let Some((bytes, ..)) = load {
                        assert!(offset + i64::from(*bytes) <= i64::from(reads.bytes));
                        registers[to] = registers[source] + offset;
                    } else {
                        let (bytes, ..) = store.expect("a known operation");
                        let place = (registers[to] + offset) as u64;
                        stored.push((place, registers[source], *bytes as u8));
                    }
                }
            }
            if jumps {
                at = (at as i64 + offset) as usize;
            }
        }
    }

    #[test]
    fn every_byte_is_copied_once_and_by_loads_within_the_structure() {
        const FROM: i64 = i64::MIN + 0x100;
        for bytes in [8, 12, 64, 256] {
            let reads = TypedReads { bytes, ..READS };
            for size in [1, 2, 3, 4, 6, 8, 12, 16, 20, 63, 64, 72, 160, 432, 511, 512] {
                let (result, stored) = run(&reads, size, FROM);
                assert_eq!(result, 0);
                let mut copied = 0;
                for (to, from, bytes) in stored {
                    assert_eq!((to, from), (0x1000 + copied, FROM + copied as i64));
                    copied += u64::from(bytes);
                }
                assert_eq!(copied, size);
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let (result, stored) = run(&READS, 4, 0x7fff_0000);
        assert_eq!(result, i64::from(-libc::EFAULT));
        assert_eq!(stored, [(0x1000, 0, 4)], "it is null, and so 0");
        let (result, stored) = run(&READS, 513, i64::MIN);
        assert_eq!((result, stored.len()), (i64::from(-libc::E2BIG), 0));
    }
}
