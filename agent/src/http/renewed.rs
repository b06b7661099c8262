//! What is made of files that others renew while we run.

use std::{
    fmt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use tracing::{error, info};

use super::files::Stamp;

/// Something that is made again when one of its files has changed. Where changed files
/// cannot be used, what was made last is in force: half of a renewal is no reason to be
/// gone.
pub(super) struct Renewed<T> {
    files: Vec<PathBuf>,
    make: Box<dyn Fn() -> anyhow::Result<T> + Send + Sync>,
    seen: Mutex<(Vec<Option<Stamp>>, T)>,
}

impl<T: Clone> Renewed<T> {
    /// Made of these files now.
    pub(super) fn new(
        files: Vec<PathBuf>,
        make: impl Fn() -> anyhow::Result<T> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let stamps = stamps(&files);
        let made = make()?;
        Ok(Self {
            files,
            make: Box::new(make),
            seen: Mutex::new((stamps, made)),
        })
    }

    /// Made of what is in the files now.
    pub(super) fn current(&self) -> T {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps = stamps(&self.files);
        if stamps != seen.0 {
            seen.0 = stamps;
            match (self.make)() {
                Ok(made) => {
                    info!("certificates were changed, and read again");
                    seen.1 = made;
                }
                Err(error) => error!("certificates were changed, the old ones stay: {error:#}"),
            }
        }
        seen.1.clone()
    }
}

impl<T> fmt::Debug for Renewed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewed")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|file| Stamp::of(file)).collect()
}
