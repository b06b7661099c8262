//! `ListenOverflows` of `/proc/net/netstat`, which counts in the agent's network namespace.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

const FILE: &str = "/proc/net/netstat";
const TABLE: &str = "TcpExt:";
const COLUMN: &str = "ListenOverflows";

/// Connections that full listeners dropped since boot.
pub(super) fn listen_overflows() -> Result<u64> {
    let path = Path::new(FILE);
    let text = fs::read_to_string(path).with_context(|| format!("read {FILE}"))?;
    parse(&text).with_context(|| format!("find {COLUMN} in {FILE}"))
}

/// A table is two lines: the names of its columns, and their values.
fn parse(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(TABLE));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut columns = names.split_whitespace().zip(values.split_whitespace());
    let (_, value) = columns.find(|(name, _)| *name == COLUMN)?;
    value.parse().ok()
}
