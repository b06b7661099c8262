//! What is attached when, and what is none of its business.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, setsockopt,
    socket, sockopt,
};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::ipvs::Family;
use nodemedic_tests::faults::reuse::{self, Close, Name, SERVER_PORT, Settings, Site};
use nodemedic_tests::guest::{Guest, NetNs};
use nodemedic_tests::scenario::Verdict;

use super::{
    AILMENT, ALL_NAMES, Outcomes, SECOND_SYN, WATCHING, attach, attached, connected,
    nothing_is_lost, observed,
};
use crate::agent::{Agent, SOON, check};

const SERVICE: u16 = 8_000;
const CLIENT: u16 = 20_000;

const KEEPS: Settings = Settings {
    expire_nodest_conn: 0,
    ..Settings::KUBE_PROXY
};

/// Functions that every packet of IPVS passes.
const PACKET_PATH: [&str; 3] = [
    "ip_vs_in_hook",
    "ip_vs_remote_request4",
    "ip_vs_conn_in_get_proto",
];

/// The kernel's own list of functions that call somebody at their entry.
fn packet_path_is_probed(guest: &Guest) -> Result<bool> {
    let probed = guest.sh("cat /sys/kernel/tracing/enabled_functions")?;
    let mut names = probed
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    Ok(names.any(|name| PACKET_PATH.contains(&name)))
}

/// With kube-proxy's settings no packet is ever looked at, whatever happens to destinations; told
/// to keep connections, IPVS is watched at once.
pub(crate) fn the_packet_hook_is_left_alone_as_kube_proxy_sets_it(
    guest: &Guest,
) -> Result<Verdict> {
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, Settings::KUBE_PROXY)?;
    let agent = observed(guest, &site)?;
    site.add_services(guest, &[SERVICE, SERVICE + 1])?;
    site.add_new_server(guest, &[SERVICE, SERVICE + 1])?;
    site.drain_old_server(guest, &[SERVICE])?;
    site.remove_old_server(guest, &[SERVICE + 1])?;
    agent.shows("the drained server", SOON, |metrics| {
        let drained = metrics.value("nodemedic_ipvs_conn_reuse_drained_destinations", &[])?;
        ensure!(drained == 1.0, "{drained} are drained");
        Ok(())
    })?;
    ensure!(agent.metrics()?.value(WATCHING, &[])? == 0.0, "it watches");
    ensure!(!packet_path_is_probed(guest)?, "the packet hook is probed");

    site.set(guest, KEEPS)?;
    agent.shows("it watches", SOON, |metrics| {
        let watching = metrics.value(WATCHING, &[])?;
        ensure!(
            watching == 1.0 && packet_path_is_probed(guest)?,
            "{watching}"
        );
        Ok(())
    })?;
    site.set(guest, Settings::KUBE_PROXY)?;
    eventually(SOON, "it watches no more", || {
        ensure!(!packet_path_is_probed(guest)?, "the packet hook is probed");
        Ok(())
    })?;
    nothing_is_lost(&agent.metrics()?)?;
    Ok(Verdict::Passed)
}

/// The services are counted once an hour here, so that nothing but the change itself can tell.
pub(crate) fn a_removal_is_noticed_between_two_readings(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, KEEPS)?;
    let settings = "scan_interval = \"1h\"\ntrace_linger = \"10s\"\ntop_services = 100";
    let agent = attached(guest, &site, settings)?;
    let services = [SERVICE, SERVICE + 1];
    site.add_services(guest, &services)?;
    let ports = [(CLIENT, SERVICE), (CLIENT + 1, SERVICE + 1)];
    let old = connected(&site, &ports)?;
    reuse::close_all(old.into_iter().map(|old| (old, Close::Vanished)))?;
    site.add_new_server(guest, &services)?;
    type Change = fn(&Site, &Guest, &[u16]) -> Result<()>;
    let changes: [Change; 2] = [Site::drain_old_server, Site::remove_old_server];
    for (change, (client, service)) in changes.into_iter().zip(ports) {
        eventually(2 * SOON, "it watches no more", || {
            ensure!(!packet_path_is_probed(guest)?, "the packet hook is probed");
            Ok(())
        })?;
        change(&site, guest, &[service])?;
        eventually(SOON, "it watches", || {
            ensure!(
                packet_path_is_probed(guest)?,
                "the packet hook is not probed"
            );
            Ok(())
        })?;
        agent.shows("and says so", SOON, |metrics| {
            ensure!(metrics.value(WATCHING, &[])? == 1.0, "it does not");
            Ok(())
        })?;
        site.connect(client, service, SECOND_SYN)?;
    }
    agent.shows("what became of both", SOON, |metrics| {
        let drained = Outcomes::of(metrics, site.service(SERVICE));
        ensure!(drained.stale_destination == 1, "{drained:?}");
        let removed = Outcomes::of(metrics, site.service(SERVICE + 1));
        ensure!(removed.dropped_silently >= 2, "{removed:?}");
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

/// Packets of UDP and SCTP make IPVS expire their connections as well. They are no SYNs.
pub(crate) fn other_protocols_are_not_counted(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, KEEPS)?;
    let agent = observed(guest, &site)?;
    let (service, old) = (site.service(SERVICE), site.server(Name::Old));
    guest.sh(&format!(
        "ipvsadm -A -u {service} -s rr && ipvsadm -a -u {service} -r {old} -m &&
         ipvsadm -A --sctp-service {service} -s rr && ipvsadm -a --sctp-service {service} -r {old} -m"
    ))?;
    guest.modprobe("sctp")?;
    let client = SocketAddr::new(site.client_address(), CLIENT);
    let udp = site.client().within(|| Ok(UdpSocket::bind(client)?))?;
    let _sink = site
        .namespace(Name::Old)
        .within(|| Ok(UdpSocket::bind((site.server(Name::Old).ip(), SERVER_PORT))?))?;
    udp.send_to(b"?", service)?;
    ask_by_sctp(site.client(), client, service)?;
    eventually(SOON, "IPVS has a connection of both", || {
        let table = guest.sh("cat /proc/net/ip_vs_conn")?;
        ensure!(table.contains("UDP") && table.contains("SCTP"), "{table}");
        Ok(())
    })?;
    guest.sh(&format!(
        "ipvsadm -d -u {service} -r {old} && ipvsadm -e --sctp-service {service} -r {old} -m -w 0"
    ))?;
    // Only now, or the kernel would have expired them by itself.
    site.set(guest, Settings::KUBE_PROXY)?;
    let calls = count_calls(guest, "ip_vs_conn_expire_now", || {
        udp.send_to(b"?", service)?;
        ask_by_sctp(site.client(), client, service)?;
        std::thread::sleep(Duration::from_millis(500));
        Ok(())
    })?;
    ensure!(calls == 2, "IPVS expired {calls} connections, not of 2");

    // A SYN comes after them, so that they would have been counted by then.
    site.add_services(guest, &[SERVICE])?;
    let tcp = connected(&site, &[(CLIENT, SERVICE)])?;
    reuse::close_all(tcp.into_iter().map(|tcp| (tcp, Close::ClientReset)))?;
    site.connect(CLIENT, SERVICE, SECOND_SYN)?
        .context("nobody answers")?;
    agent.shows("the SYN alone", SOON, |metrics| {
        let counted = Outcomes::all(metrics);
        ensure!(counted.rescheduled + counted.dropped == 1, "{counted:?}");
        ensure!(
            counted.dropped_silently + counted.stale_destination == 0,
            "{counted:?}"
        );
        nothing_is_lost(metrics)
    })?;
    Ok(Verdict::Passed)
}

/// Sends an INIT from this address. Nobody has to answer.
fn ask_by_sctp(namespace: &NetNs, from: SocketAddr, to: SocketAddr) -> Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = namespace.within(|| {
        socket(
            AddressFamily::Inet,
            SockType::Stream,
            flags,
            SockProtocol::Sctp,
        )
        .context("make an SCTP socket")
    })?;
    // Nothing of it is left when it is closed.
    let at_once = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&socket, sockopt::Linger, &at_once).context("set SO_LINGER")?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from)).context("bind an SCTP socket")?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(()),
        Err(error) => Err(error).context("connect by SCTP"),
    }
}

/// How often the kernel's own tracer sees a function called meanwhile.
fn count_calls(guest: &Guest, function: &str, f: impl FnOnce() -> Result<()>) -> Result<usize> {
    guest.sh(&format!(
        "cd /sys/kernel/tracing && echo {function} > set_ftrace_filter && echo function > current_tracer"
    ))?;
    f()?;
    let trace = guest.sh("cat /sys/kernel/tracing/trace")?;
    guest.sh("cd /sys/kernel/tracing && echo nop > current_tracer && echo > set_ftrace_filter")?;
    let lines = trace.lines().filter(|line| !line.starts_with('#'));
    Ok(lines.filter(|line| line.contains(function)).count())
}

/// Two directors with the same addresses, each in a namespace of its own and told differently.
pub(crate) fn two_namespaces_are_told_apart(guest: &Guest) -> Result<Verdict> {
    let (here, apart) = (
        Site::build(guest, Family::V4)?,
        Site::apart(guest, Family::V4, "2")?,
    );
    here.set(guest, Settings::KUBE_PROXY)?;
    apart.set(guest, KEEPS)?;
    apart.add_services(guest, &[SERVICE])?;
    let agent = observed(guest, &here)?;
    here.add_services(guest, &[SERVICE])?;
    for site in [&here, &apart] {
        let old = connected(site, &[(CLIENT, SERVICE)])?;
        reuse::close_all(old.into_iter().map(|old| (old, Close::Vanished)))?;
        site.add_new_server(guest, &[SERVICE])?;
        site.drain_old_server(guest, &[SERVICE])?;
    }
    agent.shows("it watches", SOON, |metrics| {
        ensure!(metrics.value(WATCHING, &[])? == 1.0, "it does not");
        Ok(())
    })?;
    for site in [&here, &apart] {
        site.connect(CLIENT, SERVICE, SECOND_SYN)?
            .context("nobody answers")?;
    }
    let (here, apart) = (here.netns(guest)?, apart.netns(guest)?);
    agent.shows("each under its own name", SOON, |metrics| {
        let of = |netns: &str| Outcomes::with(metrics, &[("netns", netns)]);
        let wanted = Outcomes {
            dropped: 1,
            ..Outcomes::default()
        };
        ensure!(of(&here) == wanted, "here: {:?}", of(&here));
        let wanted = Outcomes {
            stale_destination: 1,
            ..Outcomes::default()
        };
        let mut apart = of(&apart);
        // The old server knows nothing of the client's SYN, so that it resets and tries again.
        apart.rescheduled = 0;
        apart.dropped = 0;
        ensure!(apart == wanted, "apart: {apart:?}");
        Ok(())
    })?;
    Ok(Verdict::Passed)
}

/// The module comes after the agent, goes, and comes back; what is counted is exact each time.
pub(crate) fn the_module_comes_goes_and_comes_back(guest: &Guest) -> Result<Verdict> {
    ensure!(!guest.is_loaded("ip_vs")?, "ip_vs is loaded already");
    let agent = Agent::start_for(guest, AILMENT, ALL_NAMES)?;
    agent.waits_for("ip_vs")?;
    let site = Site::build(guest, Family::V4)?;
    for round in 1..=2 {
        guest.modprobe("ip_vs_wlc")?;
        site.set(guest, Settings::KUBE_PROXY)?;
        attach(&agent, guest, &site)?;
        let before = Outcomes::all(&agent.metrics()?);
        site.add_services(guest, &[SERVICE])?;
        let old = connected(&site, &[(CLIENT, SERVICE)])?;
        reuse::close_all(old.into_iter().map(|old| (old, Close::ServerReset)))?;
        site.connect(CLIENT, SERVICE, SECOND_SYN)?
            .context("nobody answers")?;
        agent.shows("one more", SOON, |metrics| {
            let counted = Outcomes::all(metrics);
            ensure!(
                counted.dropped == before.dropped + 1,
                "round {round}: {before:?}, then {counted:?}"
            );
            Ok(())
        })?;
        site.clear(guest)?;
        agent.lets_go_of(guest, &["ip_vs_wlc", "ip_vs"])?;
        agent.waits_for("ip_vs")?;
    }
    Ok(Verdict::Passed)
}

/// Without probes nothing is counted, but what the settings risk is said.
pub(crate) fn without_hooks_the_baseline_stands_in(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest, Family::V4)?;
    site.set(guest, Settings::KUBE_PROXY)?;
    site.add_services(guest, &[SERVICE])?;
    let agent = Agent::start_for(guest, AILMENT, &format!("{ALL_NAMES}\nhooks = []"))?;
    site.drain_old_server(guest, &[SERVICE])?;
    agent.finds(&[], SOON)?;
    site.set(guest, KEEPS)?;
    let finding = agent.finds_one("drained_exposed", SOON)?;
    let remedies = finding["remedies"].to_string();
    ensure!(
        remedies.contains("sysctl -w net.ipv4.vs.expire_nodest_conn=1"),
        "{remedies}"
    );
    let probes = agent.report()?["probes"].to_string();
    ensure!(probes.contains("hooks"), "{probes}");
    if agent
        .metrics()?
        .select(super::SERVICE_SYNS, &[])
        .next()
        .is_some()
    {
        bail!("SYNs are counted without a probe");
    }
    site.set(guest, Settings::KUBE_PROXY)?;
    agent.finds(&[], SOON)?;
    let status = check(guest, &[AILMENT])?.status;
    ensure!(
        super::finds_nothing(guest, status.code()),
        "check ends with {status}"
    );
    Ok(Verdict::Passed)
}
