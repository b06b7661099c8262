use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::{
    ailments::udp_conntrack::{
        UdpConntrack,
        measure::{
            Counts, Drops, ProbedReading, Refusals, RefusedFlowReading, RefusedReading, Timeouts,
        },
    },
    collector::{Ailment as _, judged, knowledge},
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
        buckets: Some(10_240),
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
            ..Drops::default()
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
            refused: RefusedReading::default(),
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
        reading.buckets = Some(limit);
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
fn packets_that_lose_a_clash_are_a_clash_and_not_a_full_table() {
    let mut reading = healthy();
    reading.window_drops.drop = Some(12);
    reading.window_drops.insert_failed = Some(12);
    let findings = judge(&reading, &Settings::default());
    assert_eq!(kinds(&reading), ["clash"]);
    assert_eq!(findings[0].severity, Severity::Warning);
    assert!(
        findings[0].summary.starts_with("1.2 packets a second"),
        "{findings:?}"
    );
    reading.window_drops.drop = Some(13);
    assert_eq!(kinds(&reading), ["table_full", "clash"]);
}

#[test]
fn a_clash_that_loses_nothing_is_a_note() {
    let mut reading = healthy();
    reading.window_drops.clash_resolved = Some(307);
    reading.window_drops.invalid = Some(9);
    assert_eq!(kinds(&reading), Vec::<String>::new());
    let [note] = &notes(&reading)[..] else {
        panic!(
            "9 INVALID packets in 10 s are not worth a note: {:?}",
            notes(&reading)
        );
    };
    assert!(note.starts_with("30.7 packets a second"), "{note}");
    reading.window_drops.invalid = Some(10);
    assert!(notes(&reading)[1].contains("INVALID"));
}

#[test]
fn who_loses_a_clash_is_named_with_what_helps_there() {
    let mut reading = healthy();
    (
        reading.window_drops.drop,
        reading.window_drops.insert_failed,
    ) = (Some(5), Some(5));
    let lost = |port| RefusedFlowReading {
        refusal: "clash_lost".to_owned(),
        netns: 7,
        protocol: 17,
        source: Some(SOURCE),
        port,
        refused: 5,
    };
    let found = |reading: &mut Reading, port| {
        let probed = reading.probed.as_mut().expect("it has probes");
        probed.refused.flows = vec![lost(port)];
        judge(reading, &Settings::default()).swap_remove(0)
    };
    let dns = found(&mut reading, 53);
    assert!(
        dns.victims[0]
            .who
            .starts_with("source 10.0.0.7 to port 53 (DNS, UDP)"),
        "{dns:?}"
    );
    assert!(
        dns.remedies
            .iter()
            .any(|it| it.contains("single-request-reopen"))
    );
    let other = found(&mut reading, 443);
    assert!(
        other
            .remedies
            .iter()
            .any(|it| it.contains("--random-fully"))
    );
    assert!(
        !other.remedies.iter().any(|it| it.contains("DNS")),
        "{other:?}"
    );
}

#[test]
fn chains_that_are_too_long_are_neither_a_clash_nor_a_full_table() {
    let mut reading = healthy();
    reading.window_drops = Drops {
        drop: Some(0),
        early_drop: Some(0),
        insert_failed: Some(794),
        chain_too_long: Some(794),
        ..Drops::default()
    };
    (reading.entries, reading.limit, reading.buckets) = (18_000, Some(1_000_000), Some(512));
    let (_, found) = judged::<UdpConntrack>(&reading, &Settings::default());
    let [finding] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(
        (finding.kind.as_str(), finding.severity),
        ("few_buckets", Severity::Critical)
    );
    assert!(
        finding.summary.contains("794 new connections"),
        "{finding:?}"
    );
    assert!(
        finding
            .summary
            .contains("18000 entries in 512 buckets, 70 to a chain")
    );
    let wanted = "sysctl -w net.netfilter.nf_conntrack_buckets=1048576";
    assert!(finding.remedies[0].contains(wanted), "{finding:?}");
    // More entries would only make chains longer.
    let proposals = UdpConntrack::proposals(&reading);
    let max = proposals.iter().find(|it| it.treatment == "conntrack_max");
    let objection = max
        .and_then(|it| it.objection.as_deref())
        .unwrap_or_default();
    assert!(
        objection.contains("set nf_conntrack_buckets first"),
        "{objection}"
    );
}

#[test]
fn long_chains_are_a_warning_before_anything_is_refused() {
    let mut reading = healthy();
    (reading.entries, reading.buckets) = (5_000, Some(512));
    assert_eq!(kinds(&reading), Vec::<String>::new(), "19.5 to a chain");
    reading.namespaces = vec![(
        Namespace {
            netns: 9,
            pid: 1,
            entries: 200,
        },
        Some(0.0),
    )];
    let findings = judge(&reading, &Settings::default());
    assert_eq!(
        findings[0].kind, "few_buckets",
        "the hash is shared by all namespaces"
    );
    assert_eq!(findings[0].severity, Severity::Warning);
    reading.buckets = None;
    assert_eq!(
        kinds(&reading),
        Vec::<String>::new(),
        "nobody is blamed without a number"
    );
}

#[test]
fn a_full_table_says_why_nothing_is_evicted() {
    let mut reading = healthy();
    (reading.entries, reading.limit, reading.buckets) = (500, Some(500), Some(8_192));
    reading.window_drops.drop = Some(90);
    let summary = |reading: &mut Reading, replied, assured| {
        let scan = reading.snapshot.as_mut().expect("it has a scan");
        (scan.udp.replied, scan.udp.assured) = (replied, assured);
        judge(reading, &Settings::default()).swap_remove(0).summary
    };
    let sparse = summary(&mut reading, 500, 0);
    assert!(sparse.contains("the table is sparse"), "{sparse}");
    let assured = summary(&mut reading, 0, 500);
    assert!(
        assured.contains("500 of 500 entries are assured"),
        "{assured}"
    );
    // A scan of another time says nothing of this load.
    let unknown = summary(&mut reading, 10, 0);
    assert!(unknown.ends_with("without an entry"), "{unknown}");
    // More buckets would make it sparser still.
    let proposals = UdpConntrack::proposals(&reading);
    assert!(
        proposals.last().is_some_and(|it| it.changes.is_empty()),
        "{proposals:?}"
    );
    reading.limit = Some(8_193);
    reading.entries = 8_193;
    let proposals = UdpConntrack::proposals(&reading);
    let buckets = proposals.last().and_then(|it| it.objection.as_deref());
    assert!(
        buckets.is_some_and(|why| why.contains("finds less to evict")),
        "{proposals:?}"
    );
}

#[test]
fn drops_of_another_namespace_are_found_by_the_probe() {
    let mut reading = healthy();
    let probed = reading.probed.as_mut().expect("it has probes");
    let refused = |table_full| Refusals {
        table_full: Some(table_full),
        ..Refusals::default()
    };
    probed.refused.netns = vec![(9, refused(15))];
    let findings = judge(&reading, &Settings::default());
    assert_eq!(findings[0].kind, "table_full");
    assert!(findings[0].victims[0].who.contains('9'), "{findings:?}");
    assert_eq!(findings[0].victims[0].share, "15 packets dropped");
}

/// The kernel has no such file without `CONFIG_NF_CONNTRACK_PROCFS`.
#[test]
fn without_counters_and_probe_a_table_without_findings_is_unknown() {
    let none = Vec::<String>::new();
    let settings = Settings::default();
    let mut reading = healthy();
    reading.window_drops = Drops {
        early_drop: Some(0),
        ..Drops::default()
    };
    let probed = reading.probed.as_mut().expect("it has probes");
    probed.refused.total = Refusals {
        table_full: Some(0),
        clash_lost: Some(0),
        ..Refusals::default()
    };
    assert_eq!(unknown(&reading, &settings), none);
    reading.probed = None;
    assert!(unknown(&reading, &settings)[0].starts_with("cannot tell whether the connection"));
    (
        reading.window_drops.drop,
        reading.window_drops.insert_failed,
    ) = (Some(0), Some(0));
    assert_eq!(unknown(&reading, &settings), none);
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
    (reading.entries, reading.buckets) = (1_000_000, Some(1 << 20));
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

/// One reading for each way in which a verdict comes about.
fn wrong() -> Vec<(&'static str, Reading)> {
    let with = |name: &'static str, change: &dyn Fn(&mut Reading)| {
        let mut reading = healthy();
        change(&mut reading);
        (name, reading)
    };
    vec![
        with("drops", &|it| it.window_drops.drop = Some(15)),
        with("evictions", &|it| it.window_drops.early_drop = Some(50)),
        with("a clash", &|it| {
            it.window_drops.chain_too_long = Some(0);
            (it.window_drops.drop, it.window_drops.insert_failed) = (Some(12), Some(12));
        }),
        with("chains that are too long", &|it| {
            it.window_drops.insert_failed = Some(794);
            it.window_drops.chain_too_long = Some(794);
            (it.entries, it.limit, it.buckets) = (18_000, Some(1_000_000), Some(512));
        }),
        with("long chains", &|it| {
            (it.entries, it.buckets) = (6_000, Some(512))
        }),
        with("growth", &|it| {
            it.growth = Some(400.0);
            at_rate(it, 400);
        }),
        with("a table in use", &|it| it.entries = 9_500),
        with("idle entries", &|it| {
            it.entries = 2_000;
            it.snapshot.as_mut().expect("it has a scan").udp.replied = 1_900;
        }),
    ]
}

#[test]
fn no_missing_fact_and_no_two_make_a_verdict_healthy() {
    let tried = knowledge::less_is_never_healthy::<UdpConntrack>(&wrong());
    assert!(tried > 300, "{tried}");
}

#[test]
fn any_counters_are_judged_by_numbers() {
    knowledge::any_numbers_are_judged::<UdpConntrack>(&wrong(), &[]);
}
