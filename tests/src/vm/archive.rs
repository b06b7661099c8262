//! An initramfs archive in the making: cpio of the "newc" kind, all that the kernel reads.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use cpio::newc::{Builder, ModeFileType, trailer};

#[derive(Debug)]
pub(crate) struct Archive {
    file: BufWriter<File>,
    /// Each file needs a number of its own: equal ones with a link count are hard links.
    entries: u32,
    folders: BTreeSet<String>,
}

impl Archive {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self {
            file: BufWriter::new(file),
            entries: 0,
            folders: BTreeSet::new(),
        })
    }

    /// Folders on the way are made, too.
    pub(crate) fn folder(&mut self, path: &str) -> Result<()> {
        let path = path.trim_matches('/');
        if path.is_empty() || !self.folders.insert(path.to_owned()) {
            return Ok(());
        }
        self.parent(path)?;
        self.write(path, ModeFileType::Directory, 0o755, &[])
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.parent(path)?;
        self.write(path, ModeFileType::Regular, mode, content)
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.parent(path)?;
        self.write(path, ModeFileType::Symlink, 0o777, target.as_bytes())
    }

    /// Without this the archive is cut short.
    pub(crate) fn finish(mut self) -> Result<()> {
        trailer(&mut self.file).context("write the end of an archive")?;
        self.file.flush().context("write an archive")
    }

    fn parent(&mut self, path: &str) -> Result<()> {
        match path.trim_start_matches('/').rsplit_once('/') {
            Some((parent, _)) => self.folder(parent),
            None => Ok(()),
        }
    }

    fn write(&mut self, path: &str, kind: ModeFileType, mode: u32, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len());
        ensure!(
            size.is_ok(),
            "{path} is too big for an archive: {} bytes",
            content.len()
        );
        self.entries += 1;
        let entry = Builder::new(path.trim_start_matches('/'))
            .ino(self.entries)
            .mode(mode)
            .set_mode_file_type(kind)
            .write(&mut self.file, size.unwrap_or_default());
        finish_entry(entry, content).with_context(|| format!("write {path} to an archive"))
    }
}

fn finish_entry(
    mut entry: cpio::newc::Writer<&mut BufWriter<File>>,
    content: &[u8],
) -> io::Result<()> {
    entry.write_all(content)?;
    entry.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut archive = Archive::create(file.path()).unwrap();
        archive.file("/a/b/hello", 0o644, b"world").unwrap();
        archive.link("/a/link", "b/hello").unwrap();
        archive.finish().unwrap();
        let mut reader = cpio::newc::Reader::new(File::open(file.path()).unwrap()).unwrap();
        let mut names = Vec::new();
        while !reader.entry().is_trailer() {
            names.push(reader.entry().name().to_owned());
            reader = cpio::newc::Reader::new(reader.finish().unwrap()).unwrap();
        }
        assert_eq!(names, ["a", "a/b", "a/b/hello", "a/link"]);
    }
}
