//! The table has no room: packets are dropped, or entries of others evicted.

use super::{
    Reading, TABLE_FULL, Table, advice, counted, culprits, refused_elsewhere, tightest, usage,
};
use crate::{
    ailments::udp_conntrack::room::Room,
    model::{Evidence, Finding, Party, Severity},
};

/// Drops were seen in the window, or a table has no room left.
pub(super) fn full(reading: &Reading) -> Option<Finding> {
    let refused = Refused::of(reading);
    let tight = tightest(reading);
    let no_room = tight
        .as_ref()
        .is_some_and(|table| table.entries >= table.limit);
    if refused.none() && !no_room {
        return None;
    }
    let mut evidence: Vec<_> = counted("drop", refused.dropped)
        .into_iter()
        .chain(counted("early_drop", refused.evicted))
        .collect();
    evidence.extend(refused.elsewhere.iter().map(|(_, count)| Evidence {
        metric: "nodemedic_conntrack_refused_total{reason=\"table_full\"} in the window".to_owned(),
        value: *count as f64,
        limit: Some(0.0),
    }));
    evidence.extend(tight.as_ref().map(usage));
    Some(Finding {
        kind: TABLE_FULL.to_owned(),
        severity: Severity::Critical,
        summary: refused.summary(reading),
        evidence,
        culprits: culprits(reading),
        victims: victims(reading, &refused, tight.as_ref().filter(|_| no_room)),
        remedies: advice(reading),
        follows_load: false,
    })
}

/// What full tables did in the window.
struct Refused {
    /// Packets dropped in the agent's own network namespace.
    dropped: u64,
    /// Entries evicted there.
    evicted: u64,
    /// Packets dropped in other network namespaces.
    elsewhere: Vec<(u32, u64)>,
}

impl Refused {
    fn of(reading: &Reading) -> Self {
        let probed = reading.probed.iter().flat_map(|it| &it.refused.netns);
        let own = || {
            let mut own = probed.clone().filter(|(netns, _)| *netns == reading.netns);
            own.next().and_then(|(_, refusals)| refusals.table_full)
        };
        let counters = &reading.window_drops;
        Self {
            dropped: counters.for_want_of_room().or_else(own).unwrap_or(0),
            evicted: counters.early_drop.unwrap_or(0),
            elsewhere: refused_elsewhere(reading, |refusals| refusals.table_full),
        }
    }

    fn none(&self) -> bool {
        self.dropped == 0 && self.evicted == 0 && self.elsewhere.is_empty()
    }

    fn summary(&self, reading: &Reading) -> String {
        let elsewhere: u64 = self.elsewhere.iter().map(|(_, count)| count).sum();
        let dropped = self.dropped + elsewhere;
        let why = Room::of(reading).why_nothing_is_evicted();
        let why = why.map_or_else(String::new, |why| format!("; {why}"));
        match (dropped, self.evicted) {
            (0, 0) => format!("the connection tracking table has no room left{why}"),
            (0, evicted) => format!(
                "the connection tracking table is full: the kernel evicted {evicted} entries of \
                 other flows"
            ),
            (dropped, _) => format!(
                "the connection tracking table is full: the kernel dropped {dropped} packets \
                 without an entry{why}"
            ),
        }
    }
}

fn victims(reading: &Reading, refused: &Refused, no_room: Option<&Table>) -> Vec<Party> {
    let new = |netns| {
        format!(
            "new connections in network namespace {}",
            reading.neighbours.netns(netns)
        )
    };
    let own = (reading.netns, refused.dropped);
    let dropped = std::iter::once(own).filter(|(_, dropped)| *dropped > 0);
    let mut victims: Vec<_> = dropped
        .chain(refused.elsewhere.iter().copied())
        .map(|(netns, dropped)| Party {
            who: new(netns),
            share: format!("{dropped} packets dropped"),
        })
        .collect();
    if refused.evicted > 0 {
        victims.push(Party {
            who: format!(
                "flows that are not assured in network namespace {}",
                reading.neighbours.netns(reading.netns)
            ),
            share: format!("{} lost their entry, and with it NAT", refused.evicted),
        });
    }
    if let (true, Some(table)) = (victims.is_empty(), no_room) {
        victims.push(Party {
            who: new(table.netns),
            share: "each evicts another entry, or is dropped".to_owned(),
        });
    }
    victims
}
