//! Iterates over the kernel's symbols and writes out those whose names may be wanted.
//! `/proc/kallsyms` has the same, but most of what reading that takes is the formatting of
//! symbols that nobody asks for.

#![no_std]
#![no_main]

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_seq_write};
use ebpf::{
    shared::{global, read},
    symbols::{LONGEST_NAME, Offsets, PREFIX, Prefixes, Symbol},
};

/// Set by the agent from the BTF of the running kernel.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = Offsets::UNKNOWN;

/// Set by the agent.
#[unsafe(no_mangle)]
static PREFIXES: Prefixes = Prefixes::NONE;

/// `struct bpf_iter__ksym { struct bpf_iter_meta *meta; struct kallsym_iter *ksym; }` of
/// kernel/kallsyms.c, the same in 6.1.176, 6.12.117 and 7.3.4. 5.10 has no such iterator.
#[repr(C)]
struct Context {
    meta: *const Meta,
    symbol: *const u8,
}

/// The begin of `struct bpf_iter_meta` of include/linux/bpf.h.
#[repr(C)]
struct Meta {
    file: *mut aya_ebpf::bindings::seq_file,
}

/// 6.1, 6.12, 7.3: the target `ksym` of iterators, called once a symbol, and at the end once
/// more with a null pointer for a symbol.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/ksym")]
extern "C" fn wanted_symbols(context: *const Context) -> i32 {
    // SAFETY: the kernel's context, whose members the verifier knows.
    let (meta, symbol) = unsafe { ((*context).meta, (*context).symbol) };
    if !symbol.is_null() {
        write_if_wanted(meta, symbol);
    }
    0
}

#[inline(always)]
fn write_if_wanted(meta: *const Meta, symbol: *const u8) {
    // SAFETY: characters.
    let prefix: Result<[u8; PREFIX], _> = unsafe { read(symbol, global(&OFFSETS.name)) };
    if !prefix.is_ok_and(|prefix| PREFIXES.has(prefix)) {
        return;
    }
    let mut found = MaybeUninit::<Symbol>::uninit();
    let found = found.as_mut_ptr();
    // SAFETY: a character; and a name with a zero at its end. The verifier takes what is behind
    // that for written too.
    unsafe {
        (&raw mut (*found).kind).write(read(symbol, global(&OFFSETS.kind)).unwrap_or(0));
        bpf_probe_read_kernel_str(
            (&raw mut (*found).name).cast(),
            LONGEST_NAME as u32,
            symbol.wrapping_add(global(&OFFSETS.name) as usize).cast(),
        );
    }
    // SAFETY: the file is the kernel's own, the symbol as long as is said. What finds no room
    // is asked for again in a larger one.
    unsafe {
        bpf_seq_write((*meta).file, found.cast(), size_of::<Symbol>() as u32);
    }
}
