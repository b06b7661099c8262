//! Signals that ask to end, for what runs until somebody wants it to.

use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::sleep;

use anyhow::{Context as _, Result, bail};
use nix::libc::c_int;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::session::{End, POLL, Progress, Session};
use crate::protocol::Outcome;

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

/// How a boot with one scenario has ended that a person looks at.
pub(super) enum Watched {
    /// By a signal.
    Told(Signal),
    /// By itself.
    Ended(Outcome),
}

/// Waits for the end of the scenario, or for a signal. That of the guest is an error.
pub(super) fn watch(session: &mut Session<'_>) -> Result<Watched> {
    let mut outcome = None;
    loop {
        let end = session.poll(&mut |progress| match progress {
            Progress::Ended { outcome: end, .. } => outcome = Some(end),
            Progress::Up(_) | Progress::BootAgain(_) => {}
        })?;
        // After the look at the VM: Ctrl-C reaches QEMU, too.
        if let Some(signal) = received() {
            return Ok(Watched::Told(signal));
        }
        match (outcome.take(), end) {
            (Some(outcome), _) => return Ok(Watched::Ended(outcome)),
            (None, Some(End::Fault(why) | End::NeverUp(why) | End::Died(why))) => {
                bail!(session.explain(&why))
            }
            (None, Some(End::Done)) => bail!("the guest ended"),
            (None, None) => sleep(POLL),
        }
    }
}

/// The last that came.
fn received() -> Option<Signal> {
    Signal::try_from(RECEIVED.load(Ordering::Relaxed)).ok()
}

extern "C" fn note(signal: c_int) {
    RECEIVED.store(signal, Ordering::Relaxed);
}
