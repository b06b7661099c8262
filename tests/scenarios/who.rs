//! Who: the names of pods and containers, by a real containerd, wherever the agent names somebody.

use anyhow::{Result, ensure};
use nodemedic_tests::faults::cgroup::SPIN;
use nodemedic_tests::guest::Guest;
use nodemedic_tests::pods::{GATEWAY, PodSpec, Runtime};
use nodemedic_tests::scenario::Verdict;

use crate::agent::{Agent, SOON, check};

/// Two pods of one name, one of them with a container that spins under a quota, the other with one
/// that asks for names of hosts; and one that also spins, with an odd name and the node's network.
pub(crate) fn pods_are_named_by_a_real_containerd(guest: &Guest) -> Result<Verdict> {
    let mut runtime = Runtime::start(guest)?;
    let pod = |namespace, name, uid, labels, host_network| {
        let spec = PodSpec {
            namespace,
            name,
            uid,
            labels,
            host_network,
        };
        runtime.pod(guest, spec)
    };
    let agent = Agent::start_whole(guest, "psi_stall", "[node]\nrefresh = \"5s\"")?;
    // They come after the agent has asked for names, so it has to ask again.
    let spins = pod(
        "blue",
        "web",
        "1858680e-b044-4fd5-9dd4-f137e30e2180",
        &[("app.kubernetes.io/name", "shop"), ("tier", "front")],
        false,
    )?;
    let asks = pod(
        "green",
        "web",
        "2858680e-b044-4fd5-9dd4-f137e30e2181",
        &[("app", "asker")],
        false,
    )?;
    let host = pod(
        "odd",
        "a\"b\\c\nd",
        "3858680e-b044-4fd5-9dd4-f137e30e2182",
        &[],
        true,
    )?;
    spins.run(guest, "spin-1", Some(20), SPIN)?;
    host.run(guest, "spin-2", Some(10), SPIN)?;

    let named = "pod blue/web container spin-1, cgroup /kubepods/burstable/pod1858680e";
    agent.shows("the container's name", 2 * SOON, |_| {
        let finding = agent.finds_one("cpu_throttled", SOON)?;
        for parties in ["victims", "culprits"] {
            let text = finding[parties].to_string();
            ensure!(text.contains(named), "{parties}: {text}");
        }
        Ok(())
    })?;
    agent.shows("the names of its cgroup", SOON, |metrics| {
        let labels = [
            ("namespace", "blue"),
            ("pod", "web"),
            ("container", "spin-1"),
            ("label_app_kubernetes_io_name", "shop"),
            ("label_app", ""),
        ];
        metrics.value("nodemedic_psi_stall_cgroup_info", &labels)?;
        // One that was not chosen is not passed on.
        let fronts = [("label_tier", "front")];
        let fronts = metrics.select("nodemedic_psi_stall_cgroup_info", &fronts);
        ensure!(fronts.count() == 0, "a label is passed on");
        // A control character is not passed on.
        let odd = [
            ("namespace", "odd"),
            ("pod", "a\"b\\c\u{fffd}d"),
            ("container", "spin-2"),
            ("label_app_kubernetes_io_name", ""),
        ];
        metrics.value("nodemedic_psi_stall_cgroup_info", &odd)?;
        Ok(())
    })?;

    // Packets of the pods to the node are tracked.
    guest.sh("iptables -A INPUT -m conntrack --ctstate NEW")?;
    let script = format!("while :; do nslookup a.test {GATEWAY}; sleep 0.1; done");
    asks.run(guest, "asker", None, &script)?;
    let source = asks.address(guest)?.to_string();
    agent.shows("its queries under its name", 2 * SOON, |metrics| {
        let labels = [("source", source.as_str()), ("port", "53")];
        let queries = metrics.value("nodemedic_udp_conntrack_created_total", &labels)?;
        ensure!(queries > 3.0, "{queries} queries");
        let labels = [
            ("source", source.as_str()),
            ("namespace", "green"),
            ("pod", "web"),
            ("label_app", "asker"),
        ];
        metrics.value("nodemedic_udp_conntrack_source_info", &labels)?;
        let own = metrics.value("nodemedic_conntrack_netns_info", &labels[1..])?;
        ensure!(own == 1.0, "{own}");
        Ok(())
    })?;

    agent.shows("how well names are known", SOON, |metrics| {
        let source = metrics.value("nodemedic_pod_lookup_source_info", &[("source", "cri")])?;
        let pods = metrics.value("nodemedic_pod_lookup_objects", &[("object", "pods")])?;
        ensure!(source == 1.0 && pods == 3.0, "{source}, {pods} pods");
        Ok(())
    })?;
    let output = check(guest, &[])?;
    let report = output
        .stdout
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    for part in [
        "names of 3 pods, 6 containers: by cri, /run/containerd/containerd.sock",
        named,
    ] {
        ensure!(report.contains(part), "no {part:?} in: {}", output.stdout);
    }

    // What is known stays known while the runtime is away; the agent says that it is.
    runtime.stop();
    agent.shows("that nobody answers", 3 * SOON, |metrics| {
        let failed = metrics.value(
            "nodemedic_pod_lookup_requests_total",
            &[("outcome", "failed")],
        )?;
        ensure!(failed > 0.0, "{failed} have failed");
        let labels = [("namespace", "blue"), ("container", "spin-1")];
        metrics.value("nodemedic_psi_stall_cgroup_info", &labels)?;
        Ok(())
    })?;
    Ok(Verdict::Passed)
}
