//! The ways in which probes use their maps.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    maps::{Array, HashMap, LruHashMap, PerCpuArray},
};

use super::add_atomic;

/// A map that has one value for each CPU.
#[expect(missing_debug_implementations, reason = "lives in BPF alone")]
#[repr(transparent)]
pub struct PerCpu<T>(PerCpuArray<T>);

impl<T> PerCpu<T> {
    /// The map, whose values are zero at first.
    #[expect(clippy::new_without_default, reason = "a static needs a const")]
    pub const fn new() -> Self {
        Self(PerCpuArray::with_max_entries(1, 0))
    }

    /// The value of this CPU. A raw pointer: a program that interrupts this one may use
    /// another field of the same value. The same program does not interrupt itself: the kernel
    /// leaves out what would run again on a CPU where it is running (`bpf_prog.active`,
    /// kernel/bpf/trampoline.c, and `bpf_prog_active`, kernel/trace/bpf_trace.c).
    #[inline(always)]
    pub fn get(&self) -> Option<*mut T> {
        self.0.get_ptr_mut(0)
    }
}

/// Totals that count the events missing from them.
pub trait Losses {
    /// Why an event is missing.
    type Loss;

    /// Where the events of a reason are counted.
    ///
    /// # Safety
    ///
    /// `totals` must point to a map's value.
    unsafe fn counter(totals: *mut Self, loss: Self::Loss) -> *mut u64;
}

impl<T: Losses> PerCpu<T> {
    /// Counts lost events.
    #[inline(always)]
    pub fn lost(&self, loss: T::Loss, events: u64) {
        if events > 0
            && let Some(totals) = self.get()
        {
            // SAFETY: a value of the map. Any program counts here, so atomically.
            unsafe { add_atomic(T::counter(totals, loss), events) };
        }
    }
}

/// A map with keys that programs put in.
pub trait KeyedMap<K, V> {
    /// The value of a key.
    fn value(&self, key: &K) -> Option<*mut V>;
    /// Puts a key in that is not there.
    fn insert_new(&self, key: &K, value: &V) -> Result<(), i32>;
}

macro_rules! keyed_map {
    ($($map:ident),+) => {
        $(
            impl<K, V> KeyedMap<K, V> for $map<K, V> {
                #[inline(always)]
                fn value(&self, key: &K) -> Option<*mut V> {
                    self.get_ptr_mut(key)
                }

                #[inline(always)]
                fn insert_new(&self, key: &K, value: &V) -> Result<(), i32> {
                    self.insert(key, value, u64::from(BPF_NOEXIST))
                }
            }
        )+
    };
}

keyed_map!(HashMap, LruHashMap);

/// The value of a key, which is put in with `zero` where it is absent. None: the map has
/// no room.
///
/// `zero` is called for an absent key alone: BPF clears memory byte by byte, which costs more
/// than the look-up. It returns a value and no reference: the compiler would make that a constant
/// of the object, and some sizes a map of their own.
#[inline(always)]
pub fn get_or_insert<K, V>(
    map: &impl KeyedMap<K, V>,
    key: &K,
    zero: impl FnOnce() -> V,
) -> Option<*mut V> {
    let found = map.value(key);
    if found.is_some() {
        return found;
    }
    // It fails as well where another CPU has put the key in just now: its value counts.
    let _present_or_full = map.insert_new(key, &zero());
    map.value(key)
}

/// A copy of a value that the agent or other CPUs change while the programs run.
#[inline(always)]
pub fn value_of<T: Copy>(map: &Array<T>, index: u32) -> Option<T> {
    let value = map.get_ptr(index)?;
    // SAFETY: a value of the map.
    Some(unsafe { value.read() })
}
