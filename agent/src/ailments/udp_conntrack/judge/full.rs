//! The table has no room: packets are dropped, or entries of others evicted.

use ebpf::udp_conntrack::Refusal;

use super::{
    Reading, TABLE_FULL, Table, advice, counted, culprits, new_connections, refused::Refused,
    tightest, usage,
};
use crate::{
    ailments::udp_conntrack::room::Room,
    model::{Finding, Party, Severity},
};

/// Drops were seen in the window, or a table has no room left.
pub(super) fn full(reading: &Reading) -> Option<Finding> {
    let counter = reading.window_drops.for_want_of_room();
    let dropped = Refused::of(reading, Refusal::TableFull, counter);
    let evicted = reading.window_drops.early_drop.unwrap_or(0);
    let tight = tightest(reading);
    let no_room = tight
        .as_ref()
        .is_some_and(|table| table.entries >= table.limit);
    if dropped.total() == 0 && evicted == 0 && !no_room {
        return None;
    }
    let mut evidence = dropped.evidence("drop");
    evidence.extend(counted("early_drop", evicted));
    evidence.extend(tight.as_ref().map(usage));
    Some(Finding {
        kind: TABLE_FULL.to_owned(),
        severity: Severity::Critical,
        summary: summary(reading, dropped.total(), evicted),
        evidence,
        culprits: culprits(reading),
        victims: victims(
            reading,
            &dropped,
            evicted,
            tight.as_ref().filter(|_| no_room),
        ),
        remedies: advice(reading),
        follows_load: false,
    })
}

fn summary(reading: &Reading, dropped: u64, evicted: u64) -> String {
    let why = Room::of(reading).why_nothing_is_evicted();
    let why = why.map_or_else(String::new, |why| format!("; {why}"));
    match (dropped, evicted) {
        (0, 0) => format!("the connection tracking table has no room left{why}"),
        (0, evicted) => format!(
            "the connection tracking table is full: the kernel evicted {evicted} entries of other \
             flows"
        ),
        (dropped, _) => format!(
            "the connection tracking table is full: the kernel dropped {dropped} packets without \
             an entry{why}"
        ),
    }
}

fn victims(
    reading: &Reading,
    dropped: &Refused,
    evicted: u64,
    no_room: Option<&Table>,
) -> Vec<Party> {
    let mut victims = dropped.by_namespace(reading, |count| format!("{count} packets dropped"));
    if evicted > 0 {
        victims.push(Party {
            who: format!(
                "flows that are not assured in network namespace {}",
                reading.neighbours.netns(reading.netns)
            ),
            share: format!("{evicted} lost their entry, and with it NAT"),
        });
    }
    if let (true, Some(table)) = (victims.is_empty(), no_room) {
        victims.push(Party {
            who: new_connections(reading, table.netns),
            share: "each evicts another entry, or is dropped".to_owned(),
        });
    }
    victims
}
