//! Pairs: the sick one is found, with who waits and who makes it wait, and the healthy
//! one is not.

mod knowledge;
mod reports;

use std::collections::BTreeMap;

use super::*;
use crate::{
    ailments::psi_stall::{
        PsiStall,
        causes::Cause,
        measure::{
            CauseReading, CpuReading, DiskReading, InterruptedCpu, MemoryReading, MemoryWindow,
            NodeReading, ProbedReading, ScanReading, WaiterReading, Waits,
        },
        treat,
    },
    collector::{Ailment as _, judged},
    kernel::{
        cgroup::{IoStat, Transfer},
        machine::{Memory, MemoryEvents},
        mounts::Mount,
        sleepers::{Place, Sleepers, Sleeping},
    },
    node::{Name, PodLabels},
};

const WINDOW: f64 = 10.0;

/// A node of two CPUs with a pod that works and one that idles; nothing wrong.
fn healthy() -> Reading {
    Reading {
        window_seconds: WINDOW,
        cpus: 2,
        agent_seconds: 0.01,
        cpu_on_version_1: false,
        memory_on_version_1: false,
        node: NodeReading {
            busy_seconds: Some(6.0),
            cpu: cpu(14.0, 0.0),
            interrupted: Some(InterruptedCpu {
                cpu: 0,
                time: CpuReading::default(),
                softirqs: Vec::new(),
            }),
            disks: Some(Vec::new()),
            isolated_cpus: Some(0),
            memory: Memory {
                total: 8 << 30,
                available: 4 << 30,
                dirty: 8 << 20,
                ..Memory::default()
            },
            sysctls: vec![
                ("vm.watermark_scale_factor".to_owned(), 10),
                ("vm.dirty_background_ratio".to_owned(), 10),
            ],
            netns: 1,
            ..NodeReading::default()
        },
        armed: Vec::new(),
        armed_cgroups: 0,
        cgroups: vec![
            cgroup("/pods", 5.0),
            cgroup("/pods/idle", 0.0),
            cgroup("/pods/works", 5.0),
        ],
        scan: Some(ScanReading {
            complete: true,
            ..ScanReading::default()
        }),
        impossible: Vec::new(),
        shown: Vec::new(),
        other: Waits::default(),
        probed: None,
        names: BTreeMap::new(),
        pod_labels: PodLabels::default(),
    }
}

fn cgroup(path: &str, cpu_seconds: f64) -> CgroupReading {
    CgroupReading {
        path: path.to_owned(),
        cpu_seconds,
        own_cpu_seconds: cpu_seconds,
        ..CgroupReading::default()
    }
}

fn at<'r>(reading: &'r mut Reading, path: &str) -> &'r mut CgroupReading {
    let cgroups = &mut reading.cgroups;
    if !cgroups.iter().any(|it| it.path == path) {
        cgroups.push(cgroup(path, 0.0));
    }
    let it = cgroups.iter_mut().find(|it| it.path == path);
    it.expect("it was put there")
}

/// Has a cgroup wait, those above it and the node with it.
fn wait(reading: &mut Reading, path: &str, resource: Resource, seconds: f64) {
    let set = |waits: &mut Waits| {
        let wait = match resource {
            Resource::Cpu => &mut waits.cpu,
            Resource::Memory => &mut waits.memory,
            Resource::Io => &mut waits.io,
            Resource::Irq => &mut waits.irq,
        };
        wait.some = wait.some.max(seconds);
    };
    let above: Vec<_> = super::super::measure::ancestors(path).collect();
    for path in above.into_iter().chain([path]) {
        set(&mut at(reading, path).waits);
    }
    set(&mut reading.node.window);
}

fn found(reading: &Reading) -> Vec<Finding> {
    let (_, found) = judged::<PsiStall>(reading, &Settings::default());
    for finding in &found {
        for evidence in &finding.evidence {
            names_a_metric_as_it_is(&evidence.metric);
        }
        let of_memory = finding.kind.starts_with("memory_");
        assert_eq!(finding.follows_load, !of_memory, "{finding:?}");
    }
    found
}

/// A query of a metric has that metric's labels, and no others.
fn names_a_metric_as_it_is(query: &str) {
    let Some(start) = query.find("nodemedic_") else {
        return;
    };
    let (name, rest) = query[start..]
        .split_once('{')
        .unwrap_or((&query[start..], ""));
    let name = name.split([' ', ')']).next().unwrap_or(name);
    let metric = PsiStall::METRICS.iter().find(|it| it.name == name);
    let metric = metric.unwrap_or_else(|| panic!("there is no metric {name}"));
    let labels = rest.split_once('}').map_or("", |(labels, _)| labels);
    for label in labels.split(',').filter_map(|it| it.split_once('=')) {
        assert!(metric.labels.contains(&label.0), "{query}: {label:?}");
    }
}

fn notes_of(reading: &Reading) -> Vec<String> {
    notes(reading, &Settings::default())
}

fn unknown_of(reading: &Reading) -> Vec<String> {
    unknown(reading, &Settings::default())
}

fn kinds(reading: &Reading) -> Vec<String> {
    found(reading).into_iter().map(|it| it.kind).collect()
}

/// The one finding.
fn only(reading: &Reading) -> Finding {
    let mut found = found(reading);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

fn text_of(parties: &[Party]) -> String {
    format!("{parties:?}")
}

#[test]
fn an_ordinary_node_is_healthy() {
    assert_eq!(kinds(&healthy()), Vec::<String>::new());
    assert_eq!(notes_of(&healthy()), Vec::<String>::new());
    assert_eq!(unknown_of(&healthy()), Vec::<String>::new());
}

#[test]
fn a_stall_below_its_limit_is_healthy() {
    for (resource, seconds) in [
        (Resource::Cpu, 3.9),
        (Resource::Memory, 0.9),
        (Resource::Io, 3.9),
    ] {
        let mut reading = healthy();
        wait(&mut reading, "/pods/idle", resource, seconds);
        assert_eq!(kinds(&reading), Vec::<String>::new(), "{resource:?}");
    }
}

#[test]
fn who_waits_for_a_busy_cpu_is_the_victim_and_who_runs_the_culprit() {
    let mut reading = healthy();
    reading.node.busy_seconds = Some(20.0);
    at(&mut reading, "/pods/works").own_cpu_seconds = 18.0;
    at(&mut reading, "/pods").cpu_seconds = 20.0;
    wait(&mut reading, "/pods/idle", Resource::Cpu, 6.0);
    let finding = only(&reading);
    assert_eq!(finding.kind, CPU_CONTENTION);
    assert_eq!(finding.severity, Severity::Warning);
    assert!(
        finding.victims[0].who.ends_with("/pods/idle"),
        "{finding:?}"
    );
    assert!(
        finding.culprits[0].who.ends_with("/pods/works"),
        "{finding:?}"
    );
    assert!(finding.summary.contains("all CPUs are busy"), "{finding:?}");
    wait(&mut reading, "/pods/idle", Resource::Cpu, 8.0);
    assert_eq!(only(&reading).severity, Severity::Critical);
}

#[test]
fn who_waited_for_the_agents_own_start_is_no_victim() {
    let mut reading = healthy();
    reading.agent_seconds = 4.0;
    wait(&mut reading, "/pods/idle", Resource::Cpu, 6.0);
    assert_eq!(kinds(&reading), Vec::<String>::new());
    assert!(notes_of(&reading)[0].contains("4.0 s of CPU time"));
}

#[test]
fn cpus_that_were_idle_before_the_waits_began_are_not_taken_for_idle() {
    let mut reading = healthy();
    // From the middle of the window on, both are busy and somebody waits.
    reading.node.busy_seconds = Some(10.0);
    wait(&mut reading, "/pods/idle", Resource::Cpu, 5.0);
    let finding = only(&reading);
    assert!(finding.summary.ends_with("other tasks run"), "{finding:?}");
    assert!(finding.remedies[1].contains("cpu.weight"), "{finding:?}");
}

#[test]
fn a_cgroup_whose_own_tasks_compete_is_its_own_culprit() {
    let mut reading = healthy();
    reading.node.busy_seconds = Some(20.0);
    at(&mut reading, "/pods").own_cpu_seconds = 1.0;
    at(&mut reading, "/pods").cpu_seconds = 20.0;
    at(&mut reading, "/pods/works").own_cpu_seconds = 19.0;
    wait(&mut reading, "/pods/works", Resource::Cpu, 6.0);
    let finding = only(&reading);
    assert!(
        finding.culprits[0].who.ends_with("/pods/works"),
        "{finding:?}"
    );
}

#[test]
fn a_quota_is_the_cause_and_no_sysctl_is_offered() {
    let mut reading = healthy();
    let throttled = at(&mut reading, "/pods/works");
    throttled.throttled_periods = 90;
    throttled.throttled_seconds = 7.5;
    throttled.quota_cpus = Some(0.2);
    wait(&mut reading, "/pods/works/app", Resource::Cpu, 7.5);
    let finding = only(&reading);
    assert_eq!(finding.kind, CPU_THROTTLED);
    assert!(
        finding.victims[0].who.ends_with("/pods/works/app"),
        "{finding:?}"
    );
    assert!(
        finding.culprits[0]
            .who
            .contains("cpu.max of cgroup /pods/works"),
        "{finding:?}"
    );
    assert!(finding.summary.contains("0.20 CPUs"), "{finding:?}");
    assert!(
        finding.remedies[0].contains("no sysctl helps"),
        "{finding:?}"
    );
}

#[test]
fn a_quota_that_hardly_bites_is_not_the_cause_of_a_long_wait() {
    let mut reading = healthy();
    reading.node.busy_seconds = Some(20.0);
    let throttled = at(&mut reading, "/pods/idle");
    throttled.throttled_periods = 2;
    throttled.throttled_seconds = 0.2;
    wait(&mut reading, "/pods/idle", Resource::Cpu, 6.0);
    assert_eq!(only(&reading).kind, CPU_CONTENTION);
}

#[test]
fn a_throttled_cgroup_is_found_on_kernels_that_do_not_call_it_waiting() {
    let mut reading = healthy();
    let throttled = at(&mut reading, "/pods/works");
    throttled.throttled_periods = 90;
    throttled.throttled_seconds = 7.5;
    throttled.quota_cpus = Some(0.2);
    let finding = only(&reading);
    assert_eq!(finding.kind, CPU_THROTTLED);
    assert!(finding.victims[0].share.contains("75 %"), "{finding:?}");
}

/// A hungry task below a cgroup with a limit.
fn limited(events: u64) -> Reading {
    let mut reading = healthy();
    at(&mut reading, "/pods/works").memory = Some(MemoryReading {
        current: 60 << 20,
        high: Some(64 << 20),
        max: None,
        dirty: 0,
        inactive_file: None,
        window: Some(MemoryWindow {
            high_events: events,
            ..MemoryWindow::default()
        }),
    });
    at(&mut reading, "/pods/works/app").memory = Some(MemoryReading {
        current: 60 << 20,
        window: Some(MemoryWindow {
            faults: 50_000,
            ..MemoryWindow::default()
        }),
        ..MemoryReading::default()
    });
    wait(&mut reading, "/pods/works/app", Resource::Memory, 5.0);
    reading
}

#[test]
fn a_cgroup_at_its_limit_is_told_from_a_node_that_is_short() {
    let finding = only(&limited(400));
    assert_eq!(finding.kind, MEMORY_LIMIT);
    assert!(
        finding.victims[0].who.ends_with("/pods/works/app"),
        "{finding:?}"
    );
    assert!(
        finding.culprits[0]
            .who
            .contains("memory.high of cgroup /pods/works"),
        "{finding:?}"
    );
    assert!(
        finding.culprits[1].who.ends_with("/pods/works/app"),
        "{finding:?}"
    );
    assert!(finding.summary.contains("64.0 MiB"), "{finding:?}");
    assert!(
        finding.remedies[0].contains("no sysctl helps"),
        "{finding:?}"
    );

    let mut short = limited(0);
    short.node.events = MemoryEvents {
        allocstall: 300,
        pgscan_kswapd: 9_000,
        ..MemoryEvents::default()
    };
    let finding = only(&short);
    assert_eq!(finding.kind, MEMORY_RECLAIM);
    assert!(
        finding.culprits[0].who.ends_with("/pods/works/app"),
        "{finding:?}"
    );
    assert!(
        finding.remedies[0].contains("vm.watermark_scale_factor=50"),
        "{finding:?}"
    );
    assert!(
        finding
            .evidence
            .iter()
            .any(|it| it.metric.contains("allocstall")),
        "{finding:?}"
    );
}

#[test]
fn a_limit_is_known_before_there_are_two_looks_at_its_events() {
    let mut reading = limited(0);
    at(&mut reading, "/pods/works").memory = Some(MemoryReading {
        current: 64 << 20,
        high: Some(64 << 20),
        ..MemoryReading::default()
    });
    assert_eq!(only(&reading).kind, MEMORY_LIMIT);
}

#[test]
fn without_the_counters_no_sysctl_is_advised() {
    let mut reading = limited(0);
    let finding = only(&reading);
    assert_eq!(finding.kind, MEMORY_RECLAIM);
    assert!(
        !format!("{:?}", finding.remedies).contains("sysctl -w"),
        "{finding:?}"
    );
    let objections = |reading: &Reading| -> Vec<bool> {
        let proposals = treat::proposals(reading);
        proposals.iter().map(|it| it.objection.is_some()).collect()
    };
    assert_eq!(objections(&reading), [true, true]);
    reading.node.events.allocstall = 1;
    reading.node.events.pgscan_kswapd = 1;
    reading.node.memory.dirty = 1 << 30;
    assert_eq!(objections(&reading), [false, false]);
    // As the kernel sets it for transparent huge pages.
    let least = |kib| {
        vec![
            ("vm.watermark_scale_factor".to_owned(), 10),
            ("vm.min_free_kbytes".to_owned(), kib),
        ]
    };
    reading.node.memory.total = 64 << 30;
    reading.node.sysctls = least(90_112);
    assert!(!objections(&reading)[1]);
    reading.node.memory.total = 1 << 30;
    assert!(objections(&reading)[1]);
}

#[test]
fn a_node_without_cgroups_is_judged_as_a_whole() {
    let mut reading = healthy();
    reading.cgroups.clear();
    reading.scan = None;
    reading.node.busy_seconds = Some(20.0);
    for (resource, kind) in [
        (Resource::Cpu, CPU_CONTENTION),
        (Resource::Memory, MEMORY_RECLAIM),
        (Resource::Io, IO_STALL),
    ] {
        let mut reading = reading.clone();
        reading.node.window = Waits::default();
        wait(&mut reading, "", resource, 5.0);
        reading.cgroups.clear();
        let finding = only(&reading);
        assert_eq!(finding.kind, kind);
        assert!(finding.victims[0].who.contains("this node"), "{finding:?}");
    }
}

#[test]
fn kswapd_at_work_is_nobody_who_waits() {
    let mut reading = healthy();
    reading.node.window.memory.some = 4.0;
    reading.node.events.pgscan_kswapd = 2_244;
    assert_eq!(kinds(&reading), Vec::<String>::new());
    // What few allocations have reclaimed beside it took a part of the time.
    reading.node.events.allocstall = 3;
    reading.node.events.pgscan_direct = 96;
    assert_eq!(kinds(&reading), Vec::<String>::new());
    reading.node.events.pgscan_direct = 2_244;
    assert_eq!(only(&reading).kind, MEMORY_RECLAIM);
    // Who waits for what kswapd has let go is not told apart from it.
    reading.node.events.pgscan_direct = 0;
    reading.node.events.refault = 1;
    assert_eq!(only(&reading).kind, MEMORY_RECLAIM);
    // The probes know.
    let cause = |cause, window| CauseReading {
        resource: Resource::Memory,
        cause,
        total: window,
        window,
    };
    let mut probed = ProbedReading {
        causes: vec![cause(Cause::Kswapd, 3.9), cause(Cause::Refault, 0.1)],
        memory_causes: true,
        ..ProbedReading::default()
    };
    reading.probed = Some(probed.clone());
    assert_eq!(kinds(&reading), Vec::<String>::new());
    probed.causes.push(cause(Cause::DirectReclaim, 2.0));
    reading.probed = Some(probed);
    assert_eq!(only(&reading).kind, MEMORY_RECLAIM);
}

#[test]
fn a_disk_is_named_with_who_writes_and_who_waits() {
    let mut reading = healthy();
    reading.node.disks = Some(vec![DiskReading {
        name: "vdb".to_owned(),
        device: "254:16".to_owned(),
        busy_seconds: 9.9,
        read_bytes: 0,
        written_bytes: 90 << 20,
        ..disk("vdb", 9.9)
    }]);
    at(&mut reading, "/pods/works").io = wrote(90 << 20);
    wait(&mut reading, "/pods/idle", Resource::Io, 6.0);
    let finding = only(&reading);
    assert_eq!(finding.kind, IO_STALL);
    assert!(finding.summary.contains("vdb"), "{finding:?}");
    assert!(
        finding.victims[0].who.ends_with("/pods/idle"),
        "{finding:?}"
    );
    assert!(
        finding.culprits[0].who.ends_with("/pods/works"),
        "{finding:?}"
    );
    assert!(
        text_of(&finding.culprits).contains("wrote 90.0 MiB"),
        "{finding:?}"
    );
}

#[test]
fn a_pod_and_a_unit_are_called_by_their_names() {
    let id = "c".repeat(64);
    let uid = "1858680e-b044-4fd5-9dd4-f137e30e2180";
    let path = format!("/kubepods/pod{uid}/{id}");
    let mut reading = healthy();
    let who = |reading: &Reading, path: &str| {
        let settings = &Settings::default();
        Judge { reading, settings }.who(path)
    };
    assert_eq!(
        who(&reading, &path),
        format!("container cccccccccccc of pod {uid}, cgroup {path}")
    );
    let unit = "/system.slice/ssh.service";
    assert_eq!(who(&reading, unit), format!("ssh.service, cgroup {unit}"));
    assert_eq!(who(&reading, "/mine"), "cgroup /mine");
    let name = Name {
        namespace: "shop".to_owned(),
        pod: "web-0".to_owned(),
        container: "app".to_owned(),
        ..Name::default()
    };
    reading.names.insert(path.clone(), name);
    assert_eq!(
        who(&reading, &path),
        format!("pod shop/web-0 container app, cgroup {path}")
    );
}

fn wrote(bytes: u64) -> IoStat {
    let transfer = Transfer {
        written_bytes: bytes,
        writes: 1,
        ..Transfer::default()
    };
    IoStat::from([("254:16".to_owned(), transfer)])
}

#[test]
fn a_limit_on_a_disk_is_the_cause_where_it_is_reached() {
    let mut reading = healthy();
    at(&mut reading, "/pods/works").io = wrote(9 << 20);
    let most = Transfer {
        written_bytes: Some(1 << 20),
        ..Transfer::default()
    };
    at(&mut reading, "/pods/works").io_max = [("254:16".to_owned(), most)].into();
    wait(&mut reading, "/pods/works/app", Resource::Io, 9.0);
    let finding = only(&reading);
    assert_eq!(finding.kind, IO_STALL);
    assert!(
        finding.culprits[0]
            .who
            .contains("io.max of cgroup /pods/works"),
        "{finding:?}"
    );
    assert!(
        finding.culprits[0]
            .share
            .contains("writing at most 1.0 MiB"),
        "{finding:?}"
    );
    assert!(
        finding.remedies[0].contains("no sysctl helps"),
        "{finding:?}"
    );

    at(&mut reading, "/pods/works").io = wrote(2 << 20);
    // The limit is not reached, and no disk was busy: nobody is blamed.
    assert_eq!(only(&reading).culprits, Vec::<Party>::new());
    reading.node.disks = Some(vec![disk("vdb", 8.0)]);
    let finding = only(&reading);
    assert!(
        finding.culprits[0].who.ends_with("/pods/works"),
        "{finding:?}"
    );
    assert!(!finding.culprits[0].who.contains("io.max"), "{finding:?}");
}

fn disk(name: &str, busy_seconds: f64) -> DiskReading {
    DiskReading {
        name: name.to_owned(),
        device: "254:16".to_owned(),
        busy_seconds,
        read_bytes: 0,
        written_bytes: 2 << 20,
        completed: 9,
        in_flight: 0,
        stuck: false,
        below: Vec::new(),
    }
}

fn sleepers(place: Place, command: &str, tasks: u64) -> Sleepers {
    Sleepers {
        place,
        command: command.to_owned(),
        cgroup: "/pods/idle".to_owned(),
        mount: None,
        tasks,
    }
}

/// Tasks wait for I/O while the only disk idles, and sleep so.
fn idle_disk(sleepers: Vec<Sleepers>) -> Reading {
    let mut reading = healthy();
    wait(&mut reading, "/pods/idle", Resource::Io, 9.5);
    reading.node.window.io.full = 9.0;
    reading.node.disks = Some(vec![disk("sda", 0.04)]);
    reading.node.sleeping = Some(Sleeping {
        sleepers,
        complete: true,
    });
    reading
}

/// longhorn#4772: the server hangs, the local disk idles.
#[test]
fn a_server_that_hangs_is_named_and_no_disk_is() {
    let mut reading = idle_disk(vec![
        sleepers(Place::Nfs, "backup", 3),
        sleepers(Place::Other, "kworker/u8:1", 1),
    ]);
    let mount = |place: &str| Mount {
        place: place.into(),
        file_system: "nfs4".to_owned(),
        source: "10.0.0.9:/export".to_owned(),
        device: format!("dev{place}"),
    };
    reading.node.mounts = vec![mount("/data")];
    let finding = only(&reading);
    assert_eq!(
        (finding.kind.as_str(), finding.severity),
        (IO_STALL, Severity::Critical)
    );
    assert!(
        finding
            .summary
            .contains("3 tasks sleep in /data (nfs4 of 10.0.0.9:/export)"),
        "{finding:?}"
    );
    assert_eq!(finding.culprits.len(), 1);
    assert!(
        finding.culprits[0]
            .share
            .starts_with("3 tasks sleep in it: 3 of backup")
    );
    assert!(!text_of(&finding.culprits).contains("sda"), "{finding:?}");
    // With two of its kind, which one it is stays open.
    reading.node.mounts.push(mount("/home"));
    let both = only(&reading).culprits;
    assert_eq!(both.len(), 2);
    assert!(
        both.iter().all(|it| it.share.starts_with("perhaps: ")),
        "{both:?}"
    );
}

#[test]
fn what_nothing_explains_is_said_so_and_blames_nobody() {
    let finding = only(&idle_disk(vec![sleepers(Place::Hidden, "backup", 1)]));
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(finding.culprits, Vec::<Party>::new());
    for words in [
        "cannot tell why",
        "sda, was busy for 0.4 %",
        "1 task",
        "CAP_SYS_ADMIN",
    ] {
        assert!(finding.summary.contains(words), "{words}: {finding:?}");
    }
    // A disk that was busy for most of it is named.
    let mut reading = idle_disk(Vec::new());
    reading.node.disks = Some(vec![disk("sda", 6.0)]);
    let finding = only(&reading);
    assert!(
        finding.summary.contains("sda was busy for 60 %"),
        "{finding:?}"
    );
    assert_eq!(finding.severity, Severity::Critical);
}

/// liburing#943: an idle server counts as waiting for I/O.
#[test]
fn an_idle_io_uring_is_a_note_and_no_finding() {
    let reading = idle_disk(vec![sleepers(Place::IoUring, "iggy-server", 4)]);
    assert_eq!(kinds(&reading), Vec::<String>::new());
    let notes = notes_of(&reading);
    assert!(notes[0].contains("4 of iggy-server"), "{notes:?}");
    // Beside it a task that waits for something else may be slowed.
    let both = idle_disk(vec![
        sleepers(Place::IoUring, "iggy-server", 4),
        sleepers(Place::Other, "cp", 1),
    ]);
    assert_eq!(only(&both).severity, Severity::Warning);
    // As is one that could not be looked at in time.
    let mut cut = reading.clone();
    cut.node.sleeping.as_mut().expect("it is there").complete = false;
    assert_eq!(only(&cut).kind, IO_STALL);
}

#[test]
fn a_disk_that_swaps_is_no_slow_disk() {
    let mut reading = idle_disk(Vec::new());
    reading.node.disks = Some(vec![disk("sda", 9.0)]);
    reading.node.events.swap_in = 400;
    let finding = only(&reading);
    assert!(finding.summary.ends_with("mostly with swap"), "{finding:?}");
    assert!(
        finding.remedies[0].contains("short of memory"),
        "{finding:?}"
    );
}

fn cpu(idle: f64, steal: f64) -> Option<CpuReading> {
    Some(CpuReading {
        tasks: 20.0 - idle - steal,
        idle,
        steal,
        ..CpuReading::default()
    })
}

#[test]
fn a_cpu_set_is_blamed_by_its_number_alone() {
    let mut reading = healthy();
    reading.node.cpu = cpu(14.0, 0.0);
    wait(&mut reading, "/pods/idle", Resource::Cpu, 8.0);
    // A quota of version 1, an affinity: unknown.
    let finding = only(&reading);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(finding.culprits, Vec::<Party>::new());
    assert!(finding.summary.contains("cannot tell why"), "{finding:?}");
    assert!(
        !format!("{:?}", finding.remedies).contains("cpuset"),
        "{finding:?}"
    );
    reading.cpu_on_version_1 = true;
    assert!(only(&reading).summary.contains("version 1"));
    // The set of a cgroup above has one CPU of two.
    at(&mut reading, "/pods").allowed_cpus = Some(1);
    let finding = only(&reading);
    assert!(
        finding.culprits[0]
            .who
            .contains("cpuset.cpus of cgroup /pods"),
        "{finding:?}"
    );
    assert!(finding.summary.contains("has 1 of 2 CPUs"), "{finding:?}");
    // Nobody says that CPUs are idle where /proc/stat shows none.
    reading.node.cpu = cpu(0.5, 0.0);
    assert!(!format!("{:?}", only(&reading)).contains("idle for"));
}

#[test]
fn time_that_the_hypervisor_took_is_its_own() {
    let mut reading = healthy();
    reading.node.cpu = cpu(0.0, 8.0);
    wait(&mut reading, "/pods/idle", Resource::Cpu, 8.0);
    let finding = only(&reading);
    assert!(
        finding.summary.contains("the hypervisor took 40 %"),
        "{finding:?}"
    );
    assert_eq!(finding.culprits.len(), 1);
    reading.node.cpu = cpu(0.0, 0.4);
    assert!(!only(&reading).summary.contains("hypervisor"));
}

/// node_exporter#3048: softirqs of a network card.
#[test]
fn interrupts_that_take_a_cpu_are_found_with_their_kind() {
    let mut reading = healthy();
    let interrupted = |softirq| InterruptedCpu {
        cpu: 1,
        time: CpuReading {
            softirq,
            irq: 0.2,
            ..CpuReading::default()
        },
        softirqs: vec![("NET_RX".to_owned(), 90_000)],
    };
    reading.node.interrupted = Some(interrupted(2.0));
    assert_eq!(kinds(&reading), Vec::<String>::new());
    reading.node.window.irq.some = 8.0;
    reading.node.interrupted = Some(interrupted(9.0));
    let finding = only(&reading);
    assert_eq!(
        (finding.kind.as_str(), finding.severity),
        (IRQ_PRESSURE, Severity::Critical)
    );
    assert!(
        finding.culprits[0]
            .who
            .contains("softirqs on CPU 1 (NET_RX 9000/s)"),
        "{finding:?}"
    );
    assert!(finding.remedies[0].contains("rps_cpus"), "{finding:?}");
    // Without interrupt accounting, the CPU's own clock shows it.
    reading.node.window.irq.some = 0.0;
    assert_eq!(only(&reading).severity, Severity::Warning);
}

/// netdata#12869: *full* of the node's CPU is undefined on some kernels.
#[test]
fn full_of_the_nodes_cpu_makes_nothing_critical() {
    let mut reading = healthy();
    reading.node.busy_seconds = Some(19.0);
    wait(&mut reading, "/pods/idle", Resource::Cpu, 5.5);
    reading.node.window.cpu.full = 4.5;
    assert_eq!(only(&reading).severity, Severity::Warning);
}

/// Other probes run, and the one on waits for memory does not.
#[test]
fn a_probe_that_is_not_there_has_not_seen_nobody_wait() {
    let mut reading = healthy();
    reading.cgroups.clear();
    reading.node.window.memory.some = 6.0;
    reading.probed = Some(ProbedReading::default());
    assert_eq!(only(&reading).kind, MEMORY_RECLAIM);
    // It is there, and saw nothing of what the kernel counts.
    reading.probed = Some(ProbedReading {
        memory_causes: true,
        ..ProbedReading::default()
    });
    assert_eq!(only(&reading).kind, MEMORY_RECLAIM);
}

#[test]
fn what_cannot_be_is_noted() {
    let mut reading = healthy();
    reading.impossible = vec!["/system.slice/new.scope".to_owned()];
    assert_eq!(kinds(&reading), Vec::<String>::new());
    assert!(notes_of(&reading)[0].contains("/system.slice/new.scope"));
}

#[test]
fn the_worst_comes_first() {
    let mut reading = limited(400);
    reading.node.busy_seconds = Some(20.0);
    wait(&mut reading, "/pods/idle", Resource::Cpu, 9.0);
    assert_eq!(kinds(&reading), [CPU_CONTENTION, MEMORY_LIMIT]);
}

#[test]
fn a_scan_that_was_cut_is_reported() {
    let mut reading = healthy();
    reading.scan = Some(ScanReading::default());
    assert!(unknown_of(&reading)[0].contains("scan_timeout"));
}

#[test]
fn cgroups_that_were_not_read_are_unknown_only_where_they_can_have_waited() {
    let mut reading = healthy();
    let scan = reading.scan.insert(ScanReading {
        known: 20_000,
        unread: 17,
        may_stall: Some(true),
        ..ScanReading::default()
    });
    scan.complete = false;
    assert!(unknown_of(&reading)[0].contains("17 of 20000"));
    let scan = reading.scan.as_mut().expect("it is there");
    scan.may_stall = Some(false);
    assert_eq!(unknown_of(&reading), Vec::<String>::new());
}

/// Who waited or ran before the window is neither a victim nor a culprit of it.
#[test]
fn an_older_figure_says_its_age_and_judges_nobody() {
    let mut reading = healthy();
    reading.node.busy_seconds = Some(19.0);
    reading.node.cpu = cpu(1.0, 0.0);
    wait(&mut reading, "/pods/idle", Resource::Cpu, 8.0);
    let ran = at(&mut reading, "/pods/ran-before");
    (ran.own_cpu_seconds, ran.cpu_seconds) = (40.0, 40.0);
    ran.window_seconds = Some(55.0);
    let contention = only(&reading);
    assert!(!text_of(&contention.culprits).contains("ran-before"));
    assert!(text_of(&contention.culprits).contains("/pods/works"));
    let note = notes_of(&reading).join("; ");
    assert!(note.contains("/pods/ran-before (55 s)"), "{note}");

    let mut reading = healthy();
    let waited = at(&mut reading, "/pods/waited-before");
    waited.waits.cpu.some = 40.0;
    waited.window_seconds = Some(55.0);
    assert_eq!(kinds(&reading), Vec::<String>::new());
    at(&mut reading, "/pods/waited-before").window_seconds = None;
    assert_eq!(kinds(&reading), [CPU_CONTENTION]);
}

/// As systemd names a unit with a dash, and as a tenant may to end the quotes.
#[test]
fn a_query_has_the_name_of_a_cgroup_as_it_is() {
    for (name, quoted) in [
        (r"/a\x2db.slice", r#"cgroup="/a\\x2db.slice""#),
        (r#"/a"} or up{x=""#, r#"cgroup="/a\"} or up{x=\"""#),
        ("/a\nb", r#"cgroup="/a\nb""#),
        ("/plain", r#"cgroup="/plain""#),
    ] {
        let mut reading = healthy();
        wait(&mut reading, name, Resource::Cpu, 8.0);
        let finding = only(&reading);
        let queries: Vec<_> = finding.evidence.iter().map(|it| &it.metric).collect();
        assert!(queries[0].contains(quoted), "{name}: {queries:?}");
    }
}

#[test]
fn a_window_of_no_length_is_no_panic() {
    let mut reading = limited(1);
    reading.window_seconds = 0.0;
    reading.cpus = 0;
    let _any = found(&reading);
}

/// Has `dd` wait in a cgroup, by one path of the kernel.
fn probed(reading: &mut Reading, path: &str, cause: Cause, seconds: f64) {
    let probed = reading.probed.get_or_insert_default();
    probed.causes.push(CauseReading {
        resource: Resource::Memory,
        cause,
        total: seconds,
        window: seconds,
    });
    probed.waiters.push(WaiterReading {
        resource: Resource::Memory,
        path: Some(path.to_owned()),
        command: "dd".to_owned(),
        cause,
        count: 7,
        seconds,
        longest_seconds: 0.25,
    });
}

#[test]
fn the_command_and_the_measured_cause_are_named() {
    let mut reading = healthy();
    wait(&mut reading, "/pods/hungry", Resource::Memory, 4.0);
    probed(&mut reading, "/pods/hungry", Cause::Refault, 3.0);
    probed(&mut reading, "/", Cause::Kswapd, 9.0);
    let finding = only(&reading);
    let victims = text_of(&finding.victims);
    assert!(
        victims.contains(": dd read file pages back") && victims.contains("3.00 s in 7 waits"),
        "{victims}"
    );
    let evidence = format!("{:?}", finding.evidence);
    assert!(evidence.contains("refault"), "{evidence}");
    assert!(!evidence.contains("kswapd"), "{evidence}");
}

#[test]
fn a_command_of_another_cgroup_is_not_said_to_wait_in_this_one() {
    let mut reading = healthy();
    wait(&mut reading, "/pods/a", Resource::Memory, 4.0);
    probed(&mut reading, "/pods/ab", Cause::Refault, 0.5);
    let victims = text_of(&only(&reading).victims);
    assert!(!victims.contains("dd"), "{victims}");
    probed(&mut reading, "/pods/a/below", Cause::Refault, 0.5);
    let victims = text_of(&only(&reading).victims);
    assert!(victims.contains("dd"), "{victims}");
}
