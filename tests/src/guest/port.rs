//! The way out for events: a virtio-serial port.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::eventually::eventually;
use crate::protocol::{self, Event};

const PORTS: &str = "/sys/class/virtio-ports";

#[derive(Debug)]
pub(crate) struct Port {
    file: File,
}

impl Port {
    /// Waits for the port: the device names it a moment after the driver is there.
    pub(crate) fn open() -> Result<Self> {
        let path = eventually(Duration::from_secs(20), "the port for events", find)?;
        let file = File::options()
            .write(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        Ok(Self { file })
    }

    pub(crate) fn send(&mut self, event: &Event) -> Result<()> {
        let mut line = serde_json::to_vec(event).context("write an event as JSON")?;
        line.push(b'\n');
        self.file.write_all(&line).context("send an event")
    }
}

fn find() -> Result<PathBuf> {
    for port in fs::read_dir(PORTS).with_context(|| format!("list {PORTS}"))? {
        let port = port?;
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim() == protocol::PORT {
            return Ok(PathBuf::from("/dev").join(port.file_name()));
        }
    }
    anyhow::bail!("no port of {PORTS} is called {:?}", protocol::PORT)
}
