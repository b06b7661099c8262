//! A file system with a daemon that answers everything but reads: include/uapi/linux/fuse.h.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::guest::Guest;

/// What is mounted, as `/proc/self/mountinfo` has it.
pub const SOURCE: &str = "a-daemon-that-hangs";

/// Where it is.
pub const FOLDER: &str = "/tmp/hung";

/// A file in it.
pub const FILE: &str = "/tmp/hung/file";

const SIZE: u64 = 1 << 20;
const ROOT: u64 = 1;

// Of `enum fuse_opcode`.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

/// Dropping it ends the daemon, and with it each read.
#[derive(Debug)]
pub struct HungDaemon(());

impl HungDaemon {
    /// Mounts it.
    pub fn mount(guest: &Guest) -> Result<Self> {
        guest.modprobe("fuse")?;
        fs::create_dir_all(FOLDER).with_context(|| format!("make {FOLDER}"))?;
        let device = File::options().read(true).write(true).open("/dev/fuse");
        let device = device.context("open /dev/fuse")?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0",
            device.as_raw_fd()
        );
        mount(
            Some(SOURCE),
            FOLDER,
            Some("fuse"),
            MsFlags::empty(),
            Some(options.as_str()),
        )
        .context("mount the file system")?;
        // It ends when the file system is unmounted.
        thread::spawn(move || serve(device));
        Ok(Self(()))
    }
}

impl Drop for HungDaemon {
    fn drop(&mut self) {
        if let Err(error) = umount2(Path::new(FOLDER), MntFlags::MNT_FORCE) {
            println!("unmount {FOLDER}: {error}");
        }
        let _busy = umount2(Path::new(FOLDER), MntFlags::MNT_DETACH);
    }
}

fn serve(mut device: File) {
    let mut request = vec![0; 1 << 18];
    while let Ok(length) = device.read(&mut request) {
        let Some(answer) = answer(&request[..length]) else {
            continue;
        };
        if let Err(error) = device.write_all(&answer) {
            println!("answer the kernel: {error}");
        }
    }
}

/// `struct fuse_in_header`: length, opcode, unique, node.
fn answer(request: &[u8]) -> Option<Vec<u8>> {
    let u32_at = |at: usize| {
        Some(u32::from_le_bytes(
            request.get(at..at + 4)?.try_into().ok()?,
        ))
    };
    let u64_at = |at: usize| {
        Some(u64::from_le_bytes(
            request.get(at..at + 8)?.try_into().ok()?,
        ))
    };
    let (opcode, unique, node) = (u32_at(4)?, u64_at(8)?, u64_at(16)?);
    let (error, body) = match opcode {
        FORGET | BATCH_FORGET | INTERRUPT | READ => return None,
        INIT => (0, init()),
        LOOKUP => (0, entry()),
        GETATTR => (0, [numbers(&[3_600, 0]), attributes(node)].concat()),
        OPEN => (0, numbers(&[1, 0])),
        RELEASE => (0, Vec::new()),
        _ => (-libc_enosys(), Vec::new()),
    };
    let length = 16 + body.len() as u32;
    let mut answer = length.to_le_bytes().to_vec();
    answer.extend(i32::to_le_bytes(error));
    answer.extend(unique.to_le_bytes());
    answer.extend(body);
    Some(answer)
}

const fn libc_enosys() -> i32 {
    nix::errno::Errno::ENOSYS as i32
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|it| it.to_le_bytes()).collect()
}

/// Readers do not wait in the request, but for the page, as those of a disk do.
const FUSE_ASYNC_READ: u32 = 1;

/// `struct fuse_init_out` of 7.31.
fn init() -> Vec<u8> {
    let words: [u32; 16] = [
        7,
        31,
        1 << 16,
        FUSE_ASYNC_READ,
        8 << 16 | 8,
        1 << 16,
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    words.iter().flat_map(|it| it.to_le_bytes()).collect()
}

/// `struct fuse_entry_out`: node, generation, how long both are valid, attributes.
fn entry() -> Vec<u8> {
    [
        numbers(&[ROOT + 1, 0, 3_600, 3_600, 0]),
        attributes(ROOT + 1),
    ]
    .concat()
}

/// `struct fuse_attr`.
fn attributes(node: u64) -> Vec<u8> {
    let mode: u32 = if node == ROOT { 0o040_755 } else { 0o100_644 };
    let mut attributes = numbers(&[node, SIZE, SIZE / 512, 0, 0, 0]);
    let words: [u32; 10] = [0, 0, 0, mode, 1, 0, 0, 0, 4_096, 0];
    attributes.extend(words.iter().flat_map(|it| it.to_le_bytes()));
    attributes
}
