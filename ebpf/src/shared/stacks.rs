//! Stacks of the kernel, each kept once.

use core::cell::UnsafeCell;

use aya_ebpf::{
    EbpfContext,
    bindings::{bpf_map_def, bpf_map_type::BPF_MAP_TYPE_STACK_TRACE},
    helpers::generated::bpf_get_stackid,
};

/// A map of stacks of at most `FRAMES` frames: one that is as deep as the kernel allows
/// takes a kilobyte, and has the same beginning as many others.
#[expect(missing_debug_implementations, reason = "lives in BPF alone")]
#[repr(transparent)]
pub struct Stacks<const FRAMES: usize> {
    definition: UnsafeCell<bpf_map_def>,
}

// SAFETY: the definition is for the loader; nobody reads it here.
unsafe impl<const FRAMES: usize> Sync for Stacks<FRAMES> {}

impl<const FRAMES: usize> Stacks<FRAMES> {
    /// With room for so many stacks, at a place that a hash tells.
    pub const fn with_max_entries(max_entries: u32) -> Self {
        Self {
            definition: UnsafeCell::new(bpf_map_def {
                type_: BPF_MAP_TYPE_STACK_TRACE,
                key_size: 4,
                value_size: (FRAMES * 8) as u32,
                max_entries,
                map_flags: 0,
                id: 0,
                pinning: 0,
            }),
        }
    }

    /// The id of the stack of the kernel at this place, or a negative error number: its
    /// place is another's.
    #[inline(always)]
    pub fn id(&'static self, ctx: &impl EbpfContext) -> i64 {
        // SAFETY: the context is the program's, the map what the loader makes of it.
        unsafe { bpf_get_stackid(ctx.as_ptr(), self.definition.get().cast(), 0) }
    }
}
