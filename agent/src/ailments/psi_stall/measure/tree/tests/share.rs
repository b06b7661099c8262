//! What a scan tells while it may not read all: a clock stands for CPU time.

use std::{cell::Cell, collections::BTreeMap};

use proptest::prelude::*;

use super::*;

thread_local! {
    static CLOCK: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// CPU time between two looks at the clock.
    static COST: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn clock() -> Duration {
    CLOCK.set(CLOCK.get() + COST.get());
    CLOCK.get()
}

/// Reading a cgroup takes a millisecond: there are four between two looks.
fn slow(mut tree: Tree) -> Tree {
    COST.set(MS(4));
    tree.clock = clock;
    tree
}

/// As many cgroups in `/pods`, all with a long past.
fn many(count: u32) -> Fake {
    let tree = Fake::new();
    tree.set("pods", MS(50_000), MS(50_000));
    for i in 0..count {
        tree.set(&format!("pods/{i:05}"), MS(700), MS(700));
    }
    tree
}

/// So many cgroups can be read in a window, and in a hurry twelve times as many.
fn share_for(cgroups: u32) -> Settings {
    Settings {
        scan_cpu_ratio: 2.0 * 0.001 * f64::from(cgroups) / WINDOW.as_secs_f64(),
        ..Settings::default()
    }
}

/// What a reading has of the window of a cgroup.
fn current<'s>(scanned: &'s Scanned, path: &str) -> Option<&'s CgroupReading> {
    let mut cgroups = scanned.cgroups.iter();
    cgroups.find(|it| it.path == path && !it.is_older())
}

/// Small waits everywhere, until nothing is saved.
fn use_up(tree: &mut Tree) {
    for _ in 0..20 {
        tree.scan(WINDOW, 1, &waited(MS(200)), CpuSets::default());
    }
}

/// Before, a scan began at the first each time: the last of the alphabet was in no report.
#[test]
fn the_last_of_many_is_found_within_three_readings() {
    let fake = many(2_000);
    let mut tree = slow(fake.begin_with_share(&share_for(1_000)));
    let mut pods = 50_000;
    for _ in 0..20 {
        pods += 200;
        fake.set("pods", MS(pods), MS(pods));
        tree.scan(WINDOW, 1, &waited(MS(200)), CpuSets::default());
    }
    let mut found = Vec::new();
    for i in 1..=3 {
        pods += 8_000;
        fake.set("pods", MS(pods), MS(pods));
        fake.set("pods/01999", MS(700 + i * 8_000), MS(700 + i * 8_000));
        let scanned = tree.scan(WINDOW, 1, &waited(MS(8_000)), CpuSets::default());
        let culprit = current(&scanned, "/pods/01999");
        found.extend(culprit.map(|it| (it.waits.cpu.some, it.own_cpu_seconds)));
        // Until it is, nobody knows that all is well, and nobody else is named in its place.
        assert!(culprit.is_some() || scanned.reading.may_stall == Some(true));
        let others = scanned.cgroups.iter().filter(|it| !it.is_older());
        let blamed = others.filter(|it| it.path != "/pods/01999" && it.own_cpu_seconds > 0.1);
        assert_eq!(blamed.count(), 0, "reading {i}");
    }
    assert_eq!(found.last(), Some(&(8.0, 8.0)), "{found:?}");
}

/// 20,000 cgroups take longer than one scan may. That all have been read once was known only to a
/// scan that read all of them, so all were read again and again, however quiet.
#[test]
fn the_first_look_goes_on_until_each_has_been_read_once() {
    let fake = many(400);
    let mut tree = slow(Tree::begin(
        fake.folder.path().to_owned(),
        &Settings {
            scan_timeout: ZERO,
            ..share_for(4)
        },
    ));
    // A hundred cgroups, or fewer on a slow machine.
    tree.bounds.time = MS(100);
    let quiet = |tree: &mut Tree| tree.scan(WINDOW, 1, &waited(ZERO), CpuSets::default());
    let scans = (1..=400).find(|_| quiet(&mut tree).reading.visited <= 1);
    assert!(scans > Some(4), "{scans:?}");
    tree.bounds.time = Duration::from_secs(300);
    fake.set("pods", MS(58_000), MS(58_000));
    fake.set("pods/00399", MS(8_700), MS(8_700));
    tree.prefer(std::iter::once("/pods/00399"));
    let scanned = tree.scan(WINDOW, 1, &waited(MS(8_000)), CpuSets::default());
    let culprit = current(&scanned, "/pods/00399").expect("it is known since the first look");
    assert_eq!(
        (culprit.waits.cpu.some, culprit.own_cpu_seconds),
        (8.0, 8.0)
    );
}

#[test]
fn where_nobody_can_have_waited_long_nobody_is_named_and_that_is_known() {
    let fake = many(2_000);
    let mut tree = slow(fake.begin_with_share(&share_for(200)));
    let mut pods = 50_000;
    let mut unread = 0;
    for _ in 0..40 {
        pods += 100;
        fake.set("pods", MS(pods), MS(pods));
        let scanned = tree.scan(WINDOW, 1, &waited(MS(100)), CpuSets::default());
        assert_eq!(scanned.reading.may_stall, Some(false));
        assert!(scanned.cgroups.iter().all(|it| it.path == "/pods"));
        unread += scanned.reading.unread;
        assert_eq!(scanned.reading.complete, scanned.reading.unread == 0);
    }
    assert!(unread > 0, "all could be read");
}

#[test]
fn who_was_named_last_is_read_first_each_time() {
    let fake = many(400);
    let mut tree = slow(fake.begin_with_share(&share_for(100)));
    let mut named = 0;
    for i in 1..=40_u64 {
        let waited_now = MS(50_000 + i * 8_000);
        fake.set("pods", waited_now, ZERO);
        fake.set("pods/00399", MS(700 + i * 8_000), ZERO);
        let scanned = tree.scan(WINDOW, 1, &waited(MS(8_000)), CpuSets::default());
        match current(&scanned, "/pods/00399") {
            Some(it) => {
                assert_eq!(it.waits.cpu.some, 8.0);
                named += 1;
            }
            None => assert!(i <= 2, "it is lost in reading {i}"),
        }
    }
    assert!(named >= 38, "{named}");
}

/// A cgroup that stalled while nobody looked is told with the time that its figure is of.
#[test]
fn a_figure_of_more_than_the_window_says_so() {
    let fake = many(400);
    let mut tree = slow(fake.begin_with_share(&share_for(60)));
    use_up(&mut tree);
    let mut pods = 50_000;
    let mut older = None;
    for i in 0..40 {
        pods += 200;
        fake.set("pods", MS(pods), ZERO);
        if i == 1 {
            // It stalls in one window, and is read some windows later.
            fake.set("pods/00390", MS(700 + 6_000), ZERO);
        }
        let scanned = tree.scan(WINDOW, 1, &waited(MS(200)), CpuSets::default());
        let mut found = scanned.cgroups.into_iter();
        let found = found.find(|it| it.path == "/pods/00390");
        older = older.or(found);
    }
    let older = older.expect("it is seen in the end");
    let window = older.window_seconds.expect("it is of a longer time");
    assert!(window >= 20.0, "{window}");
    assert_eq!(older.waits.cpu.some, 6.0);
}

#[test]
fn a_minute_of_scans_takes_no_more_than_its_share() {
    let fake = many(1_000);
    let settings = share_for(1_000);
    let mut tree = slow(fake.begin_with_share(&settings));
    use_up(&mut tree);
    let began = CLOCK.get();
    let mut pods = 90_000;
    for _ in 0..60 {
        pods += 900;
        fake.set("pods", MS(pods), MS(pods));
        let second = Duration::from_secs(1);
        tree.scan(second, 1, &waited(MS(900)), CpuSets::default());
    }
    let took = CLOCK.get() - began;
    let share = Duration::from_secs(60).mul_f64(settings.scan_cpu_ratio);
    // Each scan looks at the clock four times whatever it may take.
    assert!(took <= share + 60 * 4 * MS(4), "{took:?} of {share:?}");
    assert!(took > share / 2, "{took:?}: the share is used");
}

/// A window of a model: what each leaf waits and uses, and how dear it is to read a cgroup.
#[derive(Clone, Debug)]
struct Step {
    waits: Vec<u64>,
    uses: Vec<u64>,
    cost: u64,
}

const LEAVES: [&str; 6] = ["a/1", "a/2", "a/3", "b/1", "b/2", "c"];

fn step() -> impl Strategy<Value = Step> {
    let amount = || prop_oneof![3 => Just(0_u64), 1 => 1_u64..200, 2 => 200_u64..9_000];
    let all = || proptest::collection::vec(amount(), LEAVES.len());
    (all(), all(), prop_oneof![Just(0), Just(40), Just(400)]).prop_map(|(waits, uses, cost)| Step {
        waits,
        uses,
        cost,
    })
}

/// What each cgroup has waited and used: one waits as long as the longest below it, and uses what
/// those below it use.
fn totals(steps: &[Step]) -> BTreeMap<String, (u64, u64)> {
    let mut all: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for step in steps {
        let mut window: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (i, leaf) in LEAVES.iter().enumerate() {
            let leaf = format!("/{leaf}");
            for path in ancestors(&leaf).chain([leaf.as_str()]) {
                let it = window.entry(path.to_owned()).or_default();
                *it = (it.0.max(step.waits[i]), it.1 + step.uses[i]);
            }
        }
        for (path, (waited, used)) in window {
            let it = all.entry(path).or_default();
            *it = (it.0 + waited, it.1 + used);
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// However little a scan may read: a figure of the window is of the window, an older one of the
    /// time that it says, nobody is blamed for what others used, and a stall that is not shown is
    /// told as unknown.
    #[test]
    fn no_figure_is_of_another_time_and_no_stall_is_missed_in_silence(
        steps in proptest::collection::vec(step(), 1..14)
    ) {
        let fake = Fake::new();
        let set = |now: &BTreeMap<String, (u64, u64)>| {
            for (path, (waited, used)) in now {
                fake.set(&path[1..], MS(*waited), MS(*used));
            }
        };
        set(&totals(&[Step { waits: vec![0; 6], uses: vec![0; 6], cost: 0 }]));
        COST.set(ZERO);
        let mut tree = fake.begin_with_share(&share_for(4));
        tree.clock = clock;
        for (i, step) in steps.iter().enumerate() {
            let now = totals(&steps[..=i]);
            set(&now);
            COST.set(MS(step.cost));
            let node = step.waits.iter().max().copied().unwrap_or_default();
            let scanned = tree.scan(WINDOW, 1, &waited(MS(node)), CpuSets::default());
            // By the windows that a figure is of, the last first.
            let since = |windows: usize| totals(&steps[..(i + 1).saturating_sub(windows)]);
            for it in &scanned.cgroups {
                let windows = it.window_seconds.map_or(1, |it| (it / 10.0).round() as usize);
                let before = since(windows).get(&it.path).copied().unwrap_or_default();
                let (waited, used) = (now[&it.path].0 - before.0, now[&it.path].1 - before.1);
                let told = (it.waits.cpu.some, it.cpu_seconds);
                prop_assert!(told.0 <= waited as f64 / 1e3 + 1e-6, "{it:?}, not {waited} ms");
                prop_assert!(told.1 <= used as f64 / 1e3 + 1e-6, "{it:?}, not {used} ms");
                let is_leaf = LEAVES.iter().any(|leaf| it.path[1..] == **leaf);
                prop_assert!(is_leaf || it.own_cpu_seconds <= 0.1 + 1e-6, "{it:?} has no tasks");
            }
            for (leaf, waited) in LEAVES.iter().zip(&step.waits) {
                let stalled = *waited as f64 / 1e4 > 0.4;
                let shown = current(&scanned, &format!("/{leaf}"));
                // What is left out for what may be of an earlier time is less than a tenth.
                let shown = shown.is_some_and(|it| it.waits.cpu.some >= 0.9 * *waited as f64 / 1e3);
                let unknown = scanned.reading.may_stall == Some(true);
                prop_assert!(!stalled || shown || unknown, "{leaf}: {:?}", scanned.reading);
            }
        }
    }
}
