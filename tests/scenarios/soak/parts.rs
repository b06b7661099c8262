//! The parts of a round: each has one fault on the node, compares what the agent counts with what the
//! kernel or the client does, has it treated, and ends it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::faults::cgroup::{Cgroup, HUNGRY, SPIN};
use nodemedic_tests::faults::dns::{self, CLIENT};
use nodemedic_tests::faults::ipvs::{self, Family, Services};
use nodemedic_tests::faults::namespaces;
use nodemedic_tests::faults::reuse::{self, Close, Settings};
use nodemedic_tests::http;
use nodemedic_tests::metrics::Metrics;
use serde_json::{Value, json};

use super::runtime::runtime;
use super::{Node, load_modules};
use crate::agent::{SOON, verb};
use crate::ipvs_conn_reuse::clients::{Seen, come_back};
use crate::ipvs_conn_reuse::{self as conn_reuse, DELAYS, Outcomes};
use crate::ipvs_estimation::ESTIMATORS;
use crate::psi_stall::SECONDS;
use crate::treatment::disk;
use crate::udp_conntrack::{self, CREATED, MAX};

/// One thing that happens on a node.
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) run: fn(&mut Node<'_>) -> Result<()>,
}

pub(super) const PARTS: [Part; 10] = [
    Part {
        name: "dns",
        run: dns,
    },
    Part {
        name: "conn_reuse",
        run: conn_reuse,
    },
    Part {
        name: "services",
        run: services,
    },
    Part {
        name: "memory",
        run: memory,
    },
    Part {
        name: "quota",
        run: quota,
    },
    Part {
        name: "modules",
        run: modules,
    },
    Part {
        name: "namespaces",
        run: namespaces,
    },
    Part {
        name: "cgroups",
        run: cgroups,
    },
    Part {
        name: "runtime",
        run: runtime,
    },
    Part {
        name: "full_disk",
        run: full_disk,
    },
];

/// Readings are 5 s apart, and a module's probes are attached after the next one.
const ATTACHED: Duration = Duration::from_mins(2);

/// Where the agent takes alerts.
const WEBHOOK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 19_111);

/// Waits until an ailment has a reading with all its probes.
fn covers(node: &Node<'_>, ailment: &str) -> Result<()> {
    eventually(ATTACHED, "all probes are attached", || {
        let report = node.agent.report_of(ailment)?;
        ensure!(
            report["coverage"]["state"] == "full" && !report["reading"].is_null(),
            "{ailment}: {} {}",
            report["coverage"],
            report["probes"]
        );
        Ok(())
    })
}

/// What an ailment's probes have missed by the kernel's count.
fn lost(metrics: &Metrics, ailment: &str) -> f64 {
    metrics.sum(
        "nodemedic_ailment_lost_events_total",
        &[("ailment", ailment)],
    )
}

/// Short exchanges fill a small table.
fn dns(node: &mut Node<'_>) -> Result<()> {
    const EXCHANGES: u16 = 200;
    let guest = node.guest;
    let site = dns::Site::build(guest)?;
    covers(node, "udp_conntrack")?;
    let client = CLIENT.to_string();
    let of_client =
        |metrics: &Metrics| metrics.sum(CREATED, &[("source", &client), ("port", "53")]);
    let before = node.settled("udp_conntrack")?;
    site.one_shots(20_000..20_000 + EXCHANGES)?;
    node.agent.shows("every exchange", SOON, |metrics| {
        let counted = of_client(metrics) - of_client(&before);
        let missed = lost(metrics, "udp_conntrack") - lost(&before, "udp_conntrack");
        let made = f64::from(EXCHANGES);
        ensure!(
            counted <= made && counted + missed >= made,
            "{counted} entries counted, {missed} missed, {made} exchanges made"
        );
        Ok(())
    })?;
    guest.set_sysctl(MAX, "300")?;
    site.flood(21_000..21_400)?;
    node.agent.shows(
        "refused packets as the kernel counts them",
        SOON,
        |metrics| {
            let stat = guest.sh("cat /proc/net/stat/nf_conntrack")?;
            for reason in ["drop", "early_drop"] {
                let kernel = f64::from(udp_conntrack::sum(&stat, reason)?);
                let shown =
                    metrics.value("nodemedic_conntrack_drops_total", &[("reason", reason)])?;
                ensure!(
                    shown == kernel,
                    "{reason}: {shown}, the kernel has {kernel}"
                );
            }
            Ok(())
        },
    )?;
    node.counts.alerts += 1;
    let alert = node.counts.alerts;
    eventually(2 * SOON, "an alert begins a treatment", || {
        site.flood(21_000..21_400)?;
        alert_is(alert, "firing", "begun")
    })?;
    node.counts.treatments += 1;
    alert_is(alert, "resolved", "undone")?;
    guest.set_sysctl(MAX, &node.own[MAX])?;
    eventually(SOON, "nothing is treated", || node.is_untreated())?;
    guest.sh("conntrack -F 2>/dev/null")?;
    site.forget_rules(guest)?;
    node.counts.comparisons += 3;
    Ok(())
}

/// Sends an alert on full tables, as Alertmanager does, and expects this decision.
fn alert_is(number: u32, status: &str, decision: &str) -> Result<()> {
    let payload = json!({
        "version": "4",
        "groupKey": "soak",
        "alerts": [{
            "status": status,
            "labels": {"node": "guest", "ailment": "udp_conntrack", "treatment": "udp_timeout"},
            "startsAt": "2026-01-01T00:00:00Z",
            "endsAt": "2026-01-01T00:00:01Z",
            "fingerprint": format!("{number:016x}"),
        }],
    });
    let answer = http::post_json(WEBHOOK, "/alertmanager", &payload.to_string())?;
    let decided: Value = serde_json::from_str(&answer.body)
        .with_context(|| format!("status {}: {}", answer.status, answer.body))?;
    ensure!(
        decided["alerts"][0]["decision"] == decision,
        "a {status} alert: {decided}"
    );
    Ok(())
}

/// A server is replaced, and clients come back on their ports.
fn conn_reuse(node: &mut Node<'_>) -> Result<()> {
    const SERVICE: u16 = 8_000;
    const CLIENTS: u16 = 30;
    let guest = node.guest;
    let site = reuse::Site::build(guest, Family::V4)?;
    site.set(guest, Settings::KUBE_PROXY)?;
    conn_reuse::attach(&node.agent, guest, &site)?;
    let before = node.settled("ipvs_conn_reuse")?;
    site.add_services(guest, &[SERVICE])?;
    let ports = (0..CLIENTS).map(|client| (20_000 + client, SERVICE));
    let ports = ports.collect::<Vec<_>>();
    let old = conn_reuse::connected(&site, &ports)?;
    site.add_new_server(guest, &[SERVICE])?;
    site.drain_old_server(guest, &[SERVICE])?;
    reuse::close_all(old.into_iter().zip(Close::ALL.into_iter().cycle()))?;
    let Seen { delayed, lost } = come_back(&site, &ports)?;
    ensure!(delayed > 0, "nobody waited for a drained server");
    node.agent.shows("what the clients saw", SOON, |metrics| {
        let delays = metrics.sum(DELAYS, &[]) - before.sum(DELAYS, &[]);
        let dropped = Outcomes::all(metrics).dropped - Outcomes::all(&before).dropped;
        ensure!(
            delays == f64::from(delayed) && dropped == lost,
            "{delays} delays, {dropped} dropped; the clients saw {delayed} and {lost}"
        );
        Ok(())
    })?;
    node.agent
        .finds_one_of("ipvs_conn_reuse", "delayed", 2 * SOON)?;
    node.treat("ipvs_conn_reuse", "tcp_timeout_close")?;
    site.clear(guest)?;
    node.counts.comparisons += 2;
    drop(site);
    guest.sh("nft flush ruleset; ip link del vip").map(drop)
}

/// Services that IPVS estimates.
fn services(node: &mut Node<'_>) -> Result<()> {
    const SERVICES: u32 = 200;
    let guest = node.guest;
    Services::new(SERVICES).add(guest)?;
    let listed = ipvs::listed(guest)?;
    let wanted = f64::from(listed.services + listed.destinations + 1);
    // The scan comes every 30 s.
    node.agent.shows("every estimator", 3 * SOON, |metrics| {
        let estimators = metrics.sum(ESTIMATORS, &[]);
        ensure!(
            estimators == wanted,
            "{estimators} estimators, IPVS lists {listed:?}"
        );
        Ok(())
    })?;
    // Without services it has nothing to treat.
    if node.own.contains_key("net.ipv4.vs.run_estimation") {
        node.treat("ipvs_estimation", "run_estimation")?;
    }
    ipvs::clear(guest)?;
    node.counts.comparisons += 1;
    Ok(())
}

fn memory(node: &mut Node<'_>) -> Result<()> {
    stall(
        node,
        "memory",
        ("memory.high", "16777216"),
        HUNGRY,
        "memory_limit",
    )
}

fn quota(node: &mut Node<'_>) -> Result<()> {
    stall(
        node,
        "cpu",
        ("cpu.max", "20000 100000"),
        SPIN,
        "cpu_throttled",
    )
}

/// A task that waits in a cgroup, twice: what comes on top in the second time is as the cgroup's own
/// file says.
fn stall(
    node: &mut Node<'_>,
    resource: &str,
    (file, limit): (&str, &str),
    work: &str,
    kind: &str,
) -> Result<()> {
    const PATH: &str = "/soak/task";
    let guest = node.guest;
    let limited = Cgroup::create("/soak")?;
    let task = Cgroup::create(PATH)?;
    let labels = [("resource", resource), ("stall", "some"), ("cgroup", PATH)];
    let start = || {
        limited.set(file, limit)?;
        task.start(guest, "work", work)
    };
    let working = start()?;
    node.agent.finds_one_of("psi_stall", kind, 2 * SOON)?;
    drop(working);
    let settled = |node: &Node<'_>| -> Result<(f64, f64)> {
        // What the shell has started ends by itself, once it may.
        limited.set(file, "max")?;
        task.empties()?;
        let shown = node.settled("psi_stall")?.value(SECONDS, &labels)?;
        Ok((shown, task.waited_for(resource)?.as_secs_f64()))
    };
    let first = settled(node)?;
    let working = start()?;
    sleep(Duration::from_secs(3));
    drop(working);
    let second = settled(node)?;
    let (agent, kernel) = (second.0 - first.0, second.1 - first.1);
    ensure!(
        kernel > 0.0 && (agent - kernel).abs() < 0.001,
        "tasks waited for {resource} for {agent} s by the agent, {kernel} s by the kernel"
    );
    task.remove()?;
    limited.remove()?;
    node.counts.cgroups += 2;
    node.counts.comparisons += 1;
    Ok(())
}

/// The modules go, with the agent's probes on them, and come back.
fn modules(node: &mut Node<'_>) -> Result<()> {
    let guest = node.guest;
    guest.sh("nft flush ruleset")?;
    node.agent
        .lets_go_of(guest, &["ip_vs_rr", "ip_vs_wlc", "ip_vs"])?;
    eventually(2 * SOON, "the agent does not keep nf_conntrack", || {
        udp_conntrack::unload(guest)
    })?;
    eventually(SOON, "the agent waits for the modules", || {
        for (ailment, module) in [
            ("udp_conntrack", "nf_conntrack"),
            ("ipvs_estimation", "ip_vs"),
        ] {
            let coverage = node.agent.report_of(ailment)?["coverage"].clone();
            ensure!(coverage["module"] == module, "{ailment}: {coverage}");
        }
        Ok(())
    })?;
    load_modules(guest)?;
    node.counts.reloads += 1;
    covers(node, "udp_conntrack")
}

fn namespaces(node: &mut Node<'_>) -> Result<()> {
    const AT_ONCE: u32 = 100;
    namespaces::storm(node.guest, AT_ONCE, Duration::from_secs(7))?;
    node.counts.namespaces += AT_ONCE;
    Ok(())
}

fn cgroups(node: &mut Node<'_>) -> Result<()> {
    let storm = Cgroup::create("/storm")?;
    let over = true.into();
    node.counts.cgroups += storm.come_and_go(600, &over)? + 1;
    storm.remove()
}

/// What is treated on a full disk is put back.
fn full_disk(node: &mut Node<'_>) -> Result<()> {
    let guest = node.guest;
    node.treat("udp_conntrack", "udp_timeout")?;
    disk::fill(guest)?;
    let undone = verb(guest, &["undo"])?.ok()?;
    ensure!(!undone.contains("not recorded"), "{undone}");
    eventually(SOON, "nothing is treated", || node.is_untreated())?;
    disk::free(guest)?;
    node.counts.full_disks += 1;
    Ok(())
}
