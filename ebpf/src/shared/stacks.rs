//! Stacks of the kernel, each kept once.

use core::cell::UnsafeCell;

use aya_ebpf::{
    EbpfContext,
    bindings::{bpf_map_def, bpf_map_type::BPF_MAP_TYPE_STACK_TRACE},
    helpers::generated::bpf_get_stackid,
};

/// A map of stacks, of which it keeps the innermost `FRAMES` frames: as many as the kernel
/// allows take a kilobyte, and most stacks differ in the innermost few.
#[expect(missing_debug_implementations, reason = "lives in BPF alone")]
#[repr(transparent)]
pub struct Stacks<const FRAMES: usize> {
    definition: UnsafeCell<bpf_map_def>,
}

// SAFETY: the definition is for the loader; nobody reads it here.
unsafe impl<const FRAMES: usize> Sync for Stacks<FRAMES> {}

impl<const FRAMES: usize> Stacks<FRAMES> {
    /// A map with room for so many stacks. The hash of a stack decides its place.
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

    /// The id of the kernel's stack here, or a negative error number where another stack has
    /// its place.
    #[inline(always)]
    pub fn id(&'static self, ctx: &impl EbpfContext) -> i64 {
        // SAFETY: the context is the program's, the map what the loader makes of it.
        unsafe { bpf_get_stackid(ctx.as_ptr(), self.definition.get().cast(), 0) }
    }
}
