//! `nodemedic dispatch`

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::{ConfigFile, exit::Exit, signals::Signals};
use crate::{
    config::{Config, Format, Level},
    dispatch::{self, Pages, Router},
    http::{Gate, Server, Tls},
    logging,
    metrics::Page,
    render::print,
    webhook::Intake,
};

/// Looking a name up blocks, and asking several agents by name looks up several.
const THREADS_THAT_BLOCK: usize = 8;

/// It keeps nothing: which nodes are under treatment, it asks their agents. The table
/// [dispatch] of the configuration says where they are. Run one of it: two would each
/// allow as many nodes as the brake does.
#[derive(Debug, Args)]
pub(super) struct Dispatch {
    #[command(flatten)]
    config: ConfigFile,
    /// Check the configuration and exit.
    #[arg(long)]
    check_config: bool,
    /// Where alerts are taken; port 0 takes a free port.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Where /metrics and /healthz are; port 0 takes a free port.
    #[arg(long, value_name = "ADDR:PORT")]
    pages: Option<SocketAddr>,
    /// The least important log records that are written.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<Level>,
    /// The form of log records.
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<Format>,
}

impl Dispatch {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let mut config = self.config.load()?;
        self.override_file(&mut config);
        if self.check_config {
            open(&config.dispatch)?;
            print("the configuration is valid\n")?;
            return Ok(Exit::Healthy);
        }
        logging::start_for_a_daemon(config.log);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(THREADS_THAT_BLOCK)
            .build()
            .context("start the runtime")?;
        let outcome = runtime.block_on(dispatcher(config));
        runtime.shutdown_background();
        outcome.map(|()| Exit::Healthy)
    }

    fn override_file(&self, config: &mut Config) {
        let dispatch = &mut config.dispatch;
        dispatch.listen = self.listen.unwrap_or(dispatch.listen);
        dispatch.pages = self.pages.unwrap_or(dispatch.pages);
        config.log.level = self.log_level.unwrap_or(config.log.level);
        config.log.format = self.log_format.unwrap_or(config.log.format);
    }
}

async fn dispatcher(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::take()?;
    let drain = config.agent.drain;
    let config = config.dispatch;
    let (gate, tls, router) = open(&config)?;
    let router = Arc::new(router);
    let (counts, tally) = router.counted();
    let page = Page::of_the_process()
        .and_then(|page| {
            page.with(dispatch::METRICS, move || {
                [counts.samples(), tally.samples()].concat()
            })
        })
        .context("define the metrics")?;
    let server = Server::bind(config.listen, tls, "--listen or [dispatch] listen").await?;
    let pages = Server::bind(config.pages, None, "--pages or [dispatch] pages").await?;
    info!(
        version = env!("CARGO_PKG_VERSION"),
        address = %pages.address(),
        webhook = %server.address(),
        "listening"
    );

    let intake = Arc::new(Intake::new(gate, Arc::clone(&router)));
    let signal = tokio::select! {
        never = server.serve(intake) => match never {},
        never = pages.serve(Arc::new(Pages(page))) => match never {},
        never = look_around(&router, config.resolve_every) => match never {},
        signal = signals.next() => signal,
    };
    info!("{signal}: finishing the answers under way");
    let done = async { tokio::join!(server.drain(), pages.drain()) };
    tokio::select! {
        done = timeout(drain, done) => match done {
            Ok(_) => info!("done"),
            Err(_) => warn!("not done within {}; exiting", humantime::format_duration(drain)),
        },
        signal = signals.next() => warn!("{signal} again: exiting at once"),
    }
    Ok(())
}

/// All that can be wrong before anything listens.
fn open(config: &dispatch::Dispatch) -> anyhow::Result<(Gate, Option<Tls>, Router)> {
    ensure!(
        !config.agents.is_empty() || !config.service.is_empty(),
        "no agent is known: [dispatch] agents lists them, or service names them"
    );
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
