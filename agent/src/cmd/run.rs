//! `nodemedic run`

use std::{os::fd::OwnedFd, sync::Arc};

use anyhow::Context as _;
use aya::sys::{Stats, enable_stats};
use clap::Args;
use tokio::{task::spawn_blocking, time::timeout};
use tracing::{info, warn};

use super::{
    daemon::{Daemon, HealthListener, finish, or_never, stay},
    exit::Exit,
    flags::{Flag, Flags, TakesKeys},
    signals::Signals,
    treatment_service,
};
use crate::{
    config::{Agent, Config, Log, Metrics},
    control::Control,
    http::{Gate, Limits, Server},
    identity::Identity,
    metrics::{Page, connections},
    monitor::Monitor,
    node::{Directory, Node},
    pages::{Health, Hosts, Pages},
    state::{self, Lock},
    webhook::{self, Listener, Webhook},
};

/// Threads beside those of the ailments: what detaches, what acts on a report, what
/// answers the command line, what decides on alerts.
const OTHERS_THAT_BLOCK: usize = 4;

/// Its flags go before what the file says.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    daemon: Daemon,
    #[command(flatten)]
    flags: Flags<Self>,
}

impl TakesKeys for Run {
    fn flags() -> Vec<Flag> {
        [
            Flag::all::<Agent>(),
            Flag::all::<Webhook>(),
            Flag::all::<Node>(),
            Flag::all::<Metrics>(),
            Flag::all::<Log>(),
        ]
        .concat()
    }
}

impl Run {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let mut config = self.daemon.load(&self.flags)?;
        config.webhook.enabled |= self.flags.has("webhook");
        let opens = || {
            Directory::check(&config.node)?;
            let gate = config.webhook.enabled.then(|| config.webhook.gate());
            gate.as_ref()
                .map_or(Ok(()), |gate| Gate::open(gate).map(|_| ()))
        };
        if let Some(exit) = self.daemon.only_checks(opens)? {
            return Ok(exit);
        }
        let threads = config.ailments.len() + OTHERS_THAT_BLOCK;
        stay(config.log, threads, agent(config))
    }
}

/// Until a signal comes. Signals are taken before anything is attached, so that
/// one that comes while the probes are being attached finds the way out too.
async fn agent(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::take()?;
    let _lock = Lock::take(&config.agent.state_dir)??;
    let state = state::directory(&config.agent.state_dir);
    let keys = "--listen or [agent] listen";
    let server = Server::bind(config.agent.listen, None, keys, Limits::WORK).await?;
    let health_listener = HealthListener::bind(config.agent.health_listen, "agent").await?;
    let mut refusals = vec![
        ("pages", server.refusals()),
        ("health", health_listener.refusals()),
    ];
    let control = Control::bind(&state)?;
    let directory = Directory::start(&config.node)?;
    let kernel = Arc::new(config.kernel().with(directory));
    let service = Arc::new(treatment_service(&config, &state));
    service.resume();
    let _statistics = config.metrics.bpf_stats.then(statistics).flatten();
    let identity = Identity::of_this_node(&config.agent.node_name);
    let (interval, drain) = (config.agent.interval, config.agent.shutdown_timeout);
    let max_series = config.metrics.max_series;
    let mut monitor = Monitor::new(
        config.ailments,
        kernel,
        identity.clone(),
        interval,
        max_series,
    );
    monitor.treat_with(Arc::clone(&service));
    let reports = monitor.reports();
    let mut metrics =
        Page::new(monitor.reports(), monitor.ailments().to_vec()).context("define the metrics")?;
    let mut alerts = None;
    if config.webhook.enabled {
        let (service, reports) = (Arc::clone(&service), reports.clone());
        let listener = Listener::bind(&config.webhook, &identity, service, reports).await?;
        let counts = listener.counts();
        refusals.push(("webhook", listener.refusals()));
        metrics = metrics
            .with(webhook::METRICS, move || counts.samples())
            .context("define the metrics")?;
        info!(webhook = %listener.address(), "alerts are received");
        alerts = Some(listener);
    }
    metrics = metrics
        .with(connections::METRICS, move || {
            connections::samples(&refusals)
        })
        .context("define the metrics")?;
    let health = Health::new(monitor.reports(), interval);
    let hosts = Hosts::new(identity, config.agent.allowed_hosts);
    let runs = service.runs();
    let mut pages = Pages::new(monitor.reports(), metrics, health.clone(), hosts, runs);
    if let Some(alerts) = &alerts {
        let claimed = alerts.claimed();
        pages = pages.with_routing(move || claimed.routing());
    }
    let pages = Arc::new(pages);
    info!(version = env!("CARGO_PKG_VERSION"), address = %server.address(), "listening");

    let commands = control
        .as_ref()
        .map(|it| it.serve(Arc::clone(&service), reports));
    let signal = tokio::select! {
        never = monitor.run() => match never {},
        never = server.serve(pages) => match never {},
        never = health_listener.serve(Arc::new(health)) => match never {},
        never = or_never(commands) => match never {},
        never = or_never(alerts.as_ref().map(Listener::serve)) => match never {},
        signal = signals.next() => signal,
    };
    info!("{signal}: undoing treatments, detaching the probes, finishing the answers under way");
    let leave = async {
        // Alerts that are being decided on begin nothing after all is undone; one whose
        // sender hangs is not waited for.
        if let Some(alerts) = alerts {
            let _ = timeout(drain / 2, alerts.drain()).await;
        }
        spawn_blocking(move || service.leave()).await
    };
    let done = async { tokio::join!(leave, server.drain(), monitor.stop()) };
    finish(done, drain, &mut signals).await;
    Ok(())
}

/// The kernel counts and times BPF programs as long as the descriptor is open, so
/// it stops when the agent does, however it ends.
fn statistics() -> Option<OwnedFd> {
    match enable_stats(Stats::RunTime) {
        Ok(descriptor) => Some(descriptor),
        Err(error) => {
            warn!("metrics.bpf_stats: the kernel counts no runs of BPF programs: {error}");
            None
        }
    }
}
