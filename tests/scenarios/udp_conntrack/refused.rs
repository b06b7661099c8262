//! Every way in which the table refuses a connection, each with its own reason.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::faults::clash::{Clashes, OTHER, race_from_one_socket};
use nodemedic_tests::faults::dns::{CLIENT, RESOLVER, Site};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::metrics::Metrics;
use nodemedic_tests::scenario::Verdict;
use serde_json::Value;

use super::{MAX, UDP_TIMEOUT, sum};
use crate::agent::{Agent, SOON, verb};

const BUCKETS: &str = "net.netfilter.nf_conntrack_buckets";
const DROPS: &str = "nodemedic_conntrack_drops_total";
const REFUSED: &str = "nodemedic_conntrack_refused_total";
const ENTRIES: &str = "nodemedic_conntrack_entries";

/// The scan tells what can be evicted.
const SCANS: &str = "scan_interval = \"1s\"";

/// Columns of /proc/net/stat/nf_conntrack by the names that metrics have.
const COLUMNS: [(&str, &str); 6] = [
    ("drop", "drop"),
    ("early_drop", "early_drop"),
    ("insert_failed", "insert_failed"),
    ("chaintoolong", "chainlength"),
    ("clash_resolve", "clashres"),
    ("invalid", "invalid"),
];

/// Metrics show what the kernel counts, column by column.
fn counts_as_the_kernel(guest: &Guest, metrics: &Metrics) -> Result<()> {
    let stat = guest.sh("cat /proc/net/stat/nf_conntrack")?;
    for (reason, column) in COLUMNS {
        let Ok(counted) = sum(&stat, column) else {
            let shown = metrics.select(DROPS, &[("reason", reason)]).next();
            ensure!(
                shown.is_none(),
                "{reason} is shown without a column: {stat}"
            );
            continue;
        };
        let shown = metrics.value(DROPS, &[("reason", reason)])?;
        ensure!(shown == f64::from(counted), "{reason}: {shown}; {stat}");
    }
    Ok(())
}

fn refused(metrics: &Metrics, reason: &str) -> Result<f64> {
    metrics.value(REFUSED, &[("reason", reason)])
}

fn text<'v>(finding: &'v Value, field: &str) -> &'v str {
    finding[field].as_str().unwrap_or_default()
}

fn limits(guest: &Guest, entries: u32, buckets: u32) -> Result<()> {
    guest.set_sysctl(BUCKETS, &buckets.to_string())?;
    guest.set_sysctl(MAX, &entries.to_string())?;
    guest.set_sysctl(UDP_TIMEOUT, "120")
}

/// The same full table drops packets where it is sparse, and none where entries stand close: early
/// drop looks at eight buckets.
pub(crate) fn a_sparse_table_drops_what_a_dense_one_makes_room_for(
    guest: &Guest,
) -> Result<Verdict> {
    let site = Site::build(guest)?;
    guest.modprobe("nf_conntrack_netlink")?;
    limits(guest, 500, 512)?;
    let agent = Agent::start(guest, SCANS)?;
    site.flood(20_000..20_800)?;
    let dense = agent.finds_one("table_full", SOON)?;
    ensure!(text(&dense, "summary").contains("evicted"), "{dense}");
    agent.shows("evictions and no drop", SOON, |metrics| {
        counts_as_the_kernel(guest, metrics)?;
        let dropped = refused(metrics, "table_full")?;
        ensure!(dropped == 0.0, "{dropped} are dropped from a dense table");
        Ok(())
    })?;

    guest.sh("conntrack -F 2>/dev/null")?;
    limits(guest, 500, 16_384)?;
    site.flood(21_000..21_500)?;
    agent.shows("the scan has seen the full table", SOON, |metrics| {
        let entries = metrics.sum(ENTRIES, &[]);
        ensure!(entries >= 490.0, "{entries} entries");
        Ok(())
    })?;
    site.flood(22_000..22_300)?;
    agent.shows("drops, as the kernel counts them", SOON, |metrics| {
        counts_as_the_kernel(guest, metrics)?;
        let dropped = metrics.value(DROPS, &[("reason", "drop")])?;
        let probed = refused(metrics, "table_full")?;
        ensure!(
            dropped > 0.0 && probed == dropped,
            "{dropped} are dropped, the probe counts {probed}"
        );
        Ok(())
    })?;
    site.flood(23_000..23_300)?;
    let sparse = agent.finds_one("table_full", SOON)?;
    ensure!(
        text(&sparse, "summary").contains("the table is sparse"),
        "{sparse}"
    );
    ensure!(
        !sparse["remedies"].to_string().contains(BUCKETS),
        "a larger hash makes it worse: {sparse}"
    );
    Ok(Verdict::Passed)
}

/// Nothing is evicted from a table of assured entries.
pub(crate) fn a_table_of_assured_entries_drops_all_new_ones(guest: &Guest) -> Result<Verdict> {
    const ENTRIES_ASSURED: u16 = 60;
    let site = Site::build(guest)?;
    guest.modprobe("nf_conntrack_netlink")?;
    limits(guest, u32::from(ENTRIES_ASSURED), 512)?;
    let assured = format!(
        "for port in $(seq 30001 {}); do conntrack -I -p tcp -s {CLIENT} -d {RESOLVER} \
         --sport $port --dport 80 --state ESTABLISHED --timeout 600 -u SEEN_REPLY,ASSURED \
         2>/dev/null >&2; done; conntrack -C",
        30_000 + ENTRIES_ASSURED
    );
    let made = guest.sh(&assured)?;
    ensure!(made.trim() == ENTRIES_ASSURED.to_string(), "{made} entries");
    let agent = Agent::start(guest, SCANS)?;
    agent.shows("all entries", SOON, |metrics| {
        ensure!(metrics.sum(ENTRIES, &[]) == f64::from(ENTRIES_ASSURED));
        Ok(())
    })?;
    let finding = agent.finds_one("table_full", SOON)?;
    ensure!(
        text(&finding, "summary").contains("60 of 60 entries are assured"),
        "{finding}"
    );
    site.flood(20_000..20_030)?;
    agent.shows("each is dropped and counted", SOON, |metrics| {
        counts_as_the_kernel(guest, metrics)?;
        let probed = refused(metrics, "table_full")?;
        let dropped = metrics.value(DROPS, &[("reason", "drop")])?;
        ensure!(
            probed == dropped && dropped >= 30.0,
            "{dropped} are dropped, the probe counts {probed}"
        );
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

/// Few buckets for many entries: kernels that limit a chain refuse new entries although the table
/// has room. The treatment ends it at once, and its undo brings the buckets back.
pub(crate) fn chains_that_are_too_long_are_treated_with_more_buckets(
    guest: &Guest,
) -> Result<Verdict> {
    let site = Site::build(guest)?;
    limits(guest, 1_000_000, 512)?;
    // A packet to a port where nobody listens makes an entry as well, and no answer takes time.
    guest.sh("iptables -I FORWARD -p icmp -j DROP")?;
    let agent = Agent::start(guest, "")?;
    agent.finds(&[], SOON).context("an empty table")?;
    site.knock(CLIENT, 1_000..19_000)?;
    let limited = guest
        .sh("head -n 1 /proc/net/stat/nf_conntrack")?
        .contains("chainlength");
    let finding = agent.finds_one("few_buckets", SOON)?;
    if limited {
        site.knock(CLIENT, 20_000..21_000)?;
        agent.shows("refusals, as the kernel counts them", SOON, |metrics| {
            counts_as_the_kernel(guest, metrics)?;
            let counted = metrics.value(DROPS, &[("reason", "chaintoolong")])?;
            let probed = refused(metrics, "not_inserted")?;
            ensure!(
                counted > 0.0 && probed == counted && refused(metrics, "clash_lost")? == 0.0,
                "the kernel refused {counted}, the probe counts {probed}"
            );
            Ok(())
        })?;
    } else {
        ensure!(finding["severity"] == "warning", "{finding}");
    }
    let remedies = finding["remedies"].to_string();
    ensure!(
        remedies.contains(&format!("sysctl -w {BUCKETS}=1048576")),
        "{remedies}"
    );

    let treat = [
        "treat",
        "udp_conntrack",
        "--treatment",
        "conntrack_buckets",
        "--apply",
    ];
    verb(guest, &treat)?.ok()?;
    ensure!(guest.sysctl(BUCKETS)? == "1048576");
    let before = agent
        .metrics()?
        .value(DROPS, &[("reason", "insert_failed")])?;
    site.knock(CLIENT, 22_000..23_000)?;
    agent.shows("nothing is refused any more", SOON, |metrics| {
        counts_as_the_kernel(guest, metrics)?;
        let after = metrics.value(DROPS, &[("reason", "insert_failed")])?;
        ensure!(after == before, "{before} before, {after} after");
        Ok(())
    })?;
    agent.finds(&[], SOON).context("with more buckets")?;
    verb(guest, &["undo"])?.ok()?;
    ensure!(guest.sysctl(BUCKETS)? == "512");
    Ok(Verdict::Passed)
}

/// Packets of one socket that race lose nothing; those of two sources behind one address do.
pub(crate) fn a_clash_that_is_lost_is_told_from_one_that_is_resolved(
    guest: &Guest,
) -> Result<Verdict> {
    const PAIRS: u16 = 20;
    let site = Site::build(guest)?;
    let agent = Agent::start(guest, "")?;
    let mut clashes = Clashes::begin(guest, &site)?;
    clashes.of_one_socket(20_000..20_000 + PAIRS)?;
    // Up to 6.1 the queue itself gives the second packet the entry of the first
    // (`nf_conntrack_update`), and nothing clashes.
    let stat = guest.sh("cat /proc/net/stat/nf_conntrack")?;
    let expected = f64::from(sum(&stat, "clashres").unwrap_or_default());
    ensure!(expected == 0.0 || expected == f64::from(PAIRS), "{stat}");
    agent.shows("resolved clashes", SOON, |metrics| {
        counts_as_the_kernel(guest, metrics)?;
        let resolved = refused(metrics, "clash_resolved")?;
        let lost = refused(metrics, "clash_lost")?;
        ensure!(
            resolved == expected && lost == 0.0,
            "{resolved} resolved of {expected}, {lost} lost"
        );
        Ok(())
    })?;
    agent.finds(&[], SOON).context("nothing is lost")?;

    clashes.between_sources(21_000..21_000 + PAIRS)?;
    let finding = agent.finds_one("clash", SOON)?;
    ensure!(
        finding["victims"].to_string().contains(&OTHER.to_string()),
        "{finding}"
    );
    ensure!(
        finding["remedies"].to_string().contains("--random-fully"),
        "{finding}"
    );
    agent.shows("lost clashes", SOON, |metrics| {
        counts_as_the_kernel(guest, metrics)?;
        let lost = refused(metrics, "clash_lost")?;
        let failed = metrics.value(DROPS, &[("reason", "insert_failed")])?;
        ensure!(
            lost == f64::from(PAIRS) && failed == lost && refused(metrics, "not_inserted")? == 0.0,
            "{lost} lost, {failed} failed"
        );
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

/// The same race without a queue, on two CPUs: how many packets meet is luck, and the agent counts
/// as many as the kernel.
pub(crate) fn packets_of_one_socket_that_race_lose_nothing(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    let agent = Agent::start(guest, "")?;
    race_from_one_socket(&site, 20_000..21_000)?;
    agent.shows("resolved clashes", SOON, |metrics| {
        counts_as_the_kernel(guest, metrics)?;
        let (resolved, lost) = (
            refused(metrics, "clash_resolved")?,
            refused(metrics, "clash_lost")?,
        );
        let counted = metrics.value(DROPS, &[("reason", "clash_resolve")])?;
        ensure!(
            resolved == counted && resolved > 0.0 && lost == 0.0,
            "{resolved} resolved of {counted}, {lost} lost"
        );
        Ok(())
    })?;
    agent.finds(&[], SOON).context("nothing is lost")?;
    Ok(Verdict::Passed)
}

/// What fits no connection is counted, and nobody is said to have lost it.
pub(crate) fn invalid_packets_are_counted_and_harm_nobody(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    let agent = Agent::start(guest, "")?;
    // In the middle of a connection that the table does not know.
    guest.set_sysctl("net.netfilter.nf_conntrack_tcp_loose", "0")?;
    let listener = site
        .resolver()
        .within(|| TcpListener::bind((RESOLVER, 8_080)).context("listen"))?;
    let mut stream = site
        .client()
        .within(|| TcpStream::connect((RESOLVER, 8_080)).context("connect"))?;
    let _accepted = listener.accept().context("accept")?;
    guest.sh("conntrack -F 2>/dev/null")?;
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    // The answer comes back untranslated, and the client resets the connection.
    let sent = (0..5)
        .take_while(|_| stream.write_all(b"?").is_ok())
        .count();
    agent.shows(
        "INVALID packets, as the kernel counts them",
        SOON,
        |metrics| {
            counts_as_the_kernel(guest, metrics)?;
            let invalid = metrics.value(DROPS, &[("reason", "invalid")])?;
            ensure!(invalid >= sent as f64 && sent > 0, "{invalid} of {sent}");
            Ok(())
        },
    )?;
    agent.finds(&[], SOON).context("no rule drops them")?;
    Ok(Verdict::Passed)
}
