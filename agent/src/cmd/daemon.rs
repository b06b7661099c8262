//! What the verbs have in common that stay until they are told to end.

use std::{convert::Infallible, future::pending, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{ConfigFile, exit::Exit, flags::Flags, signals::Signals};
use crate::{
    config::{self, Config, Log},
    http::{Limits, Refusals, Server, Service},
    logging,
    render::print,
};

/// What they take beside the keys of the configuration.
#[derive(Debug, Args)]
pub(super) struct Daemon {
    #[command(flatten)]
    config: ConfigFile,
    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,
}

impl Daemon {
    /// The configuration, with the verb's flags in it.
    pub(super) fn load<V>(&self, flags: &Flags<V>) -> Result<Config, config::Error> {
        let mut config = self.config.load()?;
        flags.set(&mut config)?;
        Ok(config)
    }

    /// The end of a run that only checks; `opens` whether all can be used that the
    /// configuration names.
    pub(super) fn only_checks(
        &self,
        opens: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<Exit>> {
        if !self.check_config {
            return Ok(None);
        }
        opens()?;
        print("the configuration is valid\n")?;
        Ok(Some(Exit::Healthy))
    }
}

/// The listener of the health checks, where one is wanted.
#[derive(Debug)]
pub(super) struct HealthListener(Option<Server>);

impl HealthListener {
    /// Starts to listen.
    pub(super) async fn bind(address: Option<SocketAddr>, table: &str) -> anyhow::Result<Self> {
        let Some(address) = address else {
            return Ok(Self(None));
        };
        let keys = format!("--health-listen or [{table}] health_listen");
        let server = Server::bind(address, None, &keys, Limits::HEALTH).await?;
        info!(health = %server.address(), "health checks are answered");
        Ok(Self(Some(server)))
    }

    /// What it refuses; nothing where there is none.
    pub(super) fn refusals(&self) -> Refusals {
        self.0.as_ref().map(Server::refusals).unwrap_or_default()
    }

    /// Answers until it is dropped.
    pub(super) async fn serve<S: Service>(&self, service: Arc<S>) -> Infallible {
        or_never(self.0.as_ref().map(|server| server.serve(service))).await
    }
}

/// What never ends, where it is there; else nothing happens, for ever.
pub(super) async fn or_never(work: Option<impl Future<Output = Infallible>>) -> Infallible {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

/// Does what takes so long, with so many threads for what blocks.
pub(super) fn stay(
    log: Log,
    threads_that_block: usize,
    work: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Exit> {
    logging::start_for_a_daemon(log);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(threads_that_block)
        .build()
        .context("start the runtime")?;
    let outcome = runtime.block_on(work);
    // A thread that a kernel call holds must not hold the exit too.
    runtime.shutdown_background();
    outcome.map(|()| Exit::Healthy)
}

/// Waits for what is under way, unless it takes too long or a second signal comes.
pub(super) async fn finish(done: impl Future, within: Duration, signals: &mut Signals) {
    tokio::select! {
        done = timeout(within, done) => match done {
            Ok(_) => info!("done"),
            Err(_) => warn!("not done within {}; exiting", humantime::format_duration(within)),
        },
        signal = signals.next() => warn!("{signal} again: exiting at once"),
    }
}
