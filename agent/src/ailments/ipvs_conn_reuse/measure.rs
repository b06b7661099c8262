//! Measuring: the baseline that needs no BPF, and what the probes count.

mod baseline;
mod check;
mod counts;
mod names;
mod probed;
mod recent;
mod tracer;
mod udp;
mod waiting;

use std::{net::SocketAddr, time::Duration};

use ebpf::ipvs_conn_reuse::{Outcome, Reason};
use serde::{Deserialize, Serialize};

pub(super) use self::counts::Counts;
pub(super) use self::udp::{
    DestinationState, DroppedFlow, DroppedReading, Flows, Traffic, UdpDestination, UdpReading,
};
use self::{baseline::Baseline, probed::Probed};
use super::{
    Settings,
    dead::{SweepReading, Sweepers},
    support::Plan,
};
use crate::{
    kernel::ipvs::Scan,
    model::{Missing, ProbeReport, ProgramStats},
    node::{Directory, Neighbours},
};

/// What one tick measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Time since the reading before, seconds.
    pub window_seconds: f64,
    /// The namespaces that have services.
    pub namespaces: Vec<NamespaceReading>,
    /// Our own network namespace.
    #[serde(default)]
    pub netns: Option<u32>,
    /// `nf_conntrack_tcp_timeout_close` of our own namespace, seconds.
    pub close_timeout: Option<u64>,
    /// Whether ctnetlink answers without that a module is loaded.
    #[serde(default)]
    pub has_ctnetlink: Option<bool>,
    /// UDP flows on drained and removed destinations.
    #[serde(default)]
    pub udp: UdpReading,
    /// What was done about the conntrack entries of dead connections.
    #[serde(default)]
    pub sweep: SweepReading,
    /// What the probes counted; absent where none is attached.
    pub probed: Option<ProbedReading>,
    /// The pods behind these addresses and namespaces.
    #[serde(default)]
    pub neighbours: Neighbours,
}

/// A network namespace with services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamespaceReading {
    /// Inode number, as in `/proc/<pid>/ns/net`.
    pub netns: u32,
    /// A process in it, by which an operator can enter it (`nsenter -t PID -n`).
    pub pid: u32,
    /// Its services, counted.
    pub scan: Scan,
    /// The settings in force there.
    pub settings: VsSettings,
}

/// Sysctls `net.ipv4.vs.*`; `None` where one could not be read, or does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsSettings {
    /// `conn_reuse_mode`
    pub conn_reuse_mode: Option<u64>,
    /// `expire_nodest_conn`
    pub expire_nodest_conn: Option<u64>,
    /// `conntrack`
    pub conntrack: Option<u64>,
    /// `expire_quiescent_template`
    pub expire_quiescent_template: Option<u64>,
}

impl VsSettings {
    /// Each with its name.
    pub fn named(&self) -> [(&'static str, Option<u64>); 4] {
        [
            ("conn_reuse_mode", self.conn_reuse_mode),
            ("expire_nodest_conn", self.expire_nodest_conn),
            ("conntrack", self.conntrack),
            ("expire_quiescent_template", self.expire_quiescent_template),
        ]
    }

    /// Whether they are as kube-proxy in mode `ipvs` sets them at each of its starts;
    /// its `conn_reuse_mode` depends on the kernel's version (pkg/proxy/ipvs).
    pub fn are_of_kube_proxy(&self) -> bool {
        [
            self.expire_nodest_conn,
            self.conntrack,
            self.expire_quiescent_template,
        ]
        .iter()
        .all(|setting| *setting == Some(1))
    }
}

/// What the probes counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProbedReading {
    /// Since the agent began.
    pub total: Counts,
    /// Lately: in the last `window`, or since the agent began.
    pub recent: Counts,
    /// How long that is, seconds.
    pub recent_seconds: f64,
    /// Services that metrics show, with their counts since they are shown.
    pub services: Vec<ServiceReading>,
    /// SYNs of all other services, since the agent began.
    pub other_services: Syns,
    /// Services with most SYNs lately, most first.
    pub top_services: Vec<ServiceReading>,
    /// Clients that metrics show, with their counts since they are shown.
    pub clients: Vec<ClientReading>,
    /// SYNs of all other clients, since the agent began.
    pub other_clients: Syns,
    /// Clients with most SYNs lately, most first.
    pub top_clients: Vec<ClientReading>,
    /// Clients that wait now.
    pub waiting: u64,
    /// For how long the first of them has waited, seconds.
    pub longest_wait_seconds: f64,
    /// Whether the packet hook is traced now.
    pub tracing: bool,
    /// Whether answers to UDP datagrams are traced from now on.
    #[serde(default)]
    pub tracing_answers: bool,
    /// UDP datagrams to removed destinations.
    #[serde(default)]
    pub dropped: DroppedReading,
    /// Events lost since the agent began, by reason.
    pub lost: Vec<(String, u64)>,
}

/// SYNs that met a connection of their tuple, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Syns {
    /// Scheduled anew at once.
    pub rescheduled: u64,
    /// Dropped; the next one will be scheduled.
    pub dropped: u64,
    /// Dropped, as the next one will be.
    pub dropped_silently: u64,
    /// Sent to a destination that is drained.
    pub stale_destination: u64,
}

/// SYNs of one service and one old destination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceReading {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Virtual address and port, of TCP.
    pub service: SocketAddr,
    /// Where the connection that was met led to.
    pub old_destination: SocketAddr,
    /// Where the last client was sent instead, if it was.
    pub new_destination: Option<SocketAddr>,
    /// The settings in force at the last SYN.
    pub settings: VsSettings,
    /// The SYNs.
    pub syns: Syns,
}

/// SYNs of one client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientReading {
    /// Inode number of the network namespace of the service.
    pub netns: u32,
    /// Its address.
    pub client: std::net::IpAddr,
    /// The SYNs.
    pub syns: Syns,
}

/// To this `net.netfilter.nf_conntrack_tcp_timeout_close` falls, seconds; the kernel's is 10.
pub(super) const SHORT_CLOSE_TIMEOUT: u64 = 1;

/// With fewer drops than this of one kind nothing is said of the kernel.
const ENOUGH_TO_TELL: u64 = 3;

impl Reading {
    /// A process in a network namespace with services that is not the agent's own.
    pub fn process_in(&self, netns: u32) -> Option<u32> {
        let own = self.netns;
        let mut others = self.namespaces.iter().filter(|it| Some(it.netns) != own);
        others.find(|it| it.netns == netns).map(|it| it.pid)
    }

    /// UDP flows on drained and on removed destinations. Where they could not be listed, IPVS
    /// still says how many stand on drained ones.
    pub(super) fn udp_flows(&self) -> [(&'static str, Flows); 2] {
        let unread = |it: &&NamespaceReading| self.udp.unread.contains_key(&it.netns);
        let [(drained, mut flows), removed] = self.udp.flows();
        for namespace in self.namespaces.iter().filter(unread) {
            let all = namespace.scan.drained_udp_flows;
            flows.unknown += all.saturating_sub(self.udp.drained_in(namespace.netns));
        }
        [(drained, flows), removed]
    }

    /// Finds the pods behind clients, destinations and namespaces.
    pub(super) fn identify(&mut self, directory: &Directory) {
        let probed = self.probed.iter();
        let clients = probed
            .clone()
            .flat_map(|it| it.clients.iter().chain(&it.top_clients));
        let services = probed.flat_map(|it| &it.top_services);
        let destinations = services
            .clone()
            .flat_map(|it| [Some(it.old_destination), it.new_destination])
            .flatten();
        let udp = self.udp.destinations.iter();
        let of_udp = udp
            .clone()
            .flat_map(|it| it.clients.iter().chain([&it.destination]))
            .map(SocketAddr::ip);
        let dropped = self.probed.iter().flat_map(|it| &it.dropped.top);
        let of_dropped = dropped
            .clone()
            .flat_map(|it| [it.client.ip(), it.destination.ip()]);
        let addresses = clients
            .map(|it| it.client)
            .chain(destinations.map(|it| it.ip()))
            .chain(of_udp)
            .chain(of_dropped);
        let of_services = services
            .map(|it| it.netns)
            .chain(udp.map(|it| it.netns))
            .chain(dropped.map(|it| it.netns))
            .map(|it| (it, None));
        let tables = self.namespaces.iter().map(|it| (it.netns, Some(it.pid)));
        let namespaces = of_services.chain(tables);
        self.neighbours = Neighbours::find(directory, addresses, namespaces);
    }

    /// Events that the probes lost since the agent began, by reason.
    pub fn lost_events(&self) -> Vec<(String, u64)> {
        self.probed
            .as_ref()
            .map(|probed| probed.lost.clone())
            .unwrap_or_default()
    }
}

/// The running measurement.
#[derive(Debug)]
pub struct Measurement {
    baseline: Baseline,
    probed: Result<Probed, Missing>,
    missing: Vec<ProbeReport>,
}

impl Measurement {
    /// Attaches what the plan names, as far as the kernel lets it.
    pub(super) fn attach(
        plan: Plan,
        settings: &Settings,
        sweepers: &Sweepers,
    ) -> anyhow::Result<Self> {
        sweepers.limit(settings.sweep_limits());
        let baseline = Baseline::new(settings, sweepers.clone());
        let probed = Probed::attach(&plan, settings).map_err(|error| Missing::all_probes(&error));
        let missing = match &probed {
            Ok(_) => Vec::new(),
            Err(why) => plan
                .probes()
                .map(|planned| ProbeReport::not_measured(planned.probe.name, why))
                .collect(),
        };
        let mut measurement = Self {
            baseline,
            probed,
            missing,
        };
        // Which UDP flows are in use, and what IPVS drops, takes two looks: `check` has one more.
        if let Err(error) = measurement.measure(Duration::ZERO) {
            tracing::debug!("the first look, before any reading: {error:#}");
        }
        Ok(measurement)
    }

    pub(super) fn probes(&self) -> Vec<ProbeReport> {
        let attached = self.probed.iter().flat_map(Probed::reports);
        attached.chain(self.missing.iter().cloned()).collect()
    }

    pub(super) fn measure(&mut self, window: Duration) -> anyhow::Result<Reading> {
        let mut reading = self.baseline.read(window)?;
        if let Ok(probed) = &mut self.probed {
            reading.probed = probed.read(&reading.namespaces, &mut reading.udp)?;
        }
        Ok(reading)
    }

    pub(super) fn idle(&self) -> bool {
        self.probed.as_ref().is_ok_and(Probed::idle)
    }

    pub(super) fn programs(&self) -> Vec<ProgramStats> {
        self.probed.iter().flat_map(Probed::programs).collect()
    }
}

impl ProbedReading {
    /// Whether SYNs were dropped for connections that their servers may have reset.
    ///
    /// A reset leaves IPVS and conntrack in CLOSE without a FIN, and that conntrack entry no SYN
    /// may reopen (nf_conntrack_proto_tcp.c, `nf_conntrack_tcp_packet`). Where the old destination
    /// is drained or gone, a reset is not told from other ends.
    pub fn may_be_reset(&self) -> bool {
        let dropped = |reason| self.recent.of(Outcome::Dropped, reason);
        dropped(Reason::Close) + dropped(Reason::WeightZero) + dropped(Reason::DestinationGone) > 0
    }

    /// Whether the kernel drops what a fixed one schedules anew: a SYN that meets a
    /// connection which both sides have finished. By behaviour, for distributions backport.
    pub fn drops_every_reuse(&self) -> bool {
        let finished = |outcome| self.total.of(outcome, Reason::TimeWait);
        let dropped = finished(Outcome::Dropped);
        dropped >= ENOUGH_TO_TELL && dropped > 10 * finished(Outcome::Rescheduled)
    }
}
