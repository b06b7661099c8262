//! Reads of kernel memory at offsets that the agent found in BTF.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated};

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

/// Reads a member of an object whose type the verifier knows, such as an argument of
/// an fentry program: one instruction instead of a call. It is 0 where the memory cannot
/// be read.
///
/// # Safety
///
/// See [`read`]. The verifier refuses the program for an object without such a type.
#[inline(always)]
pub unsafe fn read_typed<T: Copy>(object: *const u8, offset: u32) -> T {
    // SAFETY: the kernel catches the fault of a bad address.
    unsafe { core::ptr::read_volatile(object.wrapping_add(offset as usize).cast()) }
}

/// The number of an address whose type the verifier knows. The verifier allows next to no
/// arithmetic on such an address, but takes what was negated for a number.
#[inline(always)]
pub fn untyped(object: *const u8) -> u64 {
    let mut number = object as u64;
    // SAFETY: changes a register, and back.
    unsafe { asm!("{number} = -{number}", "{number} = -{number}", number = inout(reg) number) };
    number
}

/// A copy of `WORDS` times 8 bytes of kernel memory, on the stack. Reading it once is
/// cheaper than a call for each of several members that lie near one another.
#[expect(missing_debug_implementations, reason = "lives in BPF alone")]
pub struct Part<const WORDS: usize>(MaybeUninit<[u64; WORDS]>);

impl<const WORDS: usize> Part<WORDS> {
    /// A copy of nothing yet.
    #[inline(always)]
    pub const fn unread() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Fills it from an address.
    ///
    /// # Errors
    ///
    /// The kernel's negative error number where the memory cannot be read. The copy is zeros
    /// then.
    #[inline(always)]
    pub fn read(&mut self, address: u64) -> Result<(), i32> {
        // SAFETY: the helper checks the address itself, and writes as many bytes.
        let result = unsafe {
            generated::bpf_probe_read_kernel(
                self.0.as_mut_ptr().cast(),
                (WORDS * 8) as u32,
                address as *const _,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(result as i32)
        }
    }

    /// The `T` that lies `offset` bytes into it.
    ///
    /// # Safety
    ///
    /// It was read. The offset is a multiple of the alignment of `T`, and comes from a
    /// read-only global: the verifier then knows its value, and checks its bounds.
    #[inline(always)]
    pub unsafe fn at<T: Copy>(&self, offset: u32) -> T {
        // SAFETY: the caller's promise, and the verifier.
        unsafe {
            self.0
                .as_ptr()
                .cast::<u8>()
                .wrapping_add(offset as usize)
                .cast::<T>()
                .read_volatile()
        }
    }
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
