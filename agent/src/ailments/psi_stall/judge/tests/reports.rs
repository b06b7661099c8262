//! Public reports of what tools misjudged: each in a pair with what it is mistaken for.

use super::*;

/// `throttled_usec` adds up the run queues of all CPUs (vespa#9869).
#[test]
fn throttled_time_is_no_share_of_the_time() {
    let mut reading = healthy();
    reading.cpus = 32;
    reading.node.cpu = None;
    let throttled = at(&mut reading, "/pods/works");
    (throttled.periods, throttled.throttled_periods) = (100, 20);
    throttled.throttled_seconds = 12.8;
    throttled.quota_cpus = Some(16.0);
    wait(&mut reading, "/pods/works", Resource::Cpu, 0.4);
    assert_eq!(kinds(&reading), Vec::<String>::new());
    // By the pressure it held them for most of the time, and most periods ended throttled.
    at(&mut reading, "/pods/works").throttled_periods = 90;
    wait(&mut reading, "/pods/works", Resource::Cpu, 8.0);
    let finding = only(&reading);
    assert_eq!(
        (finding.kind.as_str(), finding.severity),
        (CPU_THROTTLED, Severity::Critical)
    );
    assert!(
        finding.culprits[0].share.contains("90 of 100 periods"),
        "{finding:?}"
    );
    // Few periods cannot be why tasks wait that long.
    at(&mut reading, "/pods/works").throttled_periods = 20;
    assert_eq!(only(&reading).kind, CPU_CONTENTION);
}

#[test]
fn a_quota_of_version_1_has_its_own_file_and_no_pressure_to_be_sure_by() {
    let mut reading = healthy();
    let throttled = at(&mut reading, "/kubepods/pod1");
    (throttled.periods, throttled.throttled_periods) = (100, 98);
    throttled.throttled_seconds = 9.0;
    throttled.quota_cpus = Some(0.2);
    throttled.quota_on_version_1 = true;
    reading.node.window.cpu.some = 5.0;
    let finding = only(&reading);
    assert_eq!(
        (finding.kind.as_str(), finding.severity),
        (CPU_THROTTLED, Severity::Warning)
    );
    assert!(
        finding.culprits[0].who.starts_with("cpu.cfs_quota_us of"),
        "{finding:?}"
    );
    assert!(
        !format!("{:?}", finding.remedies).contains("cpu.max"),
        "{finding:?}"
    );
    // Where the tree cannot be read, nobody is named.
    at(&mut reading, "/kubepods/pod1").throttled_periods = 0;
    reading.cpu_on_version_1 = true;
    let finding = only(&reading);
    assert_eq!(finding.culprits, Vec::<Party>::new());
    assert!(finding.summary.contains("could not be read"), "{finding:?}");
    reading.node.window.cpu.some = 0.0;
    assert!(unknown_of(&reading)[0].contains("quotas"));
}

/// psutil#1210, psutil#2172, lxcfs#628: what cannot be true is nobody's fault.
#[test]
fn times_of_cpus_that_cannot_be_true_are_not_told() {
    let mut reading = healthy();
    wait(&mut reading, "/pods/idle", Resource::Cpu, 6.0);
    reading.node.cpu = None;
    reading.node.busy_seconds = None;
    reading.node.interrupted = None;
    reading.node.cpu_doubt = Some("the idle time of CPU 0 went backwards".to_owned());
    let finding = only(&reading);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(finding.culprits, Vec::<Party>::new());
    let text = format!("{finding:?}");
    assert!(
        text.contains("cannot tell why") && text.contains("backwards"),
        "{text}"
    );
    assert!(!text.contains("busy time in /proc/stat"), "{text}");
    // The cgroups' own clocks go on.
    let works = at(&mut reading, "/pods/works");
    (works.own_cpu_seconds, works.cpu_seconds) = (19.0, 19.0);
    at(&mut reading, "/pods").cpu_seconds = 19.0;
    let finding = only(&reading);
    assert!(
        finding.culprits[0].who.ends_with("/pods/works"),
        "{finding:?}"
    );
    reading.node.window = Waits::default();
    reading
        .cgroups
        .iter_mut()
        .for_each(|it| it.waits = Waits::default());
    assert!(unknown_of(&reading)[0].contains("backwards"));
}

/// kubernetes#13997: a task runs, for the scheduler, while its CPU is stolen.
#[test]
fn steal_is_found_although_few_tasks_wait() {
    let mut reading = healthy();
    reading.node.cpu = cpu(2.0, 16.4);
    wait(&mut reading, "/pods/works", Resource::Cpu, 3.0);
    let finding = only(&reading);
    assert_eq!(
        (finding.kind.as_str(), finding.severity),
        (CPU_CONTENTION, Severity::Warning)
    );
    assert!(
        finding.summary.contains("hypervisor took 82 %"),
        "{finding:?}"
    );
    reading.node.cpu = cpu(13.0, 5.0);
    assert_eq!(kinds(&reading), Vec::<String>::new());
}

/// moby#31086: make -j12 on CPU 0 alone.
#[test]
fn isolated_cpus_are_told_from_a_small_set() {
    let mut reading = healthy();
    reading.cpus = 40;
    reading.node.cpu = Some(CpuReading {
        tasks: 10.0,
        idle: 390.0,
        ..CpuReading::default()
    });
    wait(&mut reading, "/pods/idle", Resource::Cpu, 9.7);
    let idle = at(&mut reading, "/pods/idle");
    (idle.allowed_cpus, idle.isolated_cpus) = (Some(12), Some(12));
    let finding = only(&reading);
    assert!(
        finding
            .summary
            .contains("12 CPUs of cgroup /pods/idle are isolated"),
        "{finding:?}"
    );
    assert_eq!(finding.severity, Severity::Critical);
    for not_all in [Some(3), None] {
        at(&mut reading, "/pods/idle").isolated_cpus = not_all;
        assert!(only(&reading).summary.contains("has 12 of 40 CPUs"));
    }
}

/// A set that is smaller than the node explains a wait only where its CPUs were busy meanwhile.
#[test]
fn a_set_with_idle_cpus_is_not_blamed() {
    let mut reading = healthy();
    reading.cpus = 40;
    reading.node.cpu = Some(CpuReading {
        tasks: 20.0,
        idle: 380.0,
        ..CpuReading::default()
    });
    wait(&mut reading, "/pods/set", Resource::Cpu, 9.7);
    let mut judged = |idle| {
        let set = at(&mut reading, "/pods/set");
        (set.allowed_cpus, set.allowed_idle) = (Some(2), Some(idle));
        only(&reading)
    };
    let busy = judged(0.01);
    assert!(busy.summary.contains("has 2 of 40 CPUs"), "{busy:?}");
    assert_eq!(
        busy.culprits[0].share,
        "2 of 40 CPUs, busy for 99 % of the time"
    );
    let idle = judged(0.9);
    assert!(
        idle.summary.contains("no CPU set of a cgroup explains it"),
        "{idle:?}"
    );
    assert_eq!((idle.severity, idle.culprits.len()), (Severity::Warning, 0));
}

/// kubernetes#139628: two thirds of all CPUs, on a kernel without pressure of interrupts.
#[test]
fn softirqs_on_all_cpus_are_found_and_no_spreading_is_advised() {
    let mut reading = healthy();
    let time = |softirq| CpuReading {
        tasks: 2.0,
        idle: 18.0 - softirq,
        softirq,
        ..CpuReading::default()
    };
    reading.node.softirqs = vec![("NET_RX".to_owned(), 640_000)];
    reading.node.cpu = Some(time(13.2));
    let finding = only(&reading);
    assert_eq!(
        (finding.kind.as_str(), finding.severity),
        (IRQ_PRESSURE, Severity::Warning)
    );
    assert!(
        finding.culprits[0].who.contains("NET_RX 64000/s"),
        "{finding:?}"
    );
    assert!(!finding.remedies[0].contains("spread"), "{finding:?}");
    reading.node.cpu = Some(time(7.0));
    assert_eq!(kinds(&reading), Vec::<String>::new());
}

/// oomd#119, PMSS#780.
#[test]
fn pressure_that_no_counter_explains_blames_nobody() {
    let mut reading = limited(0);
    reading.node.window.memory.full = 9.0;
    let finding = only(&reading);
    assert_eq!(finding.severity, Severity::Warning);
    assert_eq!(finding.culprits, Vec::<Party>::new());
    assert!(finding.summary.contains("cannot tell"), "{finding:?}");
    assert!(!finding.summary.contains("version 1"), "{finding:?}");
    reading.memory_on_version_1 = true;
    assert!(only(&reading).summary.contains("version 1"));
    reading.node.events.allocstall = 40;
    let finding = only(&reading);
    assert_eq!(finding.severity, Severity::Critical);
    assert!(!finding.culprits.is_empty());
}

#[test]
fn memory_high_is_advised_where_its_reclaim_finds_enough() {
    let mut reading = limited(0);
    reading.node.events.allocstall = 40;
    reading.node.events.pgsteal_direct = 25_600;
    let advised = |reading: &Reading| {
        let remedies = only(reading).remedies.join("\n");
        remedies.contains("set memory.high of the largest allocator, cgroup /pods/works/app")
    };
    let files = |reading: &mut Reading, bytes: Option<u64>| {
        let memory = at(reading, "/pods/works/app").memory.as_mut();
        memory.expect("it has some").inactive_file = bytes;
    };
    for (bytes, wanted) in [
        (None, false),
        (Some(150 << 20), false),
        (Some(250 << 20), true),
    ] {
        files(&mut reading, bytes);
        assert_eq!(advised(&reading), wanted, "{bytes:?}");
    }
    files(&mut reading, Some(0));
    reading.node.memory.swap_free = 1 << 30;
    assert!(advised(&reading));
}

#[test]
fn a_livelock_above_memory_high_asks_for_more_than_is_used() {
    let mut reading = limited(400);
    let memory = at(&mut reading, "/pods/works")
        .memory
        .as_mut()
        .expect("it has some");
    memory.current = 200 << 20;
    let window = memory.window.as_mut().expect("it has one");
    (window.scanned, window.reclaimed) = (100_000, 12);
    let finding = only(&reading);
    assert_eq!(finding.kind, MEMORY_LIMIT);
    assert!(
        finding
            .summary
            .contains("reclaim found 12 of the 100000 pages"),
        "{finding:?}"
    );
    let raised = format!(
        "raise memory.high if the node has free memory: echo {}",
        300_u64 << 20
    );
    assert!(finding.remedies[1].starts_with(&raised), "{finding:?}");
    // Reclaim that gets on is an ordinary limit.
    let memory = at(&mut reading, "/pods/works")
        .memory
        .as_mut()
        .expect("it has some");
    memory.window.as_mut().expect("it has one").reclaimed = 90_000;
    assert!(!only(&reading).summary.contains("reclaim found"));
    // Nor is one that has not begun.
    let memory = at(&mut reading, "/pods/works").memory.as_mut();
    let window = memory.and_then(|memory| memory.window.as_mut());
    let window = window.expect("it has one");
    (window.scanned, window.reclaimed) = (0, 0);
    assert!(!only(&reading).summary.contains("reclaim found"));
}

/// rook#3132, linstor-server#189.
#[test]
fn a_disk_that_ends_no_request_is_named_and_no_limit_is_advised() {
    let mut reading = idle_disk(vec![sleepers(Place::Other, "mysqld", 1)]);
    let stuck = DiskReading {
        read_bytes: 0,
        written_bytes: 0,
        completed: 0,
        in_flight: 34,
        stuck: true,
        ..disk("rbd0", WINDOW)
    };
    reading.node.disks = Some(vec![stuck.clone(), disk("sda", 0.04)]);
    let finding = only(&reading);
    assert_eq!(finding.severity, Severity::Critical);
    assert!(
        finding.summary.contains("rbd0 has 34 requests in flight"),
        "{finding:?}"
    );
    assert_eq!(finding.culprits[0].who, "rbd0");
    let remedies = format!("{:?}", finding.remedies);
    assert!(
        !remedies.contains("io.max") && !remedies.contains("io.weight"),
        "{remedies}"
    );
    // A disk that works for all of the time explains the waits, too, and is surer.
    reading.node.disks = Some(vec![stuck, disk("sda", 9.5)]);
    assert!(only(&reading).summary.contains("sda was busy for 95 %"));
}

/// sysstat#341, lxcfs#148.
#[test]
fn a_disk_without_statistics_is_not_an_idle_one() {
    let mut reading = idle_disk(Vec::new());
    reading.node.disks = Some(Vec::new());
    reading.node.uncounted = vec![("nvme14n1".to_owned(), "254:16".to_owned())];
    assert!(
        only(&reading).summary.contains("cannot tell why"),
        "who waits has not used it"
    );
    at(&mut reading, "/pods/idle").io = wrote(5 << 30);
    let finding = only(&reading);
    assert!(
        finding.summary.contains("moved 5.0 GiB on nvme14n1"),
        "{finding:?}"
    );
    assert!(
        finding.culprits[0].who.ends_with("/pods/idle"),
        "{finding:?}"
    );
    reading.node.uncounted.clear();
    assert!(only(&reading).summary.contains("no disk was busy"));
    reading.node.disks = None;
    let finding = only(&reading);
    assert!(
        finding.summary.contains("no statistics of disks"),
        "{finding:?}"
    );
    assert!(!finding.summary.contains("no disk was busy"), "{finding:?}");
}

/// dstat#26.
#[test]
fn a_logical_volume_is_told_with_its_disks() {
    let mut reading = idle_disk(Vec::new());
    let volume = DiskReading {
        below: vec!["sdb".to_owned(), "sdc".to_owned()],
        ..disk("dm-0", 9.6)
    };
    reading.node.disks = Some(vec![volume, disk("sdc", 9.4), disk("sda", 0.1)]);
    let summary = only(&reading).summary;
    let wanted = "dm-0 (on sdb, sdc) was busy for 96 % of the time, sdc for 94 %";
    assert!(summary.contains(wanted), "{summary}");
    assert!(!summary.contains("sda"), "{summary}");
}

fn mount(place: &str, file_system: &str, device: &str) -> Mount {
    Mount {
        place: place.into(),
        file_system: file_system.to_owned(),
        source: "10.0.0.9:/export".to_owned(),
        device: device.to_owned(),
    }
}

/// longhorn#12478.
#[test]
fn two_mounts_of_one_file_system_are_one() {
    let mut reading = idle_disk(vec![sleepers(Place::Nfs, "php-fpm", 3)]);
    reading.node.mounts = vec![
        mount("/global", "nfs4", "0:55"),
        mount("/pod", "nfs4", "0:55"),
    ];
    let finding = only(&reading);
    assert_eq!(finding.culprits.len(), 1);
    assert!(
        finding.culprits[0]
            .who
            .ends_with("/global and 1 more place"),
        "{finding:?}"
    );
    assert!(
        !text_of(&finding.culprits).contains("perhaps"),
        "{finding:?}"
    );
    reading.node.mounts[1].device = "0:56".to_owned();
    assert!(text_of(&only(&reading).culprits).contains("perhaps"));
}

#[test]
fn a_server_that_hangs_for_one_pod_is_not_why_another_waits() {
    let mut reading = idle_disk(vec![sleepers(Place::Lustre, "robinhood", 3)]);
    reading.node.mounts = vec![mount("/scratch", "lustre", "0:56")];
    assert!(only(&reading).summary.contains("/scratch (lustre of"));
    let of_cgroup = |reading: &mut Reading, path: &str| {
        let sleeping = reading.node.sleeping.as_mut().expect("it was looked at");
        sleeping.sleepers[0].cgroup = path.to_owned();
    };
    of_cgroup(&mut reading, "/pods/works");
    let finding = only(&reading);
    assert_eq!(finding.culprits, Vec::<Party>::new());
    assert!(
        finding.summary.contains("slept in other cgroups"),
        "{finding:?}"
    );
    // A task of a cgroup that is not known may be it.
    of_cgroup(&mut reading, "");
    assert_eq!(only(&reading).culprits.len(), 1);
}
