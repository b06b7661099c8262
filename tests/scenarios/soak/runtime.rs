//! A container runtime that is of no use, and comes and goes.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;

use super::Node;
use crate::agent::SOON;

/// Where containerd listens.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// The runtime accepts connections and ends them, then accepts and says nothing, then is gone.
pub(super) fn runtime(node: &mut Node<'_>) -> Result<()> {
    let requests = |node: &Node<'_>| -> Result<f64> {
        let metrics = node.agent.metrics()?;
        Ok(metrics.sum(
            "nodemedic_pod_lookup_requests_total",
            &[("outcome", "failed")],
        ))
    };
    for kind in [Runtime::Closes, Runtime::Silent] {
        let before = requests(node)?;
        let socket = kind.listen()?;
        eventually(2 * SOON, "a request that fails", || {
            socket.serve()?;
            ensure!(requests(node)? > before, "none has, with {kind:?}");
            Ok(())
        })?;
    }
    Ok(())
}

/// A runtime that is of no use.
#[derive(Debug, Clone, Copy)]
pub(super) enum Runtime {
    Closes,
    Silent,
}

/// Its socket, which goes when this is dropped.
#[derive(Debug)]
pub(super) struct Socket {
    kind: Runtime,
    listener: UnixListener,
}

impl Runtime {
    pub(super) fn listen(self) -> Result<Socket> {
        let path = Path::new(SOCKET);
        let folder = path.parent().context("a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let listener = UnixListener::bind(path).with_context(|| format!("listen at {SOCKET}"))?;
        listener
            .set_nonblocking(true)
            .context("let nobody wait for a connection")?;
        Ok(Socket {
            kind: self,
            listener,
        })
    }
}

impl Socket {
    /// Ends the connections that have come, if it is one that does. The others wait unaccepted by us,
    /// which is no different to who has connected.
    pub(super) fn serve(&self) -> Result<()> {
        if matches!(self.kind, Runtime::Closes) {
            while self.listener.accept().is_ok() {}
        }
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(SOCKET);
    }
}
