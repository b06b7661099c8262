//! Files that people and other programs write for us: bounded, and never a reason to wait.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::OFlags;

/// The largest file of the configuration, or of secrets and certificates, bytes: a bundle of all
/// public CAs has a quarter of it.
pub const LARGEST: u64 = 1 << 20;

/// The content of a regular file.
///
/// # Errors
///
/// Those of [`open`] and [`up_to`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    up_to(open(path)?, LARGEST)
}

/// Opens a regular file. A FIFO without a writer is refused at once, as is anything else that may
/// block or never ends.
///
/// # Errors
///
/// When it cannot be opened, or is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let without_waiting = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(without_waiting)
        .open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let kind = match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    let why = format!("it is {kind}, and must be a regular file: write the content to a file");
    Err(io::Error::new(io::ErrorKind::InvalidInput, why))
}

/// All of a stream, if it has at most so many bytes.
///
/// # Errors
///
/// When it has more, or cannot be read.
pub fn up_to(stream: impl Read, largest: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(largest + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest {
        let why = format!("it is larger than {largest} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::net::UnixListener};

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn only_regular_files_are_read_and_nothing_waits() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "content").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        mkfifoat(CWD, at("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for name in ["file", "link"] {
            assert_eq!(read(&at(name)).unwrap(), b"content", "{name}");
        }
        for (path, kind) in [
            (at("fifo"), "a FIFO"),
            (at(""), "a directory"),
            ("/dev/zero".into(), "a device"),
        ] {
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains(kind), "{error}");
            assert!(error.contains("must be a regular file"), "{error}");
        }
        assert!(read(&at("socket")).is_err());
    }

    #[test]
    fn what_is_too_large_is_not_read_on() {
        assert_eq!(up_to(&b"1234"[..], 4).unwrap(), b"1234");
        let error = up_to(&b"12345"[..], 4).unwrap_err();
        assert_eq!(error.to_string(), "it is larger than 4 bytes");
        // One that never ends.
        assert!(up_to(io::repeat(b'a'), 4).is_err());
    }
}
