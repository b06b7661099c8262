//! A number for each of many addresses, kept from one hook to another and asked for
//! once: the time at which something began.

use aya_ebpf::maps::{Array, LruHashMap};

/// Numbers by address.
///
/// An address has one slot in an array. Its number goes there if the slot is free, and
/// into a hash map otherwise: the slot costs a tenth of what the hash map costs. No slot
/// is locked. Where two CPUs take a free one at the same time, one of the numbers is
/// lost, as where the hash map evicts one.
#[expect(missing_debug_implementations, reason = "lives in BPF alone")]
#[derive(Clone, Copy)]
pub struct AddressCache {
    /// The slots.
    pub slots: &'static Array<Slot>,
    /// Numbers of addresses that found their slot taken.
    pub rest: &'static LruHashMap<u64, u64>,
}

/// Bits of a slot's number.
const SLOT_BITS: u32 = 15;

/// The slots of an [`AddressCache`]: 512 KiB of memory.
pub const SLOTS: u32 = 1 << SLOT_BITS;

/// A number with its address; address 0 is none.
#[expect(missing_debug_implementations, reason = "lives in BPF alone")]
#[repr(C)]
pub struct Slot {
    address: u64,
    number: u64,
}

impl AddressCache {
    /// Puts in a number that is not 0, in the place of one that the address may have.
    /// Returns whether there was room.
    #[inline(always)]
    pub fn put(self, address: u64, number: u64) -> bool {
        if let Some(slot) = self.slot(address) {
            // SAFETY: a value of the map.
            unsafe {
                let occupant = (*slot).address;
                if occupant == 0 || occupant == address {
                    slot.write(Slot { address, number });
                    return true;
                }
            }
        }
        self.rest.insert(address, number, 0).is_ok()
    }

    /// Takes an address's number out; 0 where there is none.
    #[inline(always)]
    pub fn take(self, address: u64) -> u64 {
        if let Some(slot) = self.slot(address) {
            // SAFETY: a value of the map.
            unsafe {
                if (*slot).address == address {
                    (*slot).address = 0;
                    return (*slot).number;
                }
            }
        }
        let Some(number) = self.rest.get_ptr(address) else {
            return 0;
        };
        // SAFETY: a value of the map. The address is the caller's until it has returned.
        let number = unsafe { *number };
        let _gone = self.rest.remove(address);
        number
    }

    #[inline(always)]
    fn slot(self, address: u64) -> Option<*mut Slot> {
        // 2^64 by the golden ratio: spreads what differs in a few bits (Knuth's
        // multiplicative hash). The highest bits are the best.
        let spread = address.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.slots
            .get_ptr_mut((spread >> (u64::BITS - SLOT_BITS)) as u32)
    }
}
