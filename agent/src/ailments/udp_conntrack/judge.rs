//! The verdict: a pure function of a reading and the limits.

use super::{
    Settings,
    advice::advice,
    measure::{FlowReading, Reading},
};

use crate::model::{Evidence, Finding, Party, Severity};

/// The kinds of finding, worst first.
pub(super) const KINDS: &[&str] = &[TABLE_FULL, TABLE_FILLING, IDLE_ENTRIES];
pub(super) const TABLE_FULL: &str = "table_full";
pub(super) const TABLE_FILLING: &str = "table_filling";
pub(super) const IDLE_ENTRIES: &str = "idle_entries";

/// Parties that a finding names.
const NAMED: usize = 5;

/// With fewer lifetimes than this in a window, the timeout stands for them.
const ENOUGH_LIFETIMES: u64 = 100;

/// What is wrong, worst first. A table that is full is not also called filling.
pub(super) fn judge(reading: &Reading, settings: &Settings) -> Vec<Finding> {
    let pressed = full(reading).or_else(|| filling(reading, settings));
    pressed
        .into_iter()
        .chain(wasteful(reading, settings))
        .collect()
}

/// Drops were seen in the window, or a table has no room left.
fn full(reading: &Reading) -> Option<Finding> {
    let dropped = reading.window_drops.for_want_of_room();
    let pushed_out = reading.window_drops.early_drop.unwrap_or(0);
    let tight = tightest(reading);
    let no_room = tight
        .as_ref()
        .is_some_and(|table| table.entries >= table.limit);
    if dropped == 0 && pushed_out == 0 && !no_room {
        return None;
    }
    let mut evidence = Vec::new();
    for (reason, count) in [("drop", dropped), ("early_drop", pushed_out)] {
        if count > 0 {
            evidence.push(Evidence {
                metric: format!(
                    "nodemedic_conntrack_drops_total{{reason={reason:?}}} in the window"
                ),
                value: count as f64,
                limit: Some(0.0),
            });
        }
    }
    evidence.extend(tight.as_ref().map(usage));
    let victims = victims(reading, dropped, pushed_out, no_room, tight.as_ref());
    Some(Finding {
        kind: TABLE_FULL.to_owned(),
        severity: Severity::Critical,
        summary: match (dropped, pushed_out) {
            (0, 0) => "the connection tracking table has no room left".to_owned(),
            (0, pushed_out) => format!(
                "the connection tracking table is full: the kernel evicted {pushed_out} entries \
                 of other flows"
            ),
            (dropped, _) => format!(
                "the connection tracking table is full: the kernel dropped {dropped} packets \
                 without an entry"
            ),
        },
        evidence,
        culprits: culprits(reading),
        victims,
        remedies: advice(reading),
        follows_load: false,
    })
}

fn victims(
    reading: &Reading,
    dropped: u64,
    pushed_out: u64,
    no_room: bool,
    tight: Option<&Table>,
) -> Vec<Party> {
    let mut victims = Vec::new();
    if dropped > 0 {
        victims.push(Party {
            who: format!("new connections in network namespace {}", reading.netns),
            share: format!("{dropped} packets dropped"),
        });
    }
    if pushed_out > 0 {
        victims.push(Party {
            who: format!(
                "flows that are not assured in network namespace {}",
                reading.netns
            ),
            share: format!("{pushed_out} lost their entry, and with it NAT"),
        });
    }
    if let (true, true, Some(table)) = (victims.is_empty(), no_room, tight) {
        victims.push(Party {
            who: format!(
                "new connections in network namespace {}",
                reading.neighbours.netns(table.netns)
            ),
            share: "each evicts another entry, or is dropped".to_owned(),
        });
    }
    victims
}

/// The table will be full soon, or nearly is.
fn filling(reading: &Reading, settings: &Settings) -> Option<Finding> {
    let table = tightest(reading)?;
    let forecast = seconds_to_full(reading).filter(|_| will_overflow(reading));
    let soon = forecast.filter(|seconds| *seconds < settings.table_filling_within.as_secs_f64());
    let nearly = table.share() > settings.table_filling_ratio;
    if soon.is_none() && !nearly {
        return None;
    }
    let mut evidence = Vec::new();
    if let Some(seconds) = soon {
        evidence.push(Evidence {
            metric: "nodemedic_conntrack_seconds_to_full".to_owned(),
            value: seconds,
            limit: Some(settings.table_filling_within.as_secs_f64()),
        });
    }
    evidence.push(usage(&table));
    Some(Finding {
        kind: TABLE_FILLING.to_owned(),
        severity: Severity::Warning,
        summary: match soon {
            Some(seconds) => format!(
                "the connection tracking table will be full in {seconds:.0} s at its current \
                 growth"
            ),
            None => format!(
                "{:.0} % of the connection tracking table is in use",
                table.share() * 100.0
            ),
        },
        evidence,
        culprits: culprits(reading),
        victims: vec![Party {
            who: format!(
                "new connections in network namespace {}",
                reading.neighbours.netns(table.netns)
            ),
            share: "none yet".to_owned(),
        }],
        remedies: advice(reading),
        follows_load: false,
    })
}

/// Most of the table stands idle after exchanges that are over.
fn wasteful(reading: &Reading, settings: &Settings) -> Option<Finding> {
    let limit = reading.limit.filter(|limit| *limit > 0)?;
    let idle = idle_entries(reading)?;
    let share = idle / (reading.entries.max(1) as f64);
    let used = reading.entries as f64 / limit as f64;
    if share <= settings.idle_entries_ratio || used <= settings.idle_entries_usage_ratio {
        return None;
    }
    let owner = if reading.dns_dominates() {
        "DNS queries"
    } else {
        "short UDP exchanges"
    };
    Some(Finding {
        kind: IDLE_ENTRIES.to_owned(),
        severity: Severity::Warning,
        summary: format!(
            "about {idle:.0} of {} entries are idle after finished {owner}",
            reading.entries
        ),
        evidence: vec![
            Evidence {
                metric: "idle UDP entries / nodemedic_conntrack_entries".to_owned(),
                value: share,
                limit: Some(settings.idle_entries_ratio),
            },
            Evidence {
                metric: "nodemedic_conntrack_entries / nodemedic_conntrack_entries_limit"
                    .to_owned(),
                value: used,
                limit: Some(settings.idle_entries_usage_ratio),
            },
        ],
        culprits: culprits(reading),
        victims: Vec::new(),
        remedies: advice(reading),
        follows_load: false,
    })
}

/// Entries that stand idle now. By Little's law it is the rate at which idle time
/// is measured; without probes, the entries that a scan found not assured.
fn idle_entries(reading: &Reading) -> Option<f64> {
    let measured = reading.probed.as_ref().and_then(|probed| {
        let wasted = probed.window.wasted_seconds.filter(|_| probed.removals)?;
        (wasted > 0.0 && reading.window_seconds > 0.0).then(|| wasted / reading.window_seconds)
    });
    let scanned = reading
        .snapshot
        .as_ref()
        .filter(|snapshot| snapshot.complete)
        .map(|snapshot| (snapshot.udp.unreplied + snapshot.udp.replied) as f64);
    // The kernel removes in batches, so that the rate of one window may be far off
    // either way; the scan is exact, but a minute old.
    match (measured, scanned) {
        (_, Some(scanned)) => Some(scanned.min(reading.entries as f64)),
        (Some(measured), None) => Some(measured.min(reading.entries as f64)),
        (None, None) => None,
    }
}

/// One namespace's table against the limit.
struct Table {
    netns: u32,
    entries: u64,
    limit: u64,
    growth: Option<f64>,
}

impl Table {
    fn share(&self) -> f64 {
        self.entries as f64 / self.limit as f64
    }

    fn seconds_to_full(&self) -> Option<f64> {
        let growth = self.growth.filter(|growth| *growth > 0.0)?;
        Some(self.limit.saturating_sub(self.entries) as f64 / growth)
    }
}

fn tables(reading: &Reading) -> impl Iterator<Item = Table> {
    let limit = reading.limit.unwrap_or(0);
    let own = (reading.netns, reading.entries, reading.growth);
    let others = reading
        .namespaces
        .iter()
        .map(|(namespace, growth)| (namespace.netns, namespace.entries, *growth));
    std::iter::once(own)
        .chain(others)
        .map(move |(netns, entries, growth)| Table {
            netns,
            entries,
            limit,
            growth,
        })
        // Up to 6.12 zero means no limit.
        .filter(|table| table.limit > 0)
}

fn tightest(reading: &Reading) -> Option<Table> {
    tables(reading).max_by_key(|table| table.entries)
}

/// Seconds until the first table is full if it goes on growing; `None` while none
/// grows, or there is no limit.
pub(super) fn seconds_to_full(reading: &Reading) -> Option<f64> {
    tables(reading)
        .filter_map(|table| table.seconds_to_full())
        .min_by(f64::total_cmp)
}

/// Whether growth would end above the limit rather than level off below it: a new
/// load fills the table in a straight line until its first entries expire.
///
/// By Little's law UDP entries level off at rate of creation x time they stand.
/// Without probes there is no rate, and the straight line is believed.
fn will_overflow(reading: &Reading) -> bool {
    let (Some(probed), Some(limit)) = (&reading.probed, reading.limit) else {
        return true;
    };
    let Some(timeout) = reading.timeouts.unreplied else {
        return true;
    };
    let lifetimes: u64 = probed.window.lifetimes.iter().sum();
    let stands = if lifetimes >= ENOUGH_LIFETIMES {
        (probed.window.lifetime_seconds / lifetimes as f64).max(timeout as f64)
    } else {
        timeout as f64
    };
    let rate = probed.window.created as f64 / reading.window_seconds.max(f64::EPSILON);
    let udp_now = reading
        .snapshot
        .as_ref()
        .map_or(0, |snapshot| snapshot.udp.total());
    let others = reading.entries.saturating_sub(udp_now) as f64;
    others + rate * stands > limit as f64
}

fn usage(table: &Table) -> Evidence {
    Evidence {
        metric: format!("nodemedic_conntrack_entries{{netns=\"{}\"}}", table.netns),
        value: table.entries as f64,
        limit: Some(table.limit as f64),
    }
}

/// Who makes the entries: by the probes' counts of the window, else by what stands
/// in the table.
fn culprits(reading: &Reading) -> Vec<Party> {
    match (&reading.probed, &reading.snapshot) {
        (Some(probed), _) if !probed.top.is_empty() => probed
            .top
            .iter()
            .take(NAMED)
            .map(|flow| maker(reading, flow, probed.window.created))
            .collect(),
        (_, Some(snapshot)) => snapshot
            .udp_sources
            .iter()
            .take(NAMED)
            .map(|(source, entries)| Party {
                who: format!("source {}", reading.neighbours.address(*source)),
                share: format!("{entries} of {} UDP entries", snapshot.udp.total()),
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn maker(reading: &Reading, flow: &FlowReading, all: u64) -> Party {
    let neighbours = &reading.neighbours;
    let port = match flow.port {
        0 => "ephemeral ports".to_owned(),
        53 => "port 53 (DNS)".to_owned(),
        port => format!("port {port}"),
    };
    Party {
        who: format!(
            "source {} to {port} in network namespace {}",
            neighbours.address(flow.source),
            neighbours.netns(flow.netns)
        ),
        share: format!(
            "{:.1} entries/s, {:.0} % of all UDP",
            flow.created as f64 / reading.window_seconds.max(f64::EPSILON),
            100.0 * flow.created as f64 / all.max(1) as f64
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::{
        ailments::udp_conntrack::{
            UdpConntrack,
            measure::{Counts, Drops, ProbedReading, Timeouts},
        },
        collector::judged,
        kernel::conntrack::{Namespace, Snapshot, TableState},
        node::Neighbours,
    };

    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

    /// A tenth of the table in use, DNS at 20 entries a second, nothing wrong.
    fn healthy() -> Reading {
        let created = 200;
        let flow = FlowReading {
            netns: 7,
            port: 53,
            source: SOURCE,
            created,
        };
        let counts = Counts {
            created,
            ..Counts::default()
        };
        Reading {
            window_seconds: 10.0,
            netns: 7,
            entries: 1_000,
            limit: Some(10_000),
            memory: Some(4 << 30),
            timeouts: Timeouts {
                unreplied: Some(30),
                stream: Some(120),
            },
            drops: Drops::default(),
            window_drops: Drops {
                drop: Some(0),
                early_drop: Some(0),
                insert_failed: Some(3),
            },
            growth: Some(0.0),
            namespaces: Vec::new(),
            snapshot: Some(Snapshot {
                udp: TableState {
                    unreplied: 0,
                    replied: 600,
                    assured: 10,
                },
                complete: true,
                ..Snapshot::default()
            }),
            snapshot_unix_seconds: Some(1.8e9),
            probed: Some(ProbedReading {
                total: counts.clone(),
                window: counts,
                shown: vec![flow.clone()],
                other_created: 0,
                top: vec![flow],
                lost: Vec::new(),
                removals: true,
            }),
            neighbours: Neighbours::default(),
        }
    }

    fn kinds(reading: &Reading) -> Vec<String> {
        judge(reading, &Settings::default())
            .into_iter()
            .map(|finding| finding.kind)
            .collect()
    }

    fn at_rate(reading: &mut Reading, a_second: u64) {
        let probed = reading.probed.as_mut().expect("the healthy one has probes");
        probed.window.created = a_second * 10;
        probed.top[0].created = a_second * 10;
    }

    #[test]
    fn an_ordinary_node_is_healthy() {
        assert_eq!(kinds(&healthy()), Vec::<String>::new());
    }

    #[test]
    fn drops_make_it_full_and_name_who_fills_and_who_suffers() {
        let mut reading = healthy();
        reading.window_drops.drop = Some(15);
        let findings = judge(&reading, &Settings::default());
        assert_eq!(findings[0].kind, "table_full");
        assert_eq!(findings[0].severity, Severity::Critical);
        assert!(
            findings[0].culprits[0].who.contains("10.0.0.7"),
            "{findings:?}"
        );
        assert!(
            findings[0].victims[0].share.contains("12 packets"),
            "{findings:?}"
        );
    }

    /// Those of the worst finding.
    fn remedies(reading: &Reading) -> Vec<String> {
        let (_, mut found) = judged::<UdpConntrack>(reading, &Settings::default());
        found.swap_remove(0).remedies
    }

    #[test]
    fn the_table_is_to_grow_only_as_far_as_the_treatment_may_set_and_the_memory_holds() {
        let advised = |limit, memory| {
            let mut reading = healthy();
            reading.window_drops.early_drop = Some(50);
            (reading.limit, reading.memory) = (Some(limit), Some(memory));
            let remedies = remedies(&reading);
            remedies.iter().any(|it| it.contains("nf_conntrack_max="))
        };
        assert!(advised(262_144, 64 << 30));
        assert!(!advised(262_144, 1 << 30), "it takes more than a 32nd");
        assert!(
            !advised(4_194_304, 1 << 40),
            "twice as many are out of bounds"
        );
    }

    #[test]
    fn packets_that_lose_a_clash_are_not_a_full_table() {
        let mut reading = healthy();
        reading.window_drops.drop = Some(12);
        reading.window_drops.insert_failed = Some(12);
        assert_eq!(kinds(&reading), Vec::<String>::new());
        reading.window_drops.drop = Some(13);
        assert_eq!(kinds(&reading), ["table_full"]);
    }

    #[test]
    fn early_drops_alone_make_it_full_as_well() {
        let mut reading = healthy();
        reading.window_drops.early_drop = Some(50);
        assert_eq!(kinds(&reading), ["table_full"]);
    }

    #[test]
    fn a_steep_rise_that_levels_off_below_the_limit_is_not_filling() {
        let mut reading = healthy();
        reading.growth = Some(100.0);
        at_rate(&mut reading, 100);
        // 100 a second x 30 s and 390 others: far below 10,000.
        assert_eq!(kinds(&reading), Vec::<String>::new());
    }

    #[test]
    fn a_rise_that_ends_above_the_limit_is_filling_with_its_forecast() {
        let mut reading = healthy();
        reading.growth = Some(400.0);
        at_rate(&mut reading, 400);
        let findings = judge(&reading, &Settings::default());
        assert_eq!(findings[0].kind, "table_filling");
        assert_eq!(findings[0].evidence[0].value, 22.5);
    }

    #[test]
    fn without_probes_the_straight_line_is_believed() {
        let mut reading = healthy();
        reading.growth = Some(100.0);
        reading.probed = None;
        assert_eq!(kinds(&reading), ["table_filling"]);
    }

    #[test]
    fn another_namespace_is_held_against_the_same_limit() {
        let mut reading = healthy();
        reading.namespaces = vec![(
            Namespace {
                netns: 9,
                pid: 1,
                entries: 9_500,
            },
            Some(0.0),
        )];
        let findings = judge(&reading, &Settings::default());
        assert_eq!(findings[0].kind, "table_filling");
        assert!(
            findings[0].evidence[0].metric.contains("netns=\"9\""),
            "{findings:?}"
        );
        reading.namespaces[0].0.entries = 10_000;
        assert_eq!(kinds(&reading), ["table_full"]);
    }

    #[test]
    fn no_limit_means_never_full() {
        let mut reading = healthy();
        reading.limit = Some(0);
        reading.growth = Some(1_000.0);
        reading.entries = 1_000_000;
        assert_eq!(kinds(&reading), Vec::<String>::new());
    }

    #[test]
    fn idle_entries_are_a_waste_only_where_they_dominate_a_table_in_use() {
        let mut reading = healthy();
        reading.entries = 2_000;
        let udp = |reading: &mut Reading, replied| {
            let snapshot = reading
                .snapshot
                .as_mut()
                .expect("the healthy one has a scan");
            snapshot.udp.replied = replied;
        };
        udp(&mut reading, 1_900);
        assert_eq!(kinds(&reading), ["idle_entries"]);
        udp(&mut reading, 900);
        assert_eq!(kinds(&reading), Vec::<String>::new());
        udp(&mut reading, 1_900);
        reading.limit = Some(262_144);
        assert_eq!(kinds(&reading), Vec::<String>::new());
    }

    #[test]
    fn streams_are_to_go_sooner_only_where_they_dominate_and_stand_for_long() {
        let advised = |assured, stream| {
            let mut reading = healthy();
            reading.window_drops.early_drop = Some(50);
            reading.timeouts.stream = Some(stream);
            let snapshot = reading.snapshot.as_mut().expect("it has a scan");
            snapshot.udp.assured = assured;
            let remedies = remedies(&reading);
            let wanted = "nf_conntrack_udp_timeout_stream=120";
            remedies.iter().any(|remedy| remedy.contains(wanted))
        };
        assert!(advised(601, 180));
        assert!(!advised(600, 180));
        assert!(!advised(601, 120));
    }

    #[test]
    fn without_a_scan_the_rate_of_idle_time_gives_the_idle_entries() {
        let mut reading = healthy();
        reading.entries = 2_000;
        reading.snapshot = None;
        let probed = reading.probed.as_mut().expect("the healthy one has probes");
        probed.window.wasted_seconds = Some(15_000.0);
        assert_eq!(kinds(&reading), ["idle_entries"]);
    }
}
