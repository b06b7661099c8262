//! The folder for downloads and tools, outside the checkout so that clones share it.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// Names the folder itself.
pub(crate) const OVERRIDE: &str = "NODEMEDIC_CACHE";

/// `$NODEMEDIC_CACHE`, else `$XDG_CACHE_HOME/nodemedic`, else `~/.cache/nodemedic`.
pub fn cache_dir() -> Result<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set(OVERRIDE)
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("nodemedic")))
        .or_else(|| Some(set("HOME")?.join(".cache/nodemedic")))
        .with_context(|| format!("find the cache folder: neither HOME nor {OVERRIDE} is set"))
}
