//! The webhook's own server.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use super::{AlertHandler, Claimed, Counts, Intake, Names, OF_WEBHOOK, Webhook};
use crate::{
    http::{Gate, Limits, Refusals, Server},
    identity::Identity,
    model::Reports,
    treatment::TreatmentService,
};

/// Listens for alerts, and has them decided on.
#[derive(Debug)]
pub struct Listener {
    server: Server,
    intake: Arc<Intake<AlertHandler>>,
    claimed: Claimed,
    counts: Arc<Counts>,
}

impl Listener {
    /// Starts to listen; connections wait until [`Self::serve`] runs.
    ///
    /// # Errors
    ///
    /// As [`Gate::open`] and [`Server::bind`].
    pub async fn bind(
        config: &Webhook,
        identity: &Identity,
        service: Arc<TreatmentService>,
        reports: Reports,
    ) -> anyhow::Result<Self> {
        let (gate, tls) = Gate::open(&config.gate())?;
        let keys = "--webhook or [webhook] listen";
        let server = Server::bind(config.listen, tls, keys, Limits::WORK).await?;
        let names = Names {
            labels: config.node_labels.clone(),
            own: config.node_names.clone(),
            accept_unnamed: config.accept_unnamed,
        };
        let counts = Arc::new(Counts::new(&OF_WEBHOOK));
        let handler = AlertHandler::new(
            service,
            reports,
            names,
            identity.clone(),
            config.undo_resolved,
            Arc::clone(&counts),
        );
        Ok(Self {
            server,
            claimed: handler.claimed(),
            intake: Arc::new(Intake::new(gate, Arc::new(handler))),
            counts,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// What it counts.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Which dispatcher may have something begun.
    pub fn claimed(&self) -> Claimed {
        self.claimed.clone()
    }

    /// What it refuses before it reads anything.
    pub fn refusals(&self) -> Refusals {
        self.server.refusals()
    }

    /// Answers until it is dropped.
    pub async fn serve(&self) -> Infallible {
        self.server.serve(Arc::clone(&self.intake)).await
    }

    /// Takes no more connections, and waits for the decisions under way.
    pub async fn drain(self) {
        self.server.drain().await;
    }
}
