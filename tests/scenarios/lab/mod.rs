//! The lab: a fault that goes on for as long as somebody looks at it. And the test of it.

mod host;
mod services;
mod storm;
mod upgrade;

pub(crate) use self::host::{
    it_shows_ipvs_conn_reuse, it_shows_ipvs_estimation, its_pages_are_here_until_it_is_told_to_end,
};
pub(crate) use self::services::services;
pub(crate) use self::storm::storm;
pub(crate) use self::upgrade::upgrade;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, bail};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::{Guest, Process};
use nodemedic_tests::http;

use crate::agent::SOON;

/// As a user would, with nothing configured but where it listens. Waits until its probes are
/// attached: of an entry that was there before, it cannot tell how long it lived.
fn start(guest: &Guest, port: u16) -> Result<Process> {
    let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).to_string();
    let agent = guest.start("agent", &mut guest.agent(&["run", "--listen", &listen])?)?;
    let pages = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    eventually(2 * SOON, "the agent is ready", || {
        http::get(pages, "/readyz")
    })?;
    Ok(agent)
}

/// An agent that has ended has nothing more to show.
fn ensure_alive(agent: &mut Process) -> Result<()> {
    match agent.wait(Duration::ZERO) {
        Ok(status) => bail!("the agent ended with {status}"),
        Err(_) => Ok(()),
    }
}
