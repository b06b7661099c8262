//! Reads of kernel memory at offsets that the agent found in BTF.

use aya_ebpf::helpers::bpf_probe_read_kernel;

/// Reads a `T` that lies `offset` bytes into the object at `base`.
///
/// # Errors
///
/// The kernel's negative error number where the memory cannot be read.
///
/// # Safety
///
/// Any address may be given, a bad one is an error; but the bytes must mean
/// something as a `T`, so it has to be an integer or an array of them.
#[inline(always)]
pub unsafe fn read<T: Copy>(base: *const u8, offset: u32) -> Result<T, i32> {
    // SAFETY: the helper checks the address itself.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }
}

/// The value of a read-only global that the agent sets before the load.
///
/// A plain read would be folded by the compiler to the value in the source; the
/// verifier does the folding instead, with the value of this node.
#[inline(always)]
pub fn global<T: Copy>(global: &'static T) -> T {
    // SAFETY: a reference is valid to read.
    unsafe { core::ptr::read_volatile(global) }
}
