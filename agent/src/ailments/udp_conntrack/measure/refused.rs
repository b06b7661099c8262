//! Connections that the table refuses, by flow and by network namespace.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use ebpf::udp_conntrack::{Refusal, RefusedFlow};
use serde::{Deserialize, Serialize};

use crate::ailments::address::address;

/// Flows that a reading names.
const NAMED: usize = 20;

/// What the probes counted of refused connections.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RefusedReading {
    /// Of all network namespaces since the agent began.
    pub total: Refusals,
    /// Of each network namespace in the window, by its inode number.
    pub netns: Vec<(u32, Refusals)>,
    /// The flows with most refusals in the window, most first.
    pub flows: Vec<RefusedFlowReading>,
}

/// Numbers of connections by what became of them; `None` where no probe counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// See [`Refusal::TableFull`]
    pub table_full: Option<u64>,
    /// See [`Refusal::NotInserted`]
    pub not_inserted: Option<u64>,
    /// See [`Refusal::ClashLost`]
    pub clash_lost: Option<u64>,
    /// See [`Refusal::ClashResolved`]
    pub clash_resolved: Option<u64>,
}

/// A flow with its refusals of one kind in the window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedFlowReading {
    /// The name of a [`Refusal`].
    pub refusal: String,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Number of the protocol; 0 where the table was full, which does not tell it.
    pub protocol: u16,
    /// Source address before translation, where it is known.
    pub source: Option<IpAddr>,
    /// Destination port; 0 for all from 32,768 on, or where it is not known.
    pub port: u16,
    /// Refusals.
    pub refused: u64,
}

/// Which refusals the attached probes count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    /// The probe `early_drops`.
    pub(super) room: bool,
    /// The probe `creations`.
    pub(super) insertions: bool,
}

/// Counts of the kernel's map at the last tick.
#[derive(Debug, Default)]
pub(super) struct Refused(HashMap<RefusedFlow, u64>);

type Counts = [u64; Refusal::ALL.len()];

impl Refused {
    /// Takes in the kernel's map as it is now.
    pub(super) fn update(
        &mut self,
        total: Counts,
        map: impl Iterator<Item = (RefusedFlow, u64)>,
        counted: Counted,
    ) -> RefusedReading {
        let now: HashMap<_, _> = map.collect();
        let mut new: Vec<_> = now
            .iter()
            .map(|(flow, refused)| (*flow, self.since(flow, *refused)))
            .filter(|(_, refused)| *refused > 0)
            .collect();
        self.0 = now;
        new.sort_by(|(a, m), (b, n)| n.cmp(m).then_with(|| a.cmp(b)));
        let mut netns = BTreeMap::<u32, Counts>::new();
        for (flow, refused) in &new {
            let counts = netns.entry(flow.flow.netns).or_default();
            if let Some(count) = counts.get_mut(usize::from(flow.refusal)) {
                *count += refused;
            }
        }
        RefusedReading {
            total: Refusals::of(total, counted),
            netns: netns
                .into_iter()
                .map(|(netns, counts)| (netns, Refusals::of(counts, counted)))
                .collect(),
            flows: new.into_iter().take(NAMED).filter_map(reading).collect(),
        }
    }

    /// A full map evicts flows, and one that comes back counts from 0 on.
    fn since(&self, flow: &RefusedFlow, now: u64) -> u64 {
        let before = self.0.get(flow).copied().unwrap_or(0);
        now.checked_sub(before).unwrap_or(now)
    }
}

impl Refusals {
    fn of(counts: Counts, counted: Counted) -> Self {
        let count = |refusal: Refusal, counted: bool| counted.then(|| counts[refusal as usize]);
        Self {
            table_full: count(Refusal::TableFull, counted.room),
            not_inserted: count(Refusal::NotInserted, counted.insertions),
            clash_lost: count(Refusal::ClashLost, counted.insertions),
            clash_resolved: count(Refusal::ClashResolved, counted.insertions),
        }
    }

    /// Those of one kind.
    pub(in crate::ailments::udp_conntrack) fn get(self, kind: Refusal) -> Option<u64> {
        match kind {
            Refusal::TableFull => self.table_full,
            Refusal::NotInserted => self.not_inserted,
            Refusal::ClashLost => self.clash_lost,
            Refusal::ClashResolved => self.clash_resolved,
        }
    }

    /// Each with the value of its label.
    pub(in crate::ailments::udp_conntrack) fn by_name(self) -> [(&'static str, Option<u64>); 4] {
        Refusal::ALL.map(|kind| (kind.name(), self.get(kind)))
    }
}

fn reading((refused, count): (RefusedFlow, u64)) -> Option<RefusedFlowReading> {
    let RefusedFlow {
        flow,
        refusal,
        protocol,
    } = refused;
    Some(RefusedFlowReading {
        refusal: Refusal::ALL.get(usize::from(refusal))?.name().to_owned(),
        netns: flow.netns,
        protocol,
        source: (flow.family != 0).then(|| address(flow.family, flow.source)),
        port: flow.port,
        refused: count,
    })
}

#[cfg(test)]
mod tests {
    use ebpf::udp_conntrack::Flow;

    use super::*;

    const ALL: Counted = Counted {
        room: true,
        insertions: true,
    };

    fn flow(netns: u32, refusal: Refusal) -> RefusedFlow {
        RefusedFlow {
            flow: Flow {
                netns,
                family: libc::AF_INET as u16,
                port: 53,
                source: [10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            },
            refusal: refusal as u16,
            protocol: 17,
        }
    }

    #[test]
    fn refusals_of_the_window_are_summed_by_namespace_and_named_by_flow() {
        let mut refused = Refused::default();
        let (lost, full) = (flow(7, Refusal::ClashLost), flow(9, Refusal::TableFull));
        refused.update([0; 4], [(lost, 5), (full, 1)].into_iter(), ALL);
        let reading = refused.update([1, 0, 12, 0], [(lost, 12), (full, 1)].into_iter(), ALL);
        assert_eq!(reading.total.clash_lost, Some(12));
        let [(7, refusals)] = reading.netns[..] else {
            panic!("{reading:?}")
        };
        assert_eq!(
            (refusals.clash_lost, refusals.table_full),
            (Some(7), Some(0))
        );
        let [named] = &reading.flows[..] else {
            panic!("{reading:?}")
        };
        assert_eq!((named.refusal.as_str(), named.refused), ("clash_lost", 7));
        assert_eq!(named.source, Some(IpAddr::from([10, 0, 0, 1])));
    }

    #[test]
    fn a_flow_that_the_map_had_evicted_counts_from_zero_on() {
        let mut refused = Refused::default();
        let lost = flow(7, Refusal::ClashLost);
        refused.update([0; 4], [(lost, 50)].into_iter(), ALL);
        let reading = refused.update([0; 4], [(lost, 3)].into_iter(), ALL);
        assert_eq!(reading.flows[0].refused, 3);
    }

    #[test]
    fn what_no_probe_counts_is_unknown_and_not_zero() {
        let only_room = Counted {
            room: true,
            insertions: false,
        };
        let reading = Refused::default().update([4, 0, 0, 0], std::iter::empty(), only_room);
        assert_eq!(reading.total.table_full, Some(4));
        assert_eq!(reading.total.clash_lost, None);
    }
}
