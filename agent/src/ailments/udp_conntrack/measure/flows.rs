//! Who makes entries. The kernel's map forgets the least used flows when it is
//! full; what is kept here never goes back, so that counters only rise.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use ebpf::udp_conntrack::{Flow, FlowCounts};
use serde::{Deserialize, Serialize};

/// A flow that has made nothing for this long gives up its place in the metrics
/// when another wants it.
const IDLE: Duration = Duration::from_secs(600);

/// Flows of the window that a report names.
const TOP: usize = 20;

/// Counts of one flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowReading {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Destination port; 0 for all from 32,768 on.
    pub port: u16,
    /// Source address.
    pub source: IpAddr,
    /// Entries made.
    pub created: u64,
}

/// What is known of all flows.
#[derive(Debug)]
pub(super) struct Flows {
    /// Counts of the kernel's map at the last tick.
    seen: HashMap<Flow, FlowCounts>,
    shown: HashMap<Flow, Shown>,
    places: usize,
    other: u64,
    attributed: u64,
    forgotten: u64,
}

#[derive(Debug)]
struct Shown {
    created: u64,
    active: Instant,
}

impl Flows {
    pub(super) fn new(places: usize) -> Self {
        Self {
            seen: HashMap::new(),
            shown: HashMap::new(),
            places,
            other: 0,
            attributed: 0,
            forgotten: 0,
        }
    }

    /// Takes in the kernel's map as it is now, and returns the flows that made most
    /// since the last time.
    pub(super) fn update(
        &mut self,
        now: Instant,
        map: impl Iterator<Item = (Flow, FlowCounts)>,
    ) -> Vec<FlowReading> {
        let seen: HashMap<_, _> = map.collect();
        let mut made: Vec<_> = seen
            .iter()
            .map(|(flow, counts)| (*flow, made(counts, self.seen.get(flow))))
            .filter(|(_, made)| *made > 0)
            .collect();
        self.seen = seen;
        made.sort_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
        for (flow, made) in &made {
            self.count(now, *flow, *made);
        }
        made.truncate(TOP);
        made.into_iter()
            .map(|(flow, created)| reading(&flow, created))
            .collect()
    }

    fn count(&mut self, now: Instant, flow: Flow, made: u64) {
        self.attributed += made;
        if self.shown.contains_key(&flow) || self.find_place(now) {
            let shown = self.shown.entry(flow).or_insert(Shown {
                created: 0,
                active: now,
            });
            shown.created += made;
            shown.active = now;
        } else {
            self.other += made;
        }
    }

    /// Whether one more flow can be shown, making room for it if need be.
    fn find_place(&mut self, now: Instant) -> bool {
        if self.shown.len() < self.places {
            return true;
        }
        let idlest = self.shown.iter().min_by_key(|(_, shown)| shown.active);
        let Some((idlest, _)) = idlest.filter(|(_, shown)| now - shown.active >= IDLE) else {
            return false;
        };
        let idlest = *idlest;
        self.shown.remove(&idlest);
        true
    }

    /// The flows that metrics show.
    pub(super) fn shown(&self) -> Vec<FlowReading> {
        let mut shown: Vec<_> = self
            .shown
            .iter()
            .map(|(flow, shown)| (*flow, shown.created))
            .collect();
        shown.sort_unstable_by_key(|(flow, _)| *flow);
        shown
            .into_iter()
            .map(|(flow, created)| reading(&flow, created))
            .collect()
    }

    /// Creations in no flow that was ever shown, out of all that there were:
    /// those of flows without a place, and those that the kernel's map forgot
    /// before they were read. It never falls, however the two were read.
    pub(super) fn other(&mut self, created: u64) -> u64 {
        self.forgotten = self.forgotten.max(created.saturating_sub(self.attributed));
        self.other + self.forgotten
    }
}

/// What a flow made since the last tick. Fewer than then: the map had forgotten it
/// in between, and it began anew.
fn made(now: &FlowCounts, before: Option<&FlowCounts>) -> u64 {
    let before = before.map_or(0, |before| before.created);
    now.created.checked_sub(before).unwrap_or(now.created)
}

fn reading(flow: &Flow, created: u64) -> FlowReading {
    FlowReading {
        netns: flow.netns,
        port: flow.port,
        source: source(flow),
        created,
    }
}

/// The address, as its family says it is to be read.
fn source(flow: &Flow) -> IpAddr {
    if i32::from(flow.family) == libc::AF_INET6 {
        return Ipv6Addr::from(flow.source).into();
    }
    let [a, b, c, d, ..] = flow.source;
    Ipv4Addr::new(a, b, c, d).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(last: u8) -> Flow {
        let mut source = [0; 16];
        source[..4].copy_from_slice(&[10, 0, 0, last]);
        Flow {
            netns: 1,
            family: libc::AF_INET as u16,
            port: 53,
            source,
        }
    }

    fn counts(created: u64) -> FlowCounts {
        FlowCounts {
            created,
            ..FlowCounts::default()
        }
    }

    #[test]
    fn counts_are_differences_and_the_most_active_come_first() {
        let (mut flows, now) = (Flows::new(10), Instant::now());
        flows.update(now, [(flow(1), counts(5))].into_iter());
        let top = flows.update(
            now,
            [(flow(1), counts(7)), (flow(2), counts(3))].into_iter(),
        );
        let made: Vec<_> = top.iter().map(|flow| (flow.source, flow.created)).collect();
        assert_eq!(
            made,
            [
                (IpAddr::from([10, 0, 0, 2]), 3),
                (IpAddr::from([10, 0, 0, 1]), 2)
            ]
        );
        assert_eq!(flows.shown()[0].created, 7);
    }

    #[test]
    fn a_flow_that_the_map_forgot_counts_on_from_where_it_was() {
        let (mut flows, now) = (Flows::new(10), Instant::now());
        flows.update(now, [(flow(1), counts(5))].into_iter());
        flows.update(now, [(flow(1), counts(2))].into_iter());
        assert_eq!(flows.shown()[0].created, 7);
    }

    #[test]
    fn what_has_no_place_is_other_and_all_add_up() {
        let (mut flows, now) = (Flows::new(1), Instant::now());
        flows.update(
            now,
            [(flow(1), counts(5)), (flow(2), counts(3))].into_iter(),
        );
        // Two more were made by flows that the map forgot before this tick.
        assert_eq!(flows.shown().len(), 1);
        assert_eq!(flows.shown()[0].created + flows.other(10), 10);
    }

    #[test]
    fn an_idle_flow_gives_its_place_up_and_an_active_one_does_not() {
        let (mut flows, begin) = (Flows::new(1), Instant::now());
        flows.update(begin, [(flow(1), counts(5))].into_iter());
        flows.update(
            begin + IDLE / 2,
            [(flow(1), counts(5)), (flow(2), counts(1))].into_iter(),
        );
        assert_eq!(flows.shown()[0].source, IpAddr::from([10, 0, 0, 1]));
        flows.update(
            begin + IDLE,
            [(flow(1), counts(5)), (flow(2), counts(3))].into_iter(),
        );
        let shown = flows.shown();
        // What it had made before it got the place stays in `other`.
        assert_eq!(
            (shown[0].source, shown[0].created),
            (IpAddr::from([10, 0, 0, 2]), 2)
        );
        assert_eq!(flows.other(8), 1);
    }

    #[test]
    fn what_was_other_once_stays_so() {
        let (mut flows, now) = (Flows::new(10), Instant::now());
        flows.update(now, [(flow(1), counts(5))].into_iter());
        assert_eq!(flows.other(7), 2);
        // Two more were made between the two reads.
        flows.update(now, [(flow(1), counts(9))].into_iter());
        assert_eq!(flows.other(9), 2);
    }
}
