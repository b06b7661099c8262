//! Records, one after the other, in a file that holds room for those to come.

use std::{fmt, fs::File, io, os::unix::fs::FileExt as _};

use rustix::fs::{FallocateFlags, fallocate};

/// What a log does to its file. Tests have files on disks that fill up and lose power.
pub trait Storage: fmt::Debug + Send {
    /// Writes some of the bytes at an offset; how many.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Ends the file at this length, bytes. What was reserved behind it is lost.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Waits until all that was written is on the disk.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    fn sync(&self) -> io::Result<()>;

    /// Makes sure that so many bytes can be written from an offset on, however full the disk gets.
    ///
    /// # Errors
    ///
    /// The kernel's error: the disk has no such room.
    fn reserve(&self, offset: u64, length: u64) -> io::Result<()>;
}

impl Storage for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    /// Blocks behind the end of the file, with `fallocate(2)`: ext4, XFS, tmpfs and overlay keep
    /// them for this file, also after the agent has ended. A separate file that is removed when the
    /// disk is full would not do: another writer may take its space first. Ext2 and some network
    /// file systems have no `fallocate(2)`. There, zeros are written behind the last record.
    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        match fallocate(self, FallocateFlags::KEEP_SIZE, offset, length) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                let before = self.metadata()?.len();
                let (from, end) = (before.max(offset), offset + length);
                let zeros = vec![0; end.saturating_sub(from) as usize];
                self.write_all_at(&zeros, from)
                    .inspect_err(|_| _ = self.set_len(before))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The file, and how far whole records reach.
#[derive(Debug)]
pub struct Log {
    file: Box<dyn Storage>,
    end: u64,
    /// Whether there may be something behind the last whole record.
    is_torn: bool,
}

impl Log {
    /// Behind the last whole record of a file, which ends at `end`, bytes.
    pub fn new(file: Box<dyn Storage>, end: u64) -> Self {
        Self {
            file,
            end,
            is_torn: false,
        }
    }

    /// The same, where something is behind the last whole record.
    pub fn torn(file: Box<dyn Storage>, end: u64) -> Self {
        Self {
            is_torn: true,
            ..Self::new(file, end)
        }
    }

    /// The length of all records, bytes.
    pub fn length(&self) -> u64 {
        self.end
    }

    /// Appends a record and waits until it is on the disk. It may use up the room.
    ///
    /// # Errors
    ///
    /// The kernel's error. The record is cut off again then, at the latest before the next one.
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        self.mend()?;
        self.is_torn = true;
        match self.write(record) {
            Ok(()) => {
                self.end += record.len() as u64;
                self.is_torn = false;
                Ok(())
            }
            Err(error) => {
                // If this fails too, it is tried again before the next record.
                let _ = self.mend();
                Err(error)
            }
        }
    }

    /// Makes sure that records of so many bytes can be appended, however full the disk gets.
    ///
    /// # Errors
    ///
    /// The kernel's error: the disk has no such room.
    pub fn reserve(&mut self, room: u64) -> io::Result<()> {
        self.mend()?;
        self.file.reserve(self.end, room)
    }

    /// Cuts off what is behind the last whole record.
    fn mend(&mut self) -> io::Result<()> {
        if self.is_torn {
            self.file.truncate(self.end)?;
            self.file.sync()?;
            self.is_torn = false;
        }
        Ok(())
    }

    fn write(&self, record: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < record.len() {
            let offset = self.end + written as u64;
            match self.file.write_at(&record[written..], offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(some) => written += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.file.sync()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::{
        super::fake::{FakeDisk, after_power_failure},
        *,
    };

    struct Fixture {
        disk: FakeDisk,
        log: Log,
        path: PathBuf,
        _folder: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let file = File::create_new(&path).expect("a file");
        let disk = FakeDisk::new();
        let log = Log::new(disk.storage(file).expect("it can be written"), 0);
        Fixture {
            disk,
            log,
            path,
            _folder: folder,
        }
    }

    impl Fixture {
        fn text(&self) -> String {
            fs::read_to_string(&self.path).expect("it can be read")
        }
    }

    #[test]
    fn half_a_record_is_cut_off_again() {
        let mut it = fixture();
        it.log.append(b"first\n").expect("there is room");
        it.disk.disk().free = 3;
        let error = it.log.append(b"second\n").expect_err("the disk is full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(it.text(), "first\n");
        it.disk.disk().free = 100;
        it.log.append(b"third\n").expect("there is room");
        assert_eq!(it.text(), "first\nthird\n");
    }

    #[test]
    fn a_record_that_was_not_synced_is_cut_off_again() {
        let mut it = fixture();
        it.log.append(b"first\n").expect("there is room");
        it.disk.disk().sync_fails = true;
        it.log.append(b"second\n").expect_err("it is not synced");
        it.disk.disk().sync_fails = false;
        it.log.append(b"third\n").expect("it is synced");
        assert_eq!(it.text(), "first\nthird\n");
    }

    #[test]
    fn what_could_not_be_cut_off_is_cut_off_before_the_next_record() {
        let mut it = fixture();
        it.log.append(b"first\n").expect("there is room");
        {
            let mut disk = it.disk.disk();
            disk.free = 3;
            disk.truncate_fails = true;
        }
        it.log.append(b"second\n").expect_err("the disk is full");
        assert_eq!(it.text(), "first\nsec", "it cannot be cut off");
        it.disk.disk().free = 100;
        it.log.append(b"third\n").expect_err("it is still there");
        assert_eq!(it.text(), "first\nsec");
        it.disk.disk().truncate_fails = false;
        it.log.append(b"third\n").expect("all is well again");
        assert_eq!(it.text(), "first\nthird\n");
    }

    #[test]
    fn room_that_was_reserved_outlasts_a_full_disk() {
        let mut it = fixture();
        it.log.append(b"first\n").expect("there is room");
        it.log.reserve(14).expect("there is room");
        it.disk.disk().free = 0;
        it.log.append(b"second\n").expect("it was reserved");
        it.log.append(b"second\n").expect("it was reserved");
        it.log.append(b"second\n").expect_err("no more was");
        it.log.reserve(1).expect_err("there is none");
    }

    #[test]
    fn what_was_appended_outlasts_a_power_failure() {
        let mut it = fixture();
        it.log.append(b"first\n").expect("there is room");
        it.log.append(b"second\n").expect("there is room");
        let images = after_power_failure(&it.disk.disk().operations);
        assert_eq!(images, [b"first\nsecond\n"], "all is synced");
    }

    /// On the file system of this machine's temporary files, and without `fallocate(2)`.
    #[test]
    fn a_real_file_holds_room_without_being_longer() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let file = File::create_new(&path).expect("a file");
        let mut log = Log::new(Box::new(file), 0);
        log.append(b"first\n").expect("there is room");
        log.reserve(100_000).expect("there is room");
        let status = fs::metadata(&path).expect("it is there");
        let blocks = std::os::unix::fs::MetadataExt::blocks(&status) * 512;
        assert!(blocks >= 100_000, "{blocks}");
        log.append(b"second\n").expect("there is room");
        let text = fs::read(&path).expect("it is read");
        assert!(text.starts_with(b"first\nsecond\n"));
    }
}
