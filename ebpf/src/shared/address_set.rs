//! A set of addresses that one hook fills and another empties, and that is empty most of
//! the time: as long as it is, asking it costs a load instead of a look-up.

use core::sync::atomic::AtomicU64;

use aya_ebpf::{bindings::BPF_NOEXIST, maps::LruHashMap};

use super::add_atomic;

/// Addresses of kernel objects.
#[expect(missing_debug_implementations, reason = "lives in BPF alone")]
#[derive(Clone, Copy)]
pub struct AddressSet {
    /// Those that are in the set; the values mean nothing.
    pub map: &'static LruHashMap<u64, u8>,
    /// At least as many as the map has; more after it has evicted some.
    pub count: &'static AtomicU64,
}

impl AddressSet {
    /// Puts an address in. Where there is no room it is lost.
    #[inline(always)]
    pub fn insert(self, address: u64) {
        // The count comes first: nobody may find a count of 0 and an address in the map.
        self.count(1);
        if self.map.insert(address, 1, u64::from(BPF_NOEXIST)).is_err() {
            self.count(-1);
        }
    }

    /// Takes an address out. Returns whether it was in.
    #[inline(always)]
    pub fn remove(self, address: u64) -> bool {
        // SAFETY: as below. A volatile load: the compiler has no atomic one for BPF.
        let any = unsafe { self.count.as_ptr().read_volatile() } != 0;
        // A look-up takes no lock, a removal does.
        let removed =
            any && self.map.get_ptr(address).is_some() && self.map.remove(address).is_ok();
        if removed {
            self.count(-1);
        }
        removed
    }

    #[inline(always)]
    fn count(self, change: i64) {
        // SAFETY: aligned, and in the object's data, which is a map's value.
        unsafe { add_atomic(self.count.as_ptr(), change as u64) };
    }
}
