//! An idle server on io_uring: it waits for a completion that does not come.
//!
//! Kernels with "io_uring: Use io_schedule* in cqring wait" (8a796565cec3) count that as a wait for
//! I/O: 6.5, 6.1.39, 5.15.121 and 5.10.187, and later.

use std::ffi::c_void;
use std::os::fd::AsRawFd as _;
use std::ptr::null_mut;

use anyhow::{Result, ensure};
use rustix::mm::{MapFlags, ProtFlags, mmap};

// The same numbers on every architecture.
const SETUP: i64 = 425;
const ENTER: i64 = 426;
const IORING_OFF_SQES: u64 = 0x1000_0000;
const IORING_OP_POLL_ADD: u8 = 6;
const IORING_ENTER_GETEVENTS: u32 = 1;
const POLLIN: u32 = 1;

unsafe extern "C" {
    fn syscall(number: i64, ...) -> i64;
}

/// Waits for a pipe in which nothing is written.
pub(super) fn run() -> Result<()> {
    let mut parameters = [0_u32; 30];
    // SAFETY: `struct io_uring_params` has 120 bytes.
    let ring = unsafe { syscall(SETUP, 8_u32, parameters.as_mut_ptr()) };
    ensure!(
        ring >= 0,
        "io_uring_setup: {}",
        std::io::Error::last_os_error()
    );
    let ring = ring as i32;
    // `struct io_sqring_offsets` begins at byte 40: head, tail, …, array.
    let (tail, array) = (parameters[11] as usize, parameters[16] as usize);
    let (pipe, _writer) = std::io::pipe()?;
    // SAFETY: the file lives as long as the process.
    let ring_fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(ring) };
    // SAFETY: new mappings; their sizes are at most what the kernel has made.
    let (queue, entries) = unsafe {
        let map = |length, offset| {
            let protection = ProtFlags::READ | ProtFlags::WRITE;
            mmap(
                null_mut(),
                length,
                protection,
                MapFlags::SHARED,
                ring_fd,
                offset,
            )
        };
        (map(4_096, 0)?, map(4_096, IORING_OFF_SQES)?)
    };
    // `struct io_uring_sqe`: opcode, flags, ioprio, fd, off, addr, len, poll_events, user_data.
    let mut entry = [0_u8; 64];
    entry[0] = IORING_OP_POLL_ADD;
    entry[4..8].copy_from_slice(&pipe.as_raw_fd().to_le_bytes());
    entry[28..32].copy_from_slice(&POLLIN.to_le_bytes());
    // SAFETY: within the mappings, which nothing else writes before the call.
    unsafe {
        entries.cast::<[u8; 64]>().write(entry);
        at(queue, array).write(0);
        at(queue, tail).write_volatile(1);
    }
    // SAFETY: no argument is a pointer to this process's memory.
    let done = unsafe {
        syscall(
            ENTER,
            ring,
            1_u32,
            1_u32,
            IORING_ENTER_GETEVENTS,
            null_mut::<c_void>(),
            0_usize,
        )
    };
    ensure!(
        done >= 0,
        "io_uring_enter: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

fn at(queue: *mut c_void, offset: usize) -> *mut u32 {
    queue.wrapping_byte_add(offset).cast()
}
