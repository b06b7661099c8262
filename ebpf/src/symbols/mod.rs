//! The kernel's symbols whose names may be wanted, picked out by the kernel itself.

use crate::shared::{abi, offsets};

/// Bytes of a name that are looked at.
pub const PREFIX: usize = 4;

/// Bits of the set, as a power of two.
const SET_BITS: u32 = 12;

const WORDS: usize = 1 << (SET_BITS - u64::BITS.ilog2());

/// How wanted names begin: a set that may say yes to others too, but passes over most.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Prefixes {
    /// A bit for each prefix, at the place of its hash.
    set: [u64; WORDS],
}

impl Prefixes {
    /// None at all.
    pub const NONE: Self = Self { set: [0; WORDS] };

    /// The prefixes of these names. One that is shorter than a prefix lets all through.
    pub fn of<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        let mut prefixes = Self::NONE;
        for name in names {
            match name.as_bytes().first_chunk() {
                Some(prefix) => {
                    let (word, bit) = place(*prefix);
                    prefixes.set[word] |= bit;
                }
                None => prefixes.set = [u64::MAX; WORDS],
            }
        }
        prefixes
    }

    /// Whether a text that begins with a name, and is a few bytes at least, may begin with
    /// one of those.
    #[inline(always)]
    pub fn may_begin(&self, text: &[u8]) -> bool {
        match text.first_chunk() {
            Some(prefix) => self.has(*prefix),
            None => self.set.iter().all(|word| *word == u64::MAX),
        }
    }

    /// Whether a name that begins so may begin as one of those.
    #[inline(always)]
    pub fn has(&self, prefix: [u8; PREFIX]) -> bool {
        let (word, bit) = place(prefix);
        // SAFETY: a reference is valid to read. In BPF this is a global that the agent sets,
        // whatever the compiler believes to know of its value.
        let word = unsafe { core::ptr::read_volatile(&raw const self.set[word]) };
        word & bit != 0
    }
}

/// Word and bit of a prefix, by Fibonacci hashing.
#[inline(always)]
fn place(prefix: [u8; PREFIX]) -> (usize, u64) {
    let hash = u32::from_ne_bytes(prefix).wrapping_mul(0x9e37_79b9) >> (u32::BITS - SET_BITS);
    ((hash / u64::BITS) as usize % WORDS, 1 << (hash % u64::BITS))
}

/// Where members of `struct kallsym_iter` are (kernel/kallsyms.c), in bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Offsets {
    /// `name`, an array of characters that ends with a zero.
    pub name: u32,
    /// `type`, a character as in `/proc/kallsyms`.
    pub kind: u32,
}

/// Bytes of a name and the zero behind it.
pub const LONGEST_NAME: usize = 127;

/// What the kernel writes of a symbol.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    /// As in `/proc/kallsyms`.
    pub kind: u8,
    /// Its name, a zero, and what was there before. A longer name is cut off.
    pub name: [u8; LONGEST_NAME],
}

offsets!(Offsets);

abi!(Prefixes, Offsets, Symbol);

#[cfg(test)]
mod tests {
    use super::*;

    fn may_begin(names: &[&str], text: &str) -> bool {
        Prefixes::of(names.iter().copied()).may_begin(text.as_bytes())
    }

    #[test]
    fn names_and_what_begins_like_them_are_let_through() {
        assert!(may_begin(&["nf_ct_delete"], "nf_ct_delete.part.0\n"));
        assert!(may_begin(&["nf_ct_delete"], "nf_conntrack_in\n"));
        assert!(may_begin(&["a", "nf_ct_delete"], "a\n"));
        assert!(may_begin(&["a"], "schedule"));
    }

    #[test]
    fn most_others_are_not() {
        assert!(!may_begin(&["nf_ct_delete"], "schedule\n"));
        assert!(!may_begin(&["nf_ct_delete"], "nf_"));
        assert!(!may_begin(&[], "schedule"));
    }
}
