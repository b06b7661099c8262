//! The content of a file of `/sys/kernel/btf`.

use std::{
    fs::{self, File},
    io,
    ops::Deref,
    path::Path,
    ptr, slice,
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes that the kernel keeps, or a copy of them.
#[derive(Debug)]
pub(super) enum Contents {
    Mapped(Mapping),
    Read(Vec<u8>),
}

impl Contents {
    /// Maps the file, which the kernel lets be done with vmlinux's from 6.16 on
    /// (kernel/bpf/sysfs_btf.c, `btf_sysfs_vmlinux_mmap`), or reads it.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        match Mapping::of(&File::open(path)?) {
            Ok(mapping) => Ok(Self::Mapped(mapping)),
            Err(_) => fs::read(path).map(Self::Read),
        }
    }
}

impl Deref for Contents {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapping) => mapping,
            Self::Read(bytes) => bytes,
        }
    }
}

/// Memory of the kernel, to read. It never changes.
#[derive(Debug)]
pub(super) struct Mapping {
    begin: *const u8,
    length: usize,
}

// SAFETY: nothing but memory that is only read.
unsafe impl Send for Mapping {}
// SAFETY: the same.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn of(file: &File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        // SAFETY: the kernel finds a place where nothing is.
        let begin = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::PRIVATE,
                file,
                0,
            )?
        };
        Ok(Self {
            begin: begin.cast_const().cast(),
            length,
        })
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: as long as this lives so much is mapped, and nobody can write to it.
        unsafe { slice::from_raw_parts(self.begin, self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing refers to it any more. It cannot fail for what was mapped.
        let _ = unsafe { munmap(self.begin.cast_mut().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_is_what_it_holds_whether_it_can_be_mapped_or_not() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(b"types").expect("written");
        let mapped = Contents::of(file.path()).expect("readable");
        assert!(matches!(mapped, Contents::Mapped(_)));
        assert_eq!(&*mapped, b"types");
        // Of procfs nothing can be mapped, and sizes are 0.
        let read = Contents::of(Path::new("/proc/self/comm")).expect("readable");
        assert!(matches!(read, Contents::Read(_)));
        assert!(!read.is_empty());
        assert!(Contents::of(Path::new("/proc/self/none")).is_err());
    }
}
