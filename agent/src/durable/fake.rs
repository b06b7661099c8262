//! A disk that fills up, fails, and loses power.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    sync::{Arc, Mutex, MutexGuard},
};

use super::Storage;

/// What the disk was asked to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operation {
    /// A file was opened that contains this, all of it on the disk.
    Open(Vec<u8>),
    /// Bytes were written at an offset.
    Write(u64, Vec<u8>),
    /// The file was cut off.
    Truncate(u64),
    /// All before is on the disk.
    Sync,
    /// The test did something else here, with this value.
    Mark(u64),
}

/// How the disk is.
#[derive(Debug)]
pub(crate) struct Disk {
    /// Bytes that no file has.
    pub(crate) free: u64,
    /// It can be read only.
    pub(crate) is_read_only: bool,
    /// A sync fails.
    pub(crate) sync_fails: bool,
    /// Files cannot be cut off.
    pub(crate) truncate_fails: bool,
    pub(crate) operations: Vec<Operation>,
    /// How far each file has blocks, by inode number.
    allocated: BTreeMap<u64, u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct FakeDisk(Arc<Mutex<Disk>>);

#[derive(Debug)]
struct FakeFile {
    file: File,
    inode: u64,
    disk: FakeDisk,
}

impl FakeDisk {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Disk {
            free: 1 << 30,
            is_read_only: false,
            sync_fails: false,
            truncate_fails: false,
            operations: Vec::new(),
            allocated: BTreeMap::new(),
        })))
    }

    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("no test panics with it")
    }

    pub(crate) fn mark(&self, value: u64) {
        self.disk().operations.push(Operation::Mark(value));
    }

    pub(crate) fn storage(&self, file: File) -> io::Result<Box<dyn Storage>> {
        if self.disk().is_read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let status = file.metadata()?;
        let mut content = vec![0; status.len() as usize];
        file.read_exact_at(&mut content, 0)?;
        let open = Operation::Open(content);
        let inode = status.ino();
        let disk = self.clone();
        self.disk().operations.push(open);
        Ok(Box::new(FakeFile { file, inode, disk }))
    }
}

impl Disk {
    /// Gives a file blocks as far as this. How far it has some then.
    fn allocate(&mut self, inode: u64, wanted: u64) -> u64 {
        let has = self.allocated.entry(inode).or_default();
        let more = wanted.saturating_sub(*has).min(self.free);
        *has += more;
        self.free -= more;
        *has
    }
}

impl Storage for FakeFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.disk.disk();
        let end = offset + bytes.len() as u64;
        let writable = disk.allocate(self.inode, end).min(end);
        let some = writable.saturating_sub(offset) as usize;
        if some == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let some = &bytes[..some];
        self.file.write_all_at(some, offset)?;
        disk.operations
            .push(Operation::Write(offset, some.to_vec()));
        Ok(some.len())
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        if disk.truncate_fails {
            return Err(io::Error::other("the file cannot be cut off"));
        }
        self.file.set_len(length)?;
        let has = disk.allocated.insert(self.inode, length).unwrap_or(length);
        disk.free += has.saturating_sub(length);
        disk.operations.push(Operation::Truncate(length));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.disk();
        if disk.sync_fails {
            return Err(io::Error::other("it cannot be synced"));
        }
        disk.operations.push(Operation::Sync);
        Ok(())
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        let has = disk.allocated.get(&self.inode).copied().unwrap_or(0);
        if (offset + length).saturating_sub(has) > disk.free {
            return Err(io::ErrorKind::StorageFull.into());
        }
        disk.allocate(self.inode, offset + length);
        Ok(())
    }
}

/// What the file can contain after a power failure behind these operations: what was synced, and
/// of each later write nothing, a part or all; where sectors are missing there are zeros.
pub(crate) fn after_power_failure(operations: &[Operation]) -> Vec<Vec<u8>> {
    const SECTOR: usize = 512;
    let is_safe = |it: &Operation| matches!(it, Operation::Sync | Operation::Open(_));
    let safe = operations.iter().rposition(is_safe).map_or(0, |at| at + 1);
    let mut file = Vec::new();
    for operation in &operations[..safe] {
        apply(&mut file, operation);
    }
    let mut images = vec![file.clone()];
    for operation in &operations[safe..] {
        if let Operation::Write(offset, bytes) = operation {
            for length in 1..bytes.len() {
                let mut cut = file.clone();
                apply(
                    &mut cut,
                    &Operation::Write(*offset, bytes[..length].to_vec()),
                );
                images.push(cut);
            }
            let mut whole = file.clone();
            apply(&mut whole, operation);
            let first = *offset as usize / SECTOR;
            for sector in first..whole.len().div_ceil(SECTOR) {
                let mut lossy = whole.clone();
                let end = lossy.len().min((sector + 1) * SECTOR);
                lossy[(sector * SECTOR).max(*offset as usize)..end].fill(0);
                images.push(lossy);
            }
        }
        apply(&mut file, operation);
        images.push(file.clone());
    }
    images
}

fn apply(file: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Open(content) => file.clone_from(content),
        Operation::Write(offset, bytes) => {
            let (from, end) = (*offset as usize, *offset as usize + bytes.len());
            file.resize(file.len().max(end), 0);
            file[from..end].copy_from_slice(bytes);
        }
        Operation::Truncate(length) => file.resize(*length as usize, 0),
        Operation::Sync | Operation::Mark(_) => {}
    }
}
