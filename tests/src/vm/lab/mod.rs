//! For a person: a kernel of the matrix in a VM that has an ailment, and the agent, whose pages are
//! on this machine's loopback until a signal comes.

mod watch;

use std::env;
use std::fmt::Display;
use std::io::{Write as _, stdout};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::str::FromStr;
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::interrupt::{self, Watched};
use super::kernels::Matrix;
use super::session::Session;
use super::vm;
use crate::protocol::{Outcome, Task};
use crate::scenario::Registry;

/// The scenarios that make the faults are called `lab::AILMENT`.
const PREFIX: &str = "lab::";

/// What such a scenario is told.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Fault {
    /// Where the agent's pages are, on both sides.
    pub port: u16,
    /// How big the fault is: queries or connections a second, or services.
    pub size: u32,
}

impl Fault {
    fn from_env() -> Result<Self> {
        Ok(Self {
            port: variable("NODEMEDIC_LAB_PORT")?,
            size: variable("NODEMEDIC_LAB_SIZE")?,
        })
    }
}

fn variable<T: FromStr<Err: Display>>(name: &str) -> Result<T> {
    let text = env::var(name).with_context(|| format!("read {name}"))?;
    match text.parse() {
        Ok(value) => Ok(value),
        Err(error) => bail!("{name}={text:?}: {error}"),
    }
}

/// Boots the first kernel that is selected, and stays until it is told to end.
pub(super) fn run(matrix: &Matrix, registry: &Registry) -> Result<ExitCode> {
    let ailment: String = variable("NODEMEDIC_LAB_AILMENT")?;
    let fault = Fault::from_env()?;
    let pages = SocketAddr::from((Ipv4Addr::LOCALHOST, fault.port));
    ensure_free(pages)?;
    let kernel = matrix.kernels.first().context("no kernel is selected")?;
    let scenario = registry
        .find(&format!("{PREFIX}{ailment}"))
        .with_context(|| format!("there is no lab of {ailment:?}"))?;
    let input = serde_json::to_value(fault).context("write the input as JSON")?;
    let mut vm = vm(matrix, kernel, scenario.shape)?;
    ensure!(
        vm.has_agent(),
        "the lab has no agent: NODEMEDIC_BIN is not set"
    );
    vm.forward(&[fault.port]);
    interrupt::catch()?;
    let mut session = Session::start(&kernel.name, &vm, &[Task::new(scenario, input)])?;
    tell(&format!(
        "kernel {} boots; Ctrl-C ends all of it",
        kernel.name
    ));
    // It ends with this process: what it waits for comes from the network, so it cannot be asked.
    thread::spawn(move || watch::run(pages, &ailment));
    match interrupt::watch(&mut session)? {
        Watched::Told(signal) => tell(&format!("{signal}: ended")),
        Watched::Ended(Outcome::Failed(why)) => bail!("the lab in the guest failed: {why}"),
        Watched::Ended(outcome) => bail!("the lab in the guest ended: {outcome:?}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// QEMU would only say that it "could not set up host forwarding rule".
fn ensure_free(address: SocketAddr) -> Result<()> {
    TcpListener::bind(address).map(drop).with_context(|| {
        format!("the pages are to be at {address}; choose another port with --port")
    })
}

/// A line for the person. Nobody may read it any more, which is no reason to end.
fn tell(line: &str) {
    let _ = writeln!(stdout(), "{line}");
}
