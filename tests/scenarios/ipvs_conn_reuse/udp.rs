//! UDP flows on servers that are drained or removed: told, ended by the remedy, and healthy ones
//! left alone.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::ipvs::Family;
use nodemedic_tests::faults::reuse::{Name, Settings, Site};
use nodemedic_tests::faults::udp_flow::{Client, Server};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use serde_json::Value;

use super::{AILMENT, attached, missed, nothing_is_lost};
use crate::agent::{Agent, SOON, check, verb};

const SERVICE: u16 = 53;
const CLIENT: u16 = 20_000;
const EXPIRE_NODEST_CONN: &str = "net.ipv4.vs.expire_nodest_conn";
const FLOWS: &str = "nodemedic_ipvs_conn_reuse_udp_flows";
const DROPPED: &str = "nodemedic_ipvs_conn_reuse_udp_dropped_total";

const SETTINGS: &str =
    "top_services = 100\nscan_interval = \"1s\"\nwindow = \"5s\"\nudp_drained_after = \"6s\"";

/// As long as a turn of the probe of answers, the pause to the next, and some.
const NEXT_TURN: Duration = Duration::from_secs(120);

/// In the guest's own time: longer than `udp_drained_after`, so that a flow that is wrongly found
/// would be found by then.
const SILENT: Duration = Duration::from_secs(8);

const KEEPS: Settings = Settings {
    expire_nodest_conn: 0,
    ..Settings::KUBE_PROXY
};

/// A UDP service of two servers, of which the old one has the client's flow.
struct Flow {
    site: Site,
    client: Client,
    old: Option<Server>,
    _new: Server,
}

impl Flow {
    fn build(guest: &Guest, family: Family, settings: Settings) -> Result<(Self, Agent)> {
        Self::watched(guest, family, settings, attached)
    }

    fn watched(
        guest: &Guest,
        family: Family,
        settings: Settings,
        watch: impl FnOnce(&Guest, &Site, &str) -> Result<Agent>,
    ) -> Result<(Self, Agent)> {
        let site = Site::build(guest, family)?;
        site.set(guest, settings)?;
        let agent = watch(guest, &site, SETTINGS)?;
        let start = |name| Server::start(site.namespace(name), site.server(name), name);
        let (old, new) = (start(Name::Old)?, start(Name::New)?);
        let (service, server) = (site.service(SERVICE), site.server(Name::Old));
        site.sh(
            guest,
            &format!("ipvsadm -A -u {service} -s rr && ipvsadm -a -u {service} -r {server} -m"),
        )?;
        let from = SocketAddr::new(site.client_address(), CLIENT);
        let client = Client::start(site.client(), from, service)?;
        eventually(SOON, "the old server answers", || {
            ensure!(client.answers(Name::Old) > 3, "{client:?}");
            Ok(())
        })?;
        let new_server = site.server(Name::New);
        site.sh(
            guest,
            &format!("ipvsadm -a -u {service} -r {new_server} -m"),
        )?;
        let flow = Self {
            site,
            client,
            old: Some(old),
            _new: new,
        };
        Ok((flow, agent))
    }

    fn change(&self, guest: &Guest, how: &str) -> Result<()> {
        let (service, server) = (self.site.service(SERVICE), self.site.server(Name::Old));
        self.site
            .sh(guest, &format!("ipvsadm {how} -u {service} -r {server}"))
            .map(drop)
    }

    fn drain(&self, guest: &Guest) -> Result<()> {
        let (service, server) = (self.site.service(SERVICE), self.site.server(Name::Old));
        let command = format!("ipvsadm -e -u {service} -r {server} -m -w 0");
        self.site.sh(guest, &command).map(drop)
    }

    fn remove(&self, guest: &Guest) -> Result<()> {
        self.change(guest, "-d")
    }

    /// Whether the new server gets the client's datagrams, and all of them.
    fn has_moved(&self) -> Result<()> {
        let before = self.client.answers(Name::New);
        eventually(SOON, "the new server answers", || {
            let now = self.client.answers(Name::New);
            ensure!(now > before + 10, "{now} answers, {before} before");
            Ok(())
        })
    }

    /// Service, server and client.
    fn is_named_in(&self, finding: &Value) -> Result<()> {
        let named = format!("{} {}", finding["culprits"], finding["victims"]);
        let client = SocketAddr::new(self.site.client_address(), CLIENT);
        for name in [
            self.site.service(SERVICE),
            self.site.server(Name::Old),
            client,
        ] {
            ensure!(
                named.contains(&name.to_string()),
                "{name} is not in {named}"
            );
        }
        Ok(())
    }
}

/// The functions that translate UDP datagrams, and the hook of all packets.
fn is_probed(guest: &Guest) -> Result<bool> {
    let probed = guest.sh("cat /sys/kernel/tracing/enabled_functions")?;
    let mut names = probed
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    Ok(names.any(|name| {
        [
            "udp_dnat_handler",
            "udp_snat_handler",
            "ip_vs_in_hook",
            "ip_vs_conn_in_get_proto",
        ]
        .contains(&name)
    }))
}

fn flows(agent: &Agent, destination: &str, in_use: &str) -> Result<f64> {
    let labels = [("destination", destination), ("use", in_use)];
    agent.metrics()?.value(FLOWS, &labels)
}

/// Healthy is silent and not probed; a flow that lasts on a drained server is told, and that its
/// server stopped answering too; the removal that is advised ends it.
pub(crate) fn a_flow_on_a_drained_server_is_told(guest: &Guest) -> Result<Verdict> {
    let (mut flow, agent) = Flow::build(guest, Family::V4, Settings::KUBE_PROXY)?;
    std::thread::sleep(SILENT);
    agent.finds(&[], SOON)?;
    ensure!(!is_probed(guest)?, "healthy flows are probed");
    ensure!(
        flows(&agent, "drained", "in_use")? == 0.0,
        "none is drained"
    );

    flow.drain(guest)?;
    let lasting = agent.finds_one("udp_drained", 2 * SOON)?;
    ensure!(lasting["severity"] == "warning", "{lasting}");
    let summary = lasting["summary"].as_str().unwrap_or_default();
    ensure!(summary.contains("still answer"), "{lasting}");
    ensure!(flows(&agent, "drained", "in_use")? == 1.0, "it is in use");

    flow.old = None;
    let dead = eventually(NEXT_TURN, "it is told that it stopped answering", || {
        let found = agent.finds_one("udp_drained", SOON)?;
        ensure!(found["severity"] == "critical", "{found}");
        Ok(found)
    })?;
    flow.is_named_in(&dead)?;
    // Where the module has no types, the probes of `check` first wait for new connections.
    if guest.has_btf("ip_vs") {
        let checked = check(guest, &[AILMENT])?;
        let text = checked.stdout;
        ensure!(
            checked.status.code() == Some(1) && text.contains("answered no datagram"),
            "check ends with {}: {text}",
            checked.status
        );
    }

    let remedy = dead["remedies"][0].as_str().unwrap_or_default();
    let (command, _) = remedy.split_once(": ").context("a remedy is a command")?;
    guest.sh(command)?;
    flow.has_moved()?;
    agent.finds(&[], 2 * SOON)?;
    eventually(SOON, "nothing is probed any more", || {
        ensure!(!is_probed(guest)?, "it is");
        Ok(())
    })?;
    nothing_is_lost(&agent.metrics()?)?;
    Ok(Verdict::Passed)
}

/// All on one node, as a resolver and its local DNS cache: `check` alone, with its usual window,
/// tells that a server which was drained and stopped still gets the datagrams.
pub(crate) fn check_tells_of_a_flow_on_a_drained_local_server(guest: &Guest) -> Result<Verdict> {
    let service: SocketAddr = "10.96.0.10:53".parse()?;
    let [old, new]: [SocketAddr; 2] = ["10.0.0.2:53".parse()?, "10.0.0.3:53".parse()?];
    guest.modprobe("ip_vs_rr")?;
    guest.sh(&format!(
        "set -e
        ip link add d0 type dummy
        ip addr add {}/32 dev d0
        ip link set d0 up
        ip addr add {}/32 dev lo
        ip addr add {}/32 dev lo
        sysctl -qw net.ipv4.vs.conntrack=1 {EXPIRE_NODEST_CONN}=1
        ipvsadm -A -u {service} -s rr
        ipvsadm -a -u {service} -r {old} -m",
        service.ip(),
        old.ip(),
        new.ip()
    ))?;
    let server = Server::serve(UdpSocket::bind(old)?, Name::Old)?;
    let client = Client::send(UdpSocket::bind("0.0.0.0:20000")?, service)?;
    eventually(SOON, "the server answers", || {
        ensure!(client.answers(Name::Old) > 3, "{client:?}");
        Ok(())
    })?;
    let healthy = verb(guest, &["check", AILMENT])?;
    let code = healthy.status.code();
    // Where the module has no types, too few connections come meanwhile, and `check` says so.
    ensure!(
        super::finds_nothing(guest, code),
        "check ends with {code:?}: {}",
        healthy.stdout
    );
    guest.sh(&format!(
        "ipvsadm -a -u {service} -r {new} -m && ipvsadm -e -u {service} -r {old} -m -w 0"
    ))?;
    drop(server);
    let sick = verb(guest, &["check", AILMENT])?;
    let told = if guest.has_btf("ip_vs") {
        "answered no datagram"
    } else {
        "answer is unknown"
    };
    ensure!(
        sick.status.code() == Some(1) && sick.stdout.contains(told),
        "check ends with {}: {}",
        sick.status,
        sick.stdout
    );
    for name in [service, old] {
        ensure!(sick.stdout.contains(&name.to_string()), "{}", sick.stdout);
    }
    drop(client);
    guest.sh(&format!(
        "ipvsadm -C; ip link del d0; ip addr del {}/32 dev lo; ip addr del {}/32 dev lo",
        old.ip(),
        new.ip()
    ))?;
    Ok(Verdict::Passed)
}

/// A flow that pauses is no finding, and one on a drained server may pause.
pub(crate) fn an_idle_flow_on_a_drained_server_is_healthy(guest: &Guest) -> Result<Verdict> {
    let (mut flow, agent) = Flow::build(guest, Family::V4, Settings::KUBE_PROXY)?;
    flow.client.pause();
    flow.drain(guest)?;
    agent.shows("it is idle", 2 * SOON, |_| {
        let idle = flows(&agent, "drained", "idle")?;
        ensure!(idle == 1.0, "{idle} are idle");
        Ok(())
    })?;
    agent.finds(&[], SOON)?;
    eventually(SOON, "nothing is probed", || {
        ensure!(!is_probed(guest)?, "it is");
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

/// Each datagram to a removed server is counted, and the treatment ends it.
pub(crate) fn a_flow_on_a_removed_server_is_told_and_ended(guest: &Guest) -> Result<Verdict> {
    removed(guest, Family::V4)
}

pub(crate) fn a_flow_of_ipv6_on_a_removed_server_is_told_and_ended(
    guest: &Guest,
) -> Result<Verdict> {
    removed(guest, Family::V6)
}

fn removed(guest: &Guest, family: Family) -> Result<Verdict> {
    let (mut flow, agent) = Flow::build(guest, family, KEEPS)?;
    agent.finds(&[], SOON)?;
    flow.remove(guest)?;
    let finding = agent.finds_one("udp_blackholed", SOON)?;
    ensure!(finding["severity"] == "critical", "{finding}");
    flow.is_named_in(&finding)?;
    agent.shows("the flow", SOON, |_| {
        let in_use = flows(&agent, "removed", "in_use")?;
        ensure!(in_use == 1.0, "{in_use} are in use");
        Ok(())
    })?;
    ensure!(
        flow.client.answers(Name::New) == 0,
        "the new server answers"
    );
    // Where the module has no types, `check` says that it is unknown who still sends.
    let checked = check(guest, &[AILMENT])?;
    ensure!(
        checked.status.code() == Some(1),
        "check ends with {}",
        checked.status
    );
    ensure!(
        checked.stdout.contains("servers that were removed"),
        "{}",
        checked.stdout
    );

    let command = format!("sysctl -w {EXPIRE_NODEST_CONN}=1");
    let remedy = finding["remedies"][0].as_str().unwrap_or_default();
    ensure!(remedy.contains(&command), "{finding}");
    verb(guest, &["treat", AILMENT, "--apply"])?.ok()?;
    ensure!(guest.sysctl(EXPIRE_NODEST_CONN)? == "1", "it is not set");
    flow.has_moved()?;
    agent.finds(&[], 2 * SOON)?;
    flow.client.pause();
    let lost = flow.client.sent() - flow.client.answers(Name::Old) - flow.client.answers(Name::New);
    agent.shows("what the client lost", SOON, |metrics| {
        let dropped = metrics.value(DROPPED, &[])?;
        // The datagram with which IPVS expires the flow may be lost as well, and is no drop of
        // this kind; one more may be under way.
        let (fewest, missed) = (f64::from(lost.saturating_sub(2)), missed(metrics));
        ensure!(
            dropped <= f64::from(lost) && dropped + missed >= fewest,
            "{dropped} counted, {missed} missed, {lost} lost"
        );
        Ok(())
    })?;
    nothing_is_lost(&agent.metrics()?)?;
    verb(guest, &["undo"])?.ok()?;
    ensure!(guest.sysctl(EXPIRE_NODEST_CONN)? == "0", "it is not back");
    Ok(Verdict::Passed)
}

/// Nobody sends: nobody is harmed, and the flow ends by itself.
pub(crate) fn an_idle_flow_on_a_removed_server_is_healthy(guest: &Guest) -> Result<Verdict> {
    let (mut flow, agent) = Flow::build(guest, Family::V4, KEEPS)?;
    flow.client.pause();
    flow.remove(guest)?;
    agent.shows("it is idle", SOON, |_| {
        let idle = flows(&agent, "removed", "idle")?;
        ensure!(idle == 1.0, "{idle} are idle");
        Ok(())
    })?;
    agent.finds(&[], SOON)?;
    Ok(Verdict::Passed)
}

/// By the list of connections alone: a drained flow that lasts is told, and of a removed server
/// that nobody can tell who still sends.
pub(crate) fn without_hooks_the_list_tells_of_udp_flows(guest: &Guest) -> Result<Verdict> {
    let without = |guest: &Guest, _: &Site, settings: &str| {
        // The ailment waits for the first service.
        Agent::start_for(guest, AILMENT, &format!("{settings}\nhooks = []"))
    };
    let (flow, agent) = Flow::watched(guest, Family::V4, Settings::KUBE_PROXY, without)?;
    agent.finds(&[], SOON)?;
    flow.drain(guest)?;
    let finding = agent.finds_one("udp_drained", 2 * SOON)?;
    let summary = finding["summary"].as_str().unwrap_or_default();
    ensure!(summary.contains("is unknown"), "{finding}");
    flow.is_named_in(&finding)?;
    flow.site.set(guest, KEEPS)?;
    flow.remove(guest)?;
    let finding = agent.finds_one("udp_blackholed", SOON)?;
    ensure!(finding["severity"] == "warning", "{finding}");
    let summary = finding["summary"].as_str().unwrap_or_default();
    ensure!(summary.contains("is unknown"), "{finding}");
    Ok(Verdict::Passed)
}
