//! The ailment's metrics: the only definition of each, and how a reading fills them.

use ebpf::psi_stall::UNIT_NS;

use super::{
    Reading,
    judge::NODE,
    measure::{NodeReading, ProbedReading, Waits},
};
use crate::{
    kernel::pressure::Resource,
    model::{Sample, metrics},
    node::{Name, Owner, PodLabels, Qos, Runtime},
};

metrics! {
    pub(super) ALL:
    /// Time that at least one task (some), or all tasks with work (full), waited for a resource: on
    /// the node since boot, in a cgroup and those below it since its series exists. The series
    /// other is the sum of all other cgroups.
    SECONDS: Counter = "nodemedic_psi_stall_seconds_total" ["resource", "stall", "cgroup"];
    // Apart from the counter: its series must not change when a name becomes known.
    /// Always 1; the pod, container or unit of a cgroup, from its path and from the runtime or the
    /// kubelet; the outermost where one is inside of another. container_id is a name for LXC,
    /// systemd-nspawn and virtual machines. Labels without a value are empty. Further labels,
    /// label_*: the labels of the pod that node.pod_labels names.
    SCOPE_INFO: Gauge = "nodemedic_psi_stall_cgroup_info"
        ["cgroup", "namespace", "pod", "container", "pod_uid", "qos", "container_id", "runtime", "unit"];
    /// 1 while PSI triggers wake the agent as soon as tasks of the node wait too long, else 0.
    ARMED: Gauge = "nodemedic_psi_stall_triggers_active" [];
    /// Cgroups with PSI triggers: those with the most recent stalls.
    ARMED_CGROUPS: Gauge = "nodemedic_psi_stall_cgroup_triggers_active" [];
    /// Events of PSI triggers, by resource.
    CALLS: Counter = "nodemedic_psi_stall_trigger_events_total" ["resource"];
    /// Events of memory management on the node since boot that explain why tasks wait for memory.
    /// allocstall, pgscan and pgsteal exclude reclaim by the limit of a cgroup.
    MEMORY_EVENTS: Counter = "nodemedic_psi_stall_memory_events_total" ["event"];
    /// Memory that waits to be written to disk, or that the kernel is writing.
    DIRTY: Gauge = "nodemedic_psi_stall_dirty_bytes" ["state"];
    /// Cgroups that the agent knows, and those that the last scan visited.
    CGROUPS: Gauge = "nodemedic_psi_stall_cgroups" ["state"];
    /// Duration of the last scan of the tree of cgroups.
    SCAN_SECONDS: Gauge = "nodemedic_psi_stall_scan_seconds" [];
    /// 1 if the last scan of the tree of cgroups was complete, 0 if a limit ended it.
    SCAN_COMPLETE: Gauge = "nodemedic_psi_stall_scan_complete" [];
    /// Duration of each wait of a task for memory.
    MEMSTALL: Histogram = "nodemedic_psi_stall_memstall_seconds" [];
    /// Time that tasks waited, summed over tasks, by the kernel path that they waited in.
    CAUSE_SECONDS: Counter = "nodemedic_psi_stall_cause_seconds_total" ["resource", "cause"];
    /// Time that tasks of a cgroup, without those of cgroups below it, waited, summed over tasks
    /// since its series exists. The series other is the sum of all other cgroups. Kernel threads
    /// are included.
    TASK_SECONDS: Counter = "nodemedic_psi_stall_task_seconds_total" ["resource", "cgroup"];
    /// 1 while the tracepoints of the scheduler are attached, which is for a few seconds after
    /// tasks waited too long for CPUs or disks, else 0.
    TRACING_ACTIVE: Gauge = "nodemedic_psi_stall_tracing_active" [];
    /// Times that the tracepoints of the scheduler were attached.
    TRACINGS: Counter = "nodemedic_psi_stall_tracings_total" [];
    /// Time that the tracepoints of the scheduler were attached. Waits for CPUs and disks are
    /// counted by cause and by task only in this time.
    TRACING_SECONDS: Counter = "nodemedic_psi_stall_tracing_seconds_total" [];
}

/// The scope of all cgroups that are not shown.
const OTHER: &str = "other";

/// The reading as series.
pub(super) fn samples(reading: &Reading) -> Vec<Sample> {
    let mut samples = node(&reading.node);
    let armed = !reading.armed.is_empty();
    samples.push(Sample::plain(&ARMED, f64::from(u8::from(armed))));
    samples.push(Sample::plain(&ARMED_CGROUPS, reading.armed_cgroups as f64));
    let calls = reading.armed.iter();
    samples.extend(
        calls.map(|(resource, calls)| Sample::number(&CALLS, [resource.name()], *calls as f64)),
    );
    if let Some(probed) = &reading.probed {
        samples.extend(of_probes(probed));
    }
    if let Some(scan) = reading.scan {
        samples.push(Sample::plain(&SCAN_SECONDS, scan.seconds));
        samples.push(Sample::plain(
            &SCAN_COMPLETE,
            f64::from(u8::from(scan.complete)),
        ));
        let states = [("known", scan.known), ("visited", scan.visited)];
        samples.extend(
            states.map(|(state, cgroups)| Sample::number(&CGROUPS, [state], cgroups as f64)),
        );
        samples.extend(of_cgroup(OTHER, &reading.other));
    }
    let labels = &reading.pod_labels;
    samples.push(info(OTHER, None, labels));
    let scopes = reading.scopes().into_iter();
    samples.extend(scopes.map(|path| info(path, reading.names.get(path), labels)));
    // The last are what the cap on series takes first.
    for (path, waits) in &reading.shown {
        samples.extend(of_cgroup(path, waits));
    }
    samples
}

fn of_probes(probed: &ProbedReading) -> Vec<Sample> {
    let mut samples = vec![Sample::plain(&MEMSTALL, probed.memory.histogram(UNIT_NS))];
    let causes = probed.causes.iter();
    samples.extend(causes.map(|it| {
        let labels = [it.resource.name(), it.cause.name()];
        Sample::number(&CAUSE_SECONDS, labels, it.total)
    }));
    let shown = probed.shown.iter();
    let all = shown.map(|(path, waits)| (path.as_str(), waits));
    samples.extend(
        all.chain([(OTHER, &probed.other)])
            .flat_map(|(scope, waits)| {
                [
                    (Resource::Memory, waits.memory),
                    (Resource::Cpu, waits.cpu),
                    (Resource::Io, waits.io),
                ]
                .map(|(resource, waited)| {
                    Sample::number(&TASK_SECONDS, [resource.name(), scope], waited)
                })
            }),
    );
    let trace = probed.trace;
    samples.push(Sample::plain(
        &TRACING_ACTIVE,
        f64::from(u8::from(trace.on)),
    ));
    samples.push(Sample::plain(&TRACINGS, trace.times as f64));
    samples.push(Sample::plain(&TRACING_SECONDS, trace.seconds));
    samples
}

fn info(path: &str, name: Option<&Name>, pod_labels: &PodLabels) -> Sample {
    let owner = Owner::of(path);
    let (pod, container) = (owner.pod.as_ref(), owner.container.as_ref());
    let qos = pod.and_then(|pod| pod.qos).map_or("", Qos::name);
    let runtime = container
        .and_then(|it| it.runtime)
        .map_or("", Runtime::name);
    let labels = [
        path,
        name.map_or("", |name| &name.namespace),
        name.map_or("", |name| &name.pod),
        name.map_or("", |name| &name.container),
        pod.map_or("", |pod| &pod.uid),
        qos,
        container.map_or("", |container| &container.id),
        runtime,
        owner.unit.as_deref().unwrap_or(""),
    ];
    Sample::number(&SCOPE_INFO, labels, 1.0).with(pod_labels.of(name))
}

fn node(node: &NodeReading) -> Vec<Sample> {
    let mut samples: Vec<_> = of_cgroup(NODE, &node.total).collect();
    if node.irq {
        samples.push(seconds(Resource::Irq, "full", NODE, node.total.irq.full));
    }
    samples.extend(
        node.events_total
            .named()
            .map(|(event, count)| Sample::number(&MEMORY_EVENTS, [event], count as f64)),
    );
    let memory = &node.memory;
    let states = [("dirty", memory.dirty), ("writeback", memory.writeback)];
    samples.extend(states.map(|(state, bytes)| Sample::number(&DIRTY, [state], bytes as f64)));
    samples
}

fn of_cgroup<'r>(scope: &'r str, waits: &'r Waits) -> impl Iterator<Item = Sample> + 'r {
    let resources = [Resource::Cpu, Resource::Memory, Resource::Io].into_iter();
    resources.flat_map(move |resource| {
        let wait = waits.of(resource);
        [("some", wait.some), ("full", wait.full)]
            .map(|(kind, time)| seconds(resource, kind, scope, time))
    })
}

fn seconds(resource: Resource, kind: &str, scope: &str, time: f64) -> Sample {
    Sample::number(&SECONDS, [resource.name(), kind, scope], time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_there_whatever_the_path_tells() {
        let labels = PodLabels::usual();
        let id = "c".repeat(64);
        let pod = format!("/kubepods/burstable/pod1858680e-b044-4fd5-9dd4-f137e30e2180/{id}");
        for path in [pod.as_str(), "/mine", "/system.slice/ssh.service"] {
            let info = info(path, None, &labels);
            assert_eq!(info.labels.len(), SCOPE_INFO.labels.len());
            assert_eq!(info.more, labels.of(None));
        }
        assert_eq!(
            info(&pod, None, &labels).labels[5..7],
            ["Burstable".to_owned(), id]
        );
        let mine = info("/mine", None, &labels).labels;
        assert_eq!(mine[0], "/mine");
        assert!(mine[1..].iter().all(String::is_empty));
        let name = Name {
            namespace: "shop".to_owned(),
            pod: "web-0".to_owned(),
            container: "app".to_owned(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            inside: String::new(),
        };
        let named = info(&pod, Some(&name), &labels);
        assert_eq!(named.more, labels.of(Some(&name)));
        assert_eq!(named.labels[..4], [pod.as_str(), "shop", "web-0", "app"]);
    }
}
