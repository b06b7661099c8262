//! Whom it concerns: services with the old destination, and clients.

use std::{collections::HashMap, net::SocketAddr, time::Instant};

use ebpf::ipvs_conn_reuse::{
    Client, ClientCounts, Flow, FlowCounts, IpvsSettings, Outcome, SynCounts,
};

use super::{ClientReading, ServiceReading, Syns, VsSettings};
use crate::ailments::{address::address, ranking::Ranking};

const OUTCOMES: usize = Outcome::ALL.len();

/// What is known of all services.
#[derive(Debug)]
pub(super) struct Services {
    ranking: Ranking<Flow, OUTCOMES>,
    /// The kernel's map at the last tick: what of it is no count.
    last: HashMap<Flow, FlowCounts>,
}

impl Services {
    pub(super) fn new(places: usize) -> Self {
        Self {
            ranking: Ranking::new(places),
            last: HashMap::new(),
        }
    }

    /// Takes in the kernel's map as it is now, and returns those with most SYNs since
    /// the last time.
    pub(super) fn update(
        &mut self,
        now: Instant,
        map: Vec<(Flow, FlowCounts)>,
    ) -> Vec<ServiceReading> {
        let counts = map.iter().map(|(flow, counts)| (*flow, counts.syns));
        let top = self.ranking.update(now, counts);
        self.last = map.into_iter().collect();
        top.into_iter()
            .map(|service| self.reading(service))
            .collect()
    }

    /// Those that metrics show.
    pub(super) fn shown(&self) -> Vec<ServiceReading> {
        let shown = self.ranking.shown().into_iter();
        shown.map(|service| self.reading(service)).collect()
    }

    /// SYNs of all others, out of all that there were.
    pub(super) fn other(&mut self, all: SynCounts) -> Syns {
        self.ranking.other(all).into()
    }

    fn reading(&self, (flow, syns): (Flow, SynCounts)) -> ServiceReading {
        let last = self.last.get(&flow).copied().unwrap_or_default();
        ServiceReading {
            netns: flow.netns,
            service: SocketAddr::new(
                address(flow.family, flow.virtual_address),
                flow.virtual_port,
            ),
            old_destination: SocketAddr::new(
                address(flow.destination_family, flow.destination),
                flow.destination_port,
            ),
            new_destination: (last.new_family != 0).then(|| {
                SocketAddr::new(
                    address(last.new_family, last.new_destination),
                    last.new_port,
                )
            }),
            settings: last.settings.into(),
            syns: syns.into(),
        }
    }
}

/// What is known of all clients.
#[derive(Debug)]
pub(super) struct Clients(Ranking<Client, OUTCOMES>);

impl Clients {
    pub(super) fn new(places: usize) -> Self {
        Self(Ranking::new(places))
    }

    /// As [`Services::update`].
    pub(super) fn update(
        &mut self,
        now: Instant,
        map: Vec<(Client, ClientCounts)>,
    ) -> Vec<ClientReading> {
        let map = map
            .into_iter()
            .map(|(client, counts)| (client, counts.syns));
        let top = self.0.update(now, map);
        top.into_iter().map(client_reading).collect()
    }

    /// Those that metrics show.
    pub(super) fn shown(&self) -> Vec<ClientReading> {
        self.0.shown().into_iter().map(client_reading).collect()
    }

    /// SYNs of all others, out of all that there were.
    pub(super) fn other(&mut self, all: SynCounts) -> Syns {
        self.0.other(all).into()
    }
}

fn client_reading((client, syns): (Client, SynCounts)) -> ClientReading {
    ClientReading {
        netns: client.netns,
        client: address(client.family, client.address),
        syns: syns.into(),
    }
}

impl From<IpvsSettings> for VsSettings {
    fn from(settings: IpvsSettings) -> Self {
        let IpvsSettings {
            conn_reuse_mode,
            expire_nodest_conn,
            conntrack,
            expire_quiescent_template,
        } = settings;
        Self {
            conn_reuse_mode: Some(conn_reuse_mode.into()),
            expire_nodest_conn: Some(expire_nodest_conn.into()),
            conntrack: Some(conntrack.into()),
            expire_quiescent_template: Some(expire_quiescent_template.into()),
        }
    }
}
