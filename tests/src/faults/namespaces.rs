//! Network namespaces by the hundred, as on a node where many pods start and end at once.

use std::time::Duration;

use anyhow::Result;

use crate::guest::Guest;

/// So many at once, each with a process in it that lives for this long; then all of them go.
pub fn storm(guest: &Guest, count: u32, life: Duration) -> Result<()> {
    let life = life.as_secs();
    guest
        .sh(&format!(
            "i=0; while [ $i -lt {count} ]; do i=$((i+1)); unshare --net sleep {life} & done; wait"
        ))
        .map(drop)
}
