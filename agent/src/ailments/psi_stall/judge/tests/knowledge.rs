//! Never better by knowing less: what is missing is unknown, not zero, and names nobody.

use proptest::prelude::*;

use super::*;
use crate::{
    ailments::psi_stall::measure::Wait,
    collector::knowledge::{self, State},
};

/// Readings in which something is wrong, one for each way in which a verdict comes about.
fn wrong() -> Vec<(&'static str, Reading)> {
    let mut all = vec![
        ("a limit by its events", limited(400)),
        ("a stall that nothing explains", limited(0)),
        ("a server", {
            let mut reading = idle_disk(vec![sleepers(Place::Nfs, "tar", 3)]);
            reading.node.mounts = vec![Mount {
                place: "/data".into(),
                file_system: "nfs4".to_owned(),
                source: "10.0.0.9:/export".to_owned(),
                device: "0:55".to_owned(),
            }];
            reading
        }),
    ];
    let mut with = |name: &'static str, change: &dyn Fn(&mut Reading)| {
        let mut reading = healthy();
        change(&mut reading);
        all.push((name, reading));
    };
    with("contention", &|it| {
        it.node.busy_seconds = Some(19.0);
        it.node.cpu = cpu(1.0, 0.0);
        wait(it, "/pods/idle", Resource::Cpu, 8.0);
    });
    with("a quota", &|it| {
        let throttled = at(it, "/pods/works");
        (throttled.periods, throttled.throttled_periods) = (100, 90);
        throttled.throttled_seconds = 8.0;
        throttled.quota_cpus = Some(0.2);
    });
    with("a CPU set", &|it| {
        wait(it, "/pods/idle", Resource::Cpu, 8.0);
        let idle = at(it, "/pods/idle");
        (idle.allowed_cpus, idle.isolated_cpus) = (Some(1), Some(0));
    });
    with("steal", &|it| it.node.cpu = cpu(2.0, 16.0));
    with("softirqs of all CPUs", &|it| {
        it.node.cpu = Some(CpuReading {
            idle: 6.0,
            softirq: 14.0,
            ..CpuReading::default()
        });
    });
    with("softirqs of one CPU", &|it| {
        let interrupted = it.node.interrupted.as_mut().expect("it is known");
        interrupted.time.softirq = 9.5;
    });
    with("pressure of interrupts", &|it| {
        it.node.window.irq.some = 8.0
    });
    with("a busy disk", &|it| {
        wait(it, "/pods/idle", Resource::Io, 8.0);
        it.node.disks = Some(vec![disk("vdb", 9.0)]);
    });
    with("a limit on a disk", &|it| {
        wait(it, "/pods/works", Resource::Io, 8.0);
        at(it, "/pods/works").io = wrote(9 << 20);
        let most = Transfer {
            written_bytes: Some(1 << 20),
            ..Transfer::default()
        };
        at(it, "/pods/works").io_max = [("254:16".to_owned(), most)].into();
    });
    with("reclaim of the node", &|it| {
        it.node.window.memory.some = 6.0;
        it.node.events.allocstall = 40;
        it.node.events.pgscan_direct = 400;
    });
    with("reclaim beside kswapd, by the probes", &|it| {
        it.node.window.memory.some = 4.0;
        it.node.events.allocstall = 3;
        it.node.events.pgscan_kswapd = 2_244;
        it.node.events.pgscan_direct = 96;
        probed(it, "/", Cause::Kswapd, 2.0);
        probed(it, "/pods/idle", Cause::DirectReclaim, 2.0);
        it.probed.get_or_insert_default().memory_causes = true;
    });
    all
}

fn state(reading: &Reading) -> State {
    knowledge::state::<PsiStall>(reading, &Settings::default())
}

/// Nor is anybody said to suffer without a number.
fn is_told_by_numbers(reading: &Reading) {
    knowledge::is_told_by_numbers::<PsiStall>(reading, &Settings::default());
    let (_, found) = judged::<PsiStall>(reading, &Settings::default());
    for victim in found.iter().flat_map(|finding| &finding.victims) {
        let digits = victim.share.chars().any(|it| it.is_ascii_digit());
        assert!(digits, "{victim:?}");
    }
}

#[test]
fn no_missing_fact_and_no_two_make_a_verdict_healthy() {
    let tried = knowledge::less_is_never_healthy::<PsiStall>(&wrong());
    assert!(tried > 300, "{tried}");
}

/// Takes what a probe gives out of a reading.
type Detach = fn(&mut Reading);

/// Nor does a probe that is not there.
#[test]
fn no_missing_probe_makes_a_verdict_healthy() {
    let probes: [(&str, Detach); 4] = [
        ("cgroups", |it| {
            it.scan = None;
            it.cgroups.clear();
        }),
        ("memory", |it| {
            if let Some(probed) = &mut it.probed {
                probed.memory_causes = false;
                probed.causes.clear();
                probed.waiters.clear();
            }
        }),
        ("tasks", |it| it.node.sleeping = None),
        ("all", |it| it.probed = None),
    ];
    for (name, reading) in wrong() {
        for (i, (first, take)) in probes.iter().enumerate() {
            for (second, take_too) in &probes[i..] {
                let mut less = reading.clone();
                take(&mut less);
                take_too(&mut less);
                assert_ne!(
                    state(&less),
                    State::Healthy,
                    "{name} without {first} and {second}"
                );
                is_told_by_numbers(&less);
            }
        }
    }
}

/// Numbers of a kernel, one after the other.
struct Counters(std::vec::IntoIter<u64>);

impl Counters {
    fn next(&mut self) -> u64 {
        self.0.next().unwrap_or_default()
    }

    /// Up to a little more than the window, or out of all reason.
    fn seconds(&mut self) -> f64 {
        match self.next() {
            it if it % 17 == 0 => (it >> 12) as f64,
            it => (it % 12_000_000) as f64 / 1e6,
        }
    }

    fn maybe<T>(&mut self, of: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (!self.next().is_multiple_of(3)).then(|| of(self))
    }

    fn wait(&mut self) -> Wait {
        let some = if self.next().is_multiple_of(2) {
            self.seconds()
        } else {
            0.0
        };
        Wait {
            some,
            full: some / 2.0,
        }
    }

    fn waits(&mut self) -> Waits {
        Waits {
            cpu: self.wait(),
            memory: self.wait(),
            io: self.wait(),
            irq: self.wait(),
        }
    }

    fn cpu(&mut self) -> CpuReading {
        CpuReading {
            tasks: self.seconds(),
            idle: self.seconds(),
            irq: self.seconds(),
            softirq: self.seconds(),
            steal: self.seconds(),
        }
    }

    fn memory(&mut self) -> MemoryReading {
        MemoryReading {
            current: self.next(),
            high: self.maybe(Self::next),
            max: self.maybe(Self::next),
            dirty: self.next(),
            inactive_file: self.maybe(Self::next),
            window: self.maybe(|it| MemoryWindow {
                high_events: it.next(),
                max_events: it.next() % 2,
                oom_events: it.next(),
                faults: it.next(),
                refaults: it.next(),
                reclaimed: it.next(),
                scanned: it.next(),
            }),
        }
    }

    fn cgroup(&mut self, path: &str) -> CgroupReading {
        CgroupReading {
            path: path.to_owned(),
            window_seconds: None,
            waits: self.waits(),
            cpu_seconds: self.seconds(),
            own_cpu_seconds: self.seconds(),
            throttled_seconds: self.seconds(),
            periods: self.next() % 100,
            throttled_periods: self.next() % 100,
            quota_on_version_1: self.next().is_multiple_of(2),
            quota_cpus: self.maybe(Self::seconds),
            allowed_cpus: self.maybe(|it| (it.next() % 5) as u32),
            isolated_cpus: self.maybe(|it| (it.next() % 5) as u32),
            allowed_idle: self.maybe(|it| (it.next() % 101) as f64 / 100.0),
            memory: self.maybe(Self::memory),
            io: wrote(self.next()),
            io_max: [(
                "254:16".to_owned(),
                Transfer {
                    written_bytes: self.maybe(Self::next),
                    ..Transfer::default()
                },
            )]
            .into(),
        }
    }

    fn disk(&mut self, name: &str) -> DiskReading {
        let completed = self.next() % 9;
        DiskReading {
            read_bytes: self.next(),
            completed,
            in_flight: self.next(),
            stuck: completed == 0 && self.next().is_multiple_of(2),
            ..disk(name, self.seconds())
        }
    }

    fn reading(&mut self) -> Reading {
        let mut reading = healthy();
        reading.window_seconds = if self.next().is_multiple_of(9) {
            0.0
        } else {
            WINDOW
        };
        reading.cpus = (self.next() % 5) as u32;
        reading.agent_seconds = self.seconds();
        reading.cpu_on_version_1 = self.next().is_multiple_of(2);
        reading.memory_on_version_1 = self.next().is_multiple_of(2);
        reading.cgroups = ["/a", "/a/b", "/c"].map(|it| self.cgroup(it)).into();
        let node = &mut reading.node;
        node.window = self.waits();
        node.cpu = self.maybe(Self::cpu);
        node.busy_seconds = self.maybe(Self::seconds);
        node.interrupted = self.maybe(|it| InterruptedCpu {
            cpu: 1,
            time: it.cpu(),
            softirqs: vec![("NET_RX".to_owned(), it.next())],
        });
        node.memory.swap_free = self.next();
        node.memory.dirty = self.next();
        node.events = MemoryEvents {
            allocstall: self.next() % 3,
            pgscan_direct: self.next(),
            pgscan_kswapd: self.next(),
            pgsteal_direct: self.next(),
            pgsteal_kswapd: self.next(),
            refault: self.next(),
            swap_in: self.next(),
            swap_out: self.next(),
            compact_stall: self.next() % 2,
        };
        node.disks = self.maybe(|it| vec![it.disk("sda"), it.disk("sdb")]);
        let places = [Place::Nfs, Place::IoUring, Place::Other, Place::Hidden];
        node.sleeping = self.maybe(|it| Sleeping {
            sleepers: places.map(|place| sleepers(place, "cat", it.next())).into(),
            complete: it.next().is_multiple_of(2),
        });
        reading.scan = self.maybe(|it| ScanReading {
            complete: !it.next().is_multiple_of(4),
            ..ScanReading::default()
        });
        reading
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(512)
    })]

    #[test]
    fn whatever_the_kernel_counts_less_knowledge_is_not_better(
        numbers in prop::collection::vec(
            prop_oneof![Just(0), 0..20_u64, 0..u64::from(u32::MAX), any::<u64>()],
            200,
        ),
        taken in prop::collection::vec(any::<prop::sample::Index>(), 2),
    ) {
        let reading = Counters(numbers.into_iter()).reading();
        is_told_by_numbers(&reading);
        let _samples = PsiStall::samples(&reading);
        let _notes = notes_of(&reading);
        let mut less = serde_json::to_value(&reading).expect("it is data");
        let places = knowledge::optional::<PsiStall>(&less);
        for index in taken.iter().filter(|_| !places.is_empty()) {
            less = knowledge::without(less, &places[index.index(places.len())]);
        }
        let less = serde_json::from_value(less).expect("each may be absent");
        is_told_by_numbers(&less);
        if state(&reading) != State::Healthy {
            prop_assert_ne!(state(&less), State::Healthy);
        }
    }
}
