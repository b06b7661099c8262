//! Looks at the list of connections, only where flows may be on a drained or removed
//! destination: the kernel walks its whole table for each page of that list.

use std::{
    collections::{BTreeMap, HashMap},
    io, mem,
    time::{Duration, Instant},
};

use super::{DestinationState, UdpReading, flows::Memory};
use crate::{
    ailments::ipvs_conn_reuse::{Settings, measure::NamespaceReading},
    kernel::ipvs::{Connection, Fate, Protocol, SHARE, UdpServices, connections},
};

/// Flows that are counted, for each that is remembered: they take memory for a moment alone.
const LISTED: usize = 16;

/// Looks when they are due, and keeps the last.
#[derive(Debug)]
pub(in super::super) struct Watch {
    interval: Duration,
    limit: Duration,
    linger: Duration,
    capacity: usize,
    next: Instant,
    /// Whether nothing was read yet.
    is_first: bool,
    services: HashMap<u32, Change>,
    memory: Memory,
    last: UdpReading,
}

/// The UDP services of a namespace.
#[derive(Clone, Copy, Debug)]
struct Change {
    fingerprint: u64,
    /// When they changed last, or were first seen.
    at: Instant,
}

impl Watch {
    pub(in super::super) fn new(settings: &Settings) -> Self {
        let capacity = settings.max_udp_flows as usize;
        // A flow is seen to be in use at the second look after the first.
        let window = settings.window.max(3 * settings.scan_interval);
        Self {
            interval: settings.scan_interval,
            limit: settings.scan_timeout,
            linger: settings.trace_linger,
            capacity,
            next: Instant::now(),
            is_first: true,
            services: HashMap::new(),
            memory: Memory::new(window, capacity),
            last: UdpReading::default(),
        }
    }

    /// The flows as of the last look, which is taken anew where it is due.
    pub(in super::super) fn read(&mut self, namespaces: &[NamespaceReading]) -> UdpReading {
        let began = Instant::now();
        let is_first = mem::replace(&mut self.is_first, false);
        let wanted: Vec<_> = namespaces
            .iter()
            .filter(|namespace| self.wants(namespace, began))
            .collect();
        self.services
            .retain(|netns, _| namespaces.iter().any(|it| it.netns == *netns));
        if wanted.is_empty() {
            self.last = UdpReading::default();
            return self.last.clone();
        }
        if began < self.next {
            return self.last.clone();
        }
        self.last = self.look(&wanted, began, is_first);
        self.next = Instant::now() + self.interval.max(began.elapsed() * SHARE);
        self.last.clone()
    }

    /// Whether flows of a namespace may be on a drained or removed destination. Where it is set
    /// to expire those to removed ones, the next datagram ends them.
    fn wants(&mut self, namespace: &NamespaceReading, now: Instant) -> bool {
        let fingerprint = namespace.scan.udp_fingerprint;
        let change = Change {
            fingerprint,
            at: now,
        };
        let known = self.services.entry(namespace.netns).or_insert(change);
        if known.fingerprint != fingerprint {
            *known = change;
        }
        let changed = now.duration_since(known.at) < self.linger;
        let stand = self.last.destinations.iter();
        let mut stand = stand.filter(|it| it.netns == namespace.netns);
        let may_stand = changed || stand.any(|it| it.state == DestinationState::Removed);
        namespace.scan.drained_udp_flows > 0 || may_stand && keeps_removed(namespace)
    }

    fn look(&mut self, wanted: &[&NamespaceReading], began: Instant, is_first: bool) -> UdpReading {
        let until = began + self.limit;
        let (mut destinations, mut unread) = (Vec::new(), BTreeMap::new());
        let mut all_listed = true;
        self.memory.begin(is_first);
        for namespace in wanted {
            let limit = LISTED * self.capacity;
            match list(namespace, until, limit) {
                Ok(listed) => {
                    if listed.len() == limit {
                        let why = format!("the agent reads at most {limit} such flows");
                        unread.insert(namespace.netns, why);
                    }
                    destinations.extend(self.memory.look(namespace.netns, began, &listed));
                }
                Err(error) => {
                    all_listed = false;
                    unread.insert(namespace.netns, error.to_string());
                }
            }
        }
        // What could not be listed is not forgotten.
        if all_listed {
            self.memory.end();
        }
        UdpReading::of(destinations, unread)
    }
}

/// Whether IPVS goes on dropping the datagrams of flows to removed destinations.
pub(super) fn keeps_removed(namespace: &NamespaceReading) -> bool {
    namespace.settings.expire_nodest_conn != Some(1)
}

/// The flows of a namespace on drained and removed destinations.
fn list(
    namespace: &NamespaceReading,
    until: Instant,
    limit: usize,
) -> io::Result<Vec<(Connection, DestinationState)>> {
    let process = namespace.pid.to_string();
    let state = |services: &UdpServices, flow: &Connection| match services
        .fate(flow.service, flow.destination)
    {
        Fate::Drained { translated: true } => Some(DestinationState::Drained),
        Fate::Drained { translated: false } => Some(DestinationState::DrainedUntranslated),
        Fate::Removed if keeps_removed(namespace) => Some(DestinationState::Removed),
        Fate::Removed | Fate::Serving | Fate::Unknown => None,
    };
    let services = UdpServices::read(&process, until)?;
    let mut candidates = Vec::new();
    connections(&process, Protocol::Udp, Some(until), |flow| {
        if state(&services, &flow).is_some() {
            candidates.push(flow);
        }
        candidates.len() < limit
    })?;
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    // Once more: a destination that came after the services were read has flows already.
    let services = UdpServices::read(&process, until)?;
    let listed = candidates.into_iter();
    Ok(listed
        .filter_map(|flow| Some((flow, state(&services, &flow)?)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ailments::ipvs_conn_reuse::measure::VsSettings, kernel::ipvs::Scan};

    fn namespace(
        expire_nodest_conn: Option<u64>,
        drained: u64,
        fingerprint: u64,
    ) -> NamespaceReading {
        NamespaceReading {
            netns: 7,
            pid: 1,
            scan: Scan {
                services: 1,
                destinations: 2,
                drained_udp_flows: drained,
                udp_fingerprint: fingerprint,
                complete: true,
                ..Scan::default()
            },
            settings: VsSettings {
                expire_nodest_conn,
                ..VsSettings::default()
            },
        }
    }

    fn watch() -> Watch {
        Watch::new(&Settings::default())
    }

    #[test]
    fn the_list_is_left_alone_while_all_destinations_serve() {
        let now = Instant::now();
        let mut watch = watch();
        assert!(!watch.wants(&namespace(Some(1), 0, 1), now), "it began");
        let changed = namespace(Some(1), 0, 2);
        assert!(!watch.wants(&changed, now), "IPVS ends such flows itself");
        // The same where flows are kept, once the last change is long ago.
        let kept = namespace(Some(0), 0, 2);
        let later = now + Settings::default().trace_linger;
        assert!(!watch.wants(&kept, later));
    }

    #[test]
    fn the_list_is_read_for_drained_flows_and_after_a_change_where_flows_are_kept() {
        let now = Instant::now();
        let later = now + Settings::default().trace_linger;
        let mut watch = watch();
        assert!(
            watch.wants(&namespace(Some(1), 1, 1), now),
            "one is drained"
        );
        for setting in [Some(0), None] {
            assert!(watch.wants(&namespace(setting, 0, 1), now), "it began");
        }
        assert!(!watch.wants(&namespace(Some(0), 0, 1), later));
        assert!(watch.wants(&namespace(Some(0), 0, 2), later), "it changed");
    }
}
