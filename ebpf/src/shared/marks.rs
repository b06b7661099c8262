//! Marks that one hook sets and another takes away, and that are rare: while there is
//! none, looking for one costs a load instead of a look-up.

use core::sync::atomic::AtomicU64;

use aya_ebpf::{bindings::BPF_NOEXIST, maps::LruHashMap};

use super::add;

/// Marked addresses.
#[expect(missing_debug_implementations, reason = "lives in BPF alone")]
#[derive(Clone, Copy)]
pub struct Marks {
    /// Which ones.
    pub map: &'static LruHashMap<u64, u8>,
    /// At least as many as the map has; more where it had to push some out.
    pub count: &'static AtomicU64,
}

impl Marks {
    /// Marks an address, once. A mark that does not fit is lost.
    #[inline(always)]
    pub fn set(self, address: u64) {
        // First the count: who looks for the mark must not find none.
        self.count(1);
        if self.map.insert(address, 1, u64::from(BPF_NOEXIST)).is_err() {
            self.count(-1);
        }
    }

    /// Takes a mark away; whether there was one.
    #[inline(always)]
    pub fn take(self, address: u64) -> bool {
        // SAFETY: as below. A plain load: the compiler has no atomic ones for BPF.
        let any = unsafe { self.count.as_ptr().read_volatile() } != 0;
        // A look-up takes no lock, a removal does.
        let marked = any && self.map.get_ptr(address).is_some() && self.map.remove(address).is_ok();
        if marked {
            self.count(-1);
        }
        marked
    }

    #[inline(always)]
    fn count(self, change: i64) {
        // SAFETY: aligned, and in the object's data, which is a map's value.
        unsafe { add(self.count.as_ptr(), change as u64) };
    }
}
