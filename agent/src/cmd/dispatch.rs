//! `nodemedic dispatch`

use std::{convert::Infallible, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use clap::Args;
use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use super::{
    daemon::{Daemon, HealthListener, finish, stay},
    exit::Exit,
    flags::{Flag, Flags, TakesKeys},
    signals::Signals,
};
use crate::{
    config::{Config, Log},
    dispatch::{self, Health, Pages, Router},
    http::{Gate, Limits, Misconfigured, Refusals, Server, Tls},
    metrics::{Page, connections},
    webhook::Intake,
};

/// Looking a name up blocks, and asking several agents by name looks up several.
const THREADS_THAT_BLOCK: usize = 8;

/// The dispatcher stores no state: it polls the agents to learn which nodes are being
/// treated. The table [dispatch] lists the agents. Run one dispatcher: each has a
/// concurrency limit of its own.
#[derive(Debug, Args)]
pub(super) struct Dispatch {
    #[command(flatten)]
    daemon: Daemon,
    #[command(flatten)]
    flags: Flags<Self>,
}

impl TakesKeys for Dispatch {
    fn flags() -> Vec<Flag> {
        [Flag::all::<dispatch::Dispatch>(), Flag::all::<Log>()].concat()
    }
}

impl Dispatch {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let config = self.daemon.load(&self.flags)?;
        let opens = || open(&config.dispatch).map(|_| ());
        if let Some(exit) = self.daemon.only_checks(opens)? {
            return Ok(exit);
        }
        stay(config.log, THREADS_THAT_BLOCK, dispatcher(config))
    }
}

async fn dispatcher(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::take()?;
    let drain = config.agent.shutdown_timeout;
    let config = config.dispatch;
    let (gate, tls, router) = open(&config)?;
    let router = Arc::new(router);
    let keys = "--listen or [dispatch] listen";
    let server = Server::bind(config.listen, tls, keys, Limits::WORK).await?;
    let keys = "--http-listen or [dispatch] http_listen";
    let pages = Server::bind(config.http_listen, None, keys, Limits::WORK).await?;
    let health_listener = HealthListener::bind(config.health_listen, "dispatch").await?;
    let page = page(
        &router,
        &[
            ("dispatch", server.refusals()),
            ("pages", pages.refusals()),
            ("health", health_listener.refusals()),
        ],
    )
    .context("define the metrics")?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        address = %pages.address(),
        webhook = %server.address(),
        "listening"
    );

    let intake = Arc::new(Intake::new(gate, Arc::clone(&router)));
    let health = Health(Arc::clone(&router));
    let signal = tokio::select! {
        never = server.serve(intake) => match never {},
        never = pages.serve(Arc::new(Pages(page, health.clone()))) => match never {},
        never = health_listener.serve(Arc::new(health)) => match never {},
        never = look_around(&router, config.resolve_every) => match never {},
        signal = signals.next() => signal,
    };
    info!("{signal}: finishing the answers under way");
    let done = async { tokio::join!(server.drain(), pages.drain()) };
    finish(done, drain, &mut signals).await;
    Ok(())
}

fn page(router: &Router, refusals: &[(&'static str, Refusals)]) -> anyhow::Result<Page> {
    let (counts, gauges) = router.counted();
    let refusals = refusals.to_vec();
    let page = Page::of_the_process()?
        .with(dispatch::METRICS, move || {
            [counts.samples(), gauges.samples()].concat()
        })?
        .with(connections::METRICS, move || {
            connections::samples(&refusals)
        })?;
    Ok(page)
}

/// All that can be wrong before anything listens.
fn open(config: &dispatch::Dispatch) -> anyhow::Result<(Gate, Option<Tls>, Router)> {
    if config.agents.is_empty() && config.service.is_empty() {
        let why = "no agent is known: [dispatch] agents lists them, or service names them";
        return Err(Misconfigured::because(anyhow!(why)).into());
    }
    let (gate, tls) = Gate::open(&config.gate())?;
    Ok((gate, tls, Router::open(config)?))
}

/// For the metrics; alerts are not waited for.
async fn look_around(router: &Router, every: Duration) -> Infallible {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        router.look_around().await;
    }
}
