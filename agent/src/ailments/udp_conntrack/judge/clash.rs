//! Two packets want an equal entry at once, and the later one is dropped.

use ebpf::udp_conntrack::Refusal;

use super::{CLASH, NAMED, Reading, counted, per_second, refused_elsewhere};
use crate::{
    ailments::udp_conntrack::{advice, measure::RefusedFlowReading},
    model::{Evidence, Finding, Party, Severity},
};

/// Packets were lost. Those that went on with the other packet's entry harm nobody.
pub(super) fn clash(reading: &Reading) -> Option<Finding> {
    let own = own(reading);
    let elsewhere = refused_elsewhere(reading, |refusals| refusals.clash_lost);
    let lost = own + elsewhere.iter().map(|(_, count)| count).sum::<u64>();
    if lost == 0 {
        return None;
    }
    let rate = per_second(reading, lost);
    let mut evidence: Vec<_> = counted("insert_failed", own).into_iter().collect();
    evidence.extend(elsewhere.iter().map(|(_, count)| Evidence {
        metric: "nodemedic_conntrack_refused_total{reason=\"clash_lost\"} in the window".to_owned(),
        value: *count as f64,
        limit: Some(0.0),
    }));
    Some(Finding {
        kind: CLASH.to_owned(),
        // A sender that loses a packet sends it again: TCP after 1 s, a resolver after 5 s.
        severity: Severity::Warning,
        summary: format!(
            "{rate:.1} packets a second are lost in a race: another packet had inserted an equal \
             entry into the connection tracking table ({lost} in {:.0} s)",
            reading.window_seconds
        ),
        evidence,
        culprits: Vec::new(),
        victims: victims(reading, own, &elsewhere),
        remedies: advice::against_clashes(reading),
        follows_load: false,
    })
}

/// Lost in the agent's own network namespace: by the kernel's counters, else by the probe.
fn own(reading: &Reading) -> u64 {
    let probed = || {
        let mut netns = reading.probed.iter().flat_map(|it| &it.refused.netns);
        let (_, refusals) = netns.find(|(netns, _)| *netns == reading.netns)?;
        refusals.clash_lost
    };
    // Without `drop` a failed insertion may have lost no packet.
    let drops = &reading.window_drops;
    let counted = drops.drop.and(drops.clash_lost());
    counted
        .map(|lost| lost.min(drops.drop.unwrap_or(lost)))
        .or_else(probed)
        .unwrap_or(0)
}

fn victims(reading: &Reading, own: u64, elsewhere: &[(u32, u64)]) -> Vec<Party> {
    let flows = flows(reading, Refusal::ClashLost);
    if !flows.is_empty() {
        return flows;
    }
    let own = std::iter::once((reading.netns, own)).filter(|(_, count)| *count > 0);
    own.chain(elsewhere.iter().copied())
        .map(|(netns, count)| Party {
            who: format!(
                "new connections in network namespace {}",
                reading.neighbours.netns(netns)
            ),
            share: format!("{count} packets lost; no probe knows their source"),
        })
        .collect()
}

/// The flows that were refused so, most first.
pub(super) fn flows(reading: &Reading, refusal: Refusal) -> Vec<Party> {
    let flows = reading.probed.iter().flat_map(|it| &it.refused.flows);
    let flows = flows.filter(|flow| flow.refusal == refusal.name());
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
    flows.filter_map(party).take(NAMED).collect()
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
