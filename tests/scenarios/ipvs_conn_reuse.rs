//! `ipvs_conn_reuse`: what the agent counts against what sockets and counters on the wire saw.

pub(crate) mod clients;
mod configuration;
mod dead;
mod table;
mod udp;
mod verdicts;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::reuse::{Close, Connection, Name, Site};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::metrics::Metrics;

pub(crate) use self::clients::{
    a_rolling_upgrade_delays_as_many_as_the_agent_counts, ab_and_the_agent_count_alike,
    curl_waits_where_the_agent_says,
};
pub(crate) use self::configuration::{
    a_removal_is_noticed_between_two_readings, other_protocols_are_not_counted,
    the_module_comes_goes_and_comes_back, the_packet_hook_is_left_alone_as_kube_proxy_sets_it,
    two_namespaces_are_told_apart, without_hooks_the_baseline_stands_in,
};
pub(crate) use self::dead::{
    a_rolling_upgrade_delays_nobody_while_it_is_swept, an_unfixed_kernel_is_not_swept,
    dead_connections_make_room_and_living_ones_stay,
    late_packets_bring_the_delay_back_unless_the_entry_was_opened, sweeping_keeps_to_its_rate,
};
pub(crate) use self::table::{
    by_kprobes_every_syn_has_the_outcome_that_its_client_saw,
    every_syn_has_the_outcome_that_its_client_saw,
    every_syn_of_ipv6_has_the_outcome_that_its_client_saw,
};
pub(crate) use self::udp::{
    a_flow_of_ipv6_on_a_removed_server_is_told_and_ended, a_flow_on_a_drained_server_is_told,
    a_flow_on_a_removed_server_is_told_and_ended, an_idle_flow_on_a_drained_server_is_healthy,
    an_idle_flow_on_a_removed_server_is_healthy, check_tells_of_a_flow_on_a_drained_local_server,
    without_hooks_the_list_tells_of_udp_flows,
};
pub(crate) use self::verdicts::{
    a_black_hole_is_closed_by_its_remedy, a_client_that_gives_up_is_counted,
    a_delay_is_over_with_its_remedy, clean_closes_are_healthy,
    drained_servers_are_left_by_the_remedy,
};
use crate::agent::{Agent, SOON};

const AILMENT: &str = "ipvs_conn_reuse";

const SERVICE_SYNS: &str = "nodemedic_ipvs_conn_reuse_service_syns_total";
pub(crate) const DELAYS: &str = "nodemedic_ipvs_conn_reuse_delay_seconds_count";
const LOST: &str = "nodemedic_ailment_lost_events_total";

/// As many services as the table has cells.
const ALL_NAMES: &str = "top_services = 1000\nscan_interval = \"1s\"\nwindow = \"5s\"";

/// Whether the packet hook is attached.
const WATCHING: &str = "nodemedic_ipvs_conn_reuse_tracing_active";

/// Longer than an answer takes under emulation.
const ANSWER: Duration = Duration::from_secs(10);
/// Between the first repetition of a SYN, after 1 s, and the second, after 3 s.
const SECOND_SYN: Duration = Duration::from_millis(2_500);
/// No repetition comes sooner.
const AT_ONCE: Duration = Duration::from_millis(900);
/// What the kernel does later about connections to a removed destination is done by then.
const CLEANED_UP: Duration = Duration::from_millis(1_500);

/// A service that is there from the begin: the ailment waits for the first.
const FIRST_SERVICE: u16 = 7_999;

/// The agent with all its probes. Where IPVS has no types of its own, it first wants to see some
/// new connections.
fn attached(guest: &Guest, site: &Site, settings: &str) -> Result<Agent> {
    site.add_services(guest, &[FIRST_SERVICE])?;
    let agent = Agent::start_for(guest, AILMENT, settings)?;
    until_attached(&agent, site)?;
    Ok(agent)
}

/// As [`attached`], for an agent that runs already.
pub(crate) fn attach(agent: &Agent, guest: &Guest, site: &Site) -> Result<()> {
    site.add_services(guest, &[FIRST_SERVICE])?;
    until_attached(agent, site)
}

fn until_attached(agent: &Agent, site: &Site) -> Result<()> {
    let mut client_ports = 10_000..;
    eventually(3 * SOON, "all probes are attached", || {
        let report = agent.report_of(AILMENT)?;
        if report["coverage"]["state"] == "full" && !report["reading"].is_null() {
            return Ok(());
        }
        if let Some(port) = client_ports.next() {
            let connection = site.connect(port, FIRST_SERVICE, ANSWER)?;
            connection
                .context("nobody answers")?
                .close(Close::ClientFin)?;
        }
        bail!("{} {}", report["coverage"], report["probes"])
    })
}

/// As [`attached`], with the usual settings of tests.
fn observed(guest: &Guest, site: &Site) -> Result<Agent> {
    attached(guest, site, ALL_NAMES)
}

/// The first connections, all to the old server.
pub(crate) fn connected(site: &Site, ports: &[(u16, u16)]) -> Result<Vec<Connection>> {
    let answers = site.connect_all(ports, ANSWER)?.into_iter();
    let connections = answers.collect::<Option<Vec<_>>>();
    let connections = connections.context("nobody answers the first connection")?;
    let old = connections
        .iter()
        .all(|connection| connection.server == Name::Old);
    ensure!(old, "the new server answers before it is there");
    Ok(connections)
}

/// SYNs by outcome.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcomes {
    rescheduled: u32,
    pub(crate) dropped: u32,
    dropped_silently: u32,
    stale_destination: u32,
}

impl Outcomes {
    /// What the agent has counted for one service.
    fn of(metrics: &Metrics, service: SocketAddr) -> Self {
        Self::with(metrics, &[("service", &service.to_string())])
    }

    /// What it has counted under these labels.
    fn with(metrics: &Metrics, labels: &[(&str, &str)]) -> Self {
        let of = |outcome| {
            let labels = [labels, &[("outcome", outcome)]].concat();
            metrics.sum(SERVICE_SYNS, &labels) as u32
        };
        Self {
            rescheduled: of("rescheduled"),
            dropped: of("dropped"),
            dropped_silently: of("dropped_silently"),
            stale_destination: of("stale_destination"),
        }
    }

    /// What it has counted in all.
    pub(crate) fn all(metrics: &Metrics) -> Self {
        Self::with(metrics, &[])
    }
}

/// Whether `nodemedic check` found nothing. Where the module has no types, it has not met the three
/// connections that prove the layout, and says that it cannot tell.
fn finds_nothing(guest: &Guest, code: Option<i32>) -> bool {
    code == Some(if guest.has_btf("ip_vs") { 0 } else { 2 })
}

/// Whether ip_vs is of before the fix.
fn is_unfixed(guest: &Guest) -> Result<bool> {
    Ok(guest.kernel()?.ends_with("-unfixed"))
}

/// Runs of programs that the kernel left out, as it does while the program runs on that CPU already,
/// and has told.
fn missed(metrics: &Metrics) -> f64 {
    metrics.sum(LOST, &[("ailment", AILMENT), ("reason", "missed")])
}

/// But for what the kernel left out.
fn nothing_is_lost(metrics: &Metrics) -> Result<()> {
    let of_ailment = [("ailment", AILMENT)];
    let reasons = metrics.select(LOST, &of_ailment).collect::<Vec<_>>();
    ensure!(
        metrics.sum(LOST, &of_ailment) == missed(metrics),
        "events are lost: {reasons:?}"
    );
    Ok(())
}
