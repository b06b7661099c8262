//! Refusals of one kind in the window: in the agent's own network namespace and in others, and who
//! met them.

use ebpf::udp_conntrack::Refusal;

use super::{NAMED, Reading, counted, new_connections};
use crate::{
    ailments::udp_conntrack::measure::RefusedFlowReading,
    model::{Evidence, Party},
};

pub(super) struct Refused {
    kind: Refusal,
    /// In the agent's own network namespace.
    pub(super) own: u64,
    /// In each other one where there were any, by the probes.
    pub(super) elsewhere: Vec<(u32, u64)>,
}

impl Refused {
    /// As the kernel counts them in the agent's own network namespace, or else the probe.
    pub(super) fn of(reading: &Reading, kind: Refusal, counter: Option<u64>) -> Self {
        let probed = reading.probed.iter().flat_map(|it| &it.refused.netns);
        let probed = probed.filter_map(|(netns, refusals)| Some((*netns, refusals.get(kind)?)));
        let (own, others): (Vec<_>, Vec<_>) = probed
            .filter(|(_, count)| *count > 0)
            .partition(|(netns, _)| *netns == reading.netns);
        let own = || own.first().map(|(_, count)| *count);
        Self {
            kind,
            own: counter.or_else(own).unwrap_or(0),
            elsewhere: others,
        }
    }

    pub(super) fn total(&self) -> u64 {
        self.own + self.elsewhere.iter().map(|(_, count)| count).sum::<u64>()
    }

    /// The counter of the agent's own network namespace by its name, and those of the probes.
    pub(super) fn evidence(&self, counter: &str) -> Vec<Evidence> {
        let elsewhere = self.elsewhere.iter().map(|(_, count)| Evidence {
            metric: format!(
                "nodemedic_conntrack_refused_total{{reason={:?}}} in the window",
                self.kind.name()
            ),
            value: *count as f64,
            limit: Some(0.0),
        });
        counted(counter, self.own)
            .into_iter()
            .chain(elsewhere)
            .collect()
    }

    /// Each network namespace with what its new connections met.
    pub(super) fn by_namespace(
        &self,
        reading: &Reading,
        share: impl Fn(u64) -> String,
    ) -> Vec<Party> {
        let own = std::iter::once((reading.netns, self.own)).filter(|(_, count)| *count > 0);
        own.chain(self.elsewhere.iter().copied())
            .map(|(netns, count)| Party {
                who: new_connections(reading, netns),
                share: share(count),
            })
            .collect()
    }

    /// The flows that were refused so, most first; where no probe knows them, the network
    /// namespaces.
    pub(super) fn by_flow(&self, reading: &Reading, share: impl Fn(u64) -> String) -> Vec<Party> {
        let flows = reading.probed.iter().flat_map(|it| &it.refused.flows);
        let flows = flows.filter(|flow| flow.refusal == self.kind.name());
        let party = |flow: &RefusedFlowReading| {
            let neighbours = &reading.neighbours;
            Some(Party {
                who: format!(
                    "source {} to {} in network namespace {}",
                    neighbours.address(flow.source?),
                    destination(flow),
                    neighbours.netns(flow.netns)
                ),
                share: format!("{} connections refused", flow.refused),
            })
        };
        let flows: Vec<_> = flows.filter_map(party).take(NAMED).collect();
        if flows.is_empty() {
            self.by_namespace(reading, share)
        } else {
            flows
        }
    }
}

fn destination(flow: &RefusedFlowReading) -> String {
    let protocol = match flow.protocol {
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        132 => "SCTP".to_owned(),
        other => format!("protocol {other}"),
    };
    match flow.port {
        0 => format!("ephemeral ports ({protocol})"),
        53 => format!("port 53 (DNS, {protocol})"),
        port => format!("port {port} ({protocol})"),
    }
}
