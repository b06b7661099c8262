//! Signals that ask to end, for what runs until somebody wants it to.

use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::{Context as _, Result};
use nix::libc::c_int;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// 0 as long as none has come.
static RECEIVED: AtomicI32 = AtomicI32::new(0);

/// Ctrl-C, `kill`, and a terminal that is closed.
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// From now on they do not end the process, but are noted.
pub(super) fn catch() -> Result<()> {
    let note = SigAction::new(
        SigHandler::Handler(note),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for signal in SIGNALS {
        // SAFETY: the handler does nothing but write one atomic number.
        unsafe { sigaction(signal, &note) }.with_context(|| format!("catch {signal}"))?;
    }
    Ok(())
}

/// The last that came.
pub(super) fn received() -> Option<Signal> {
    Signal::try_from(RECEIVED.load(Ordering::Relaxed)).ok()
}

extern "C" fn note(signal: c_int) {
    RECEIVED.store(signal, Ordering::Relaxed);
}
