//! Runs scenarios in a VM and says of each how it ended, whatever happens to the VM.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::boot::{Running, Vm};
use super::console;
use super::report::{say, tail};
use super::tail::Tail;
use crate::protocol::{Event, Job, Outcome, ScenarioEnd, TOLD, Task};

/// Until the guest is up. A quiet machine needs 10 s; two builds beside it make it several times
/// that.
const BOOT_LIMIT: Duration = Duration::from_secs(300);

/// Beyond a scenario's own limit, which the guest keeps: for cleaning up after it.
const GRACE: Duration = Duration::from_secs(90);

pub(super) const POLL: Duration = Duration::from_millis(50);

/// Scenarios that are named at the end of a boot.
const SLOWEST: usize = 8;

/// Lines of the console in a failure.
const TAIL: usize = 40;

/// Runs all tasks, in as many boots as it takes: a kernel that dies of one scenario does not hide
/// how the next ones end. `publish` hears of each task exactly once.
pub(crate) fn run(
    name: &str,
    vm: &Vm,
    tasks: &[Task],
    publish: &mut dyn FnMut(&str, Outcome),
) -> Result<()> {
    let mut remaining = tasks.to_vec();
    while !remaining.is_empty() {
        let mut session = Session::start(name, vm, &remaining)?;
        let end = session.follow(&mut |scenario, outcome| {
            remaining.retain(|task| task.name != scenario);
            publish(scenario, outcome);
        })?;
        let why = match end {
            End::Done => "the guest gave no verdict".to_owned(),
            End::Died(why) => session.explain(&why),
        };
        let blamed = match session.current.take() {
            Some(current) => remaining
                .extract_if(.., |task| task.name == current)
                .collect(),
            // No scenario is to blame, and another boot would end like this one.
            None => std::mem::take(&mut remaining),
        };
        for task in blamed {
            publish(&task.name, Outcome::Failed(why.clone()));
        }
    }
    Ok(())
}

/// How a boot ended.
pub(super) enum End {
    Done,
    Died(String),
}

/// One boot.
pub(super) struct Session<'a> {
    name: &'a str,
    tasks: Vec<Task>,
    running: Running,
    console: Tail,
    events: Tail,
    /// The scenario that runs now.
    current: Option<String>,
    started: Instant,
    deadline: Instant,
    /// Seconds, and whose they were.
    took: Vec<(f64, String)>,
}

impl<'a> Session<'a> {
    pub(super) fn start(name: &'a str, vm: &Vm, tasks: &[Task]) -> Result<Self> {
        let job = Job {
            kernel: name.to_owned(),
            scenarios: tasks.to_vec(),
            ..Job::default()
        };
        let running = vm.start(&job)?;
        let started = Instant::now();
        Ok(Self {
            name,
            tasks: tasks.to_vec(),
            console: Tail::new(&running.folder().console()),
            events: Tail::new(&running.folder().events()),
            running,
            current: None,
            started,
            deadline: started + BOOT_LIMIT,
            took: Vec::new(),
        })
    }

    fn follow(&mut self, publish: &mut dyn FnMut(&str, Outcome)) -> Result<End> {
        loop {
            if let Some(end) = self.poll(publish)? {
                return Ok(end);
            }
            sleep(POLL);
        }
    }

    /// Looks once at what has happened.
    pub(super) fn poll(&mut self, publish: &mut dyn FnMut(&str, Outcome)) -> Result<Option<End>> {
        // In this order: what a guest wrote before it ended is still read.
        let ended = self.running.has_ended()?;
        let fault = self.fault()?;
        for line in self.events.lines()? {
            let event = serde_json::from_str(&line)
                .with_context(|| format!("kernel {}: event {line:?}", self.name))?;
            if self.take(event, publish) {
                return Ok(Some(End::Done));
            }
        }
        if let Some(fault) = fault {
            self.settle();
            return Ok(Some(End::Died(format!("the kernel reports: {fault}"))));
        }
        if let Some(status) = ended {
            return Ok(Some(End::Died(format!("QEMU ended with {status}"))));
        }
        let late = Instant::now() > self.deadline;
        Ok(late.then(|| End::Died("no sign of life within the limit".into())))
    }

    fn fault(&mut self) -> Result<Option<String>> {
        let lines = self.console.lines()?;
        for told in lines.iter().filter_map(|line| line.strip_prefix(TOLD)) {
            say!("kernel {}: {}", self.name, told.trim_end());
        }
        Ok(lines
            .iter()
            .find_map(|line| console::fault(line))
            .map(str::to_owned))
    }

    /// Lets the kernel finish its report, which it prints line by line.
    fn settle(&self) {
        sleep(Duration::from_secs(1));
    }

    /// Whether that was the last.
    fn take(&mut self, event: Event, publish: &mut dyn FnMut(&str, Outcome)) -> bool {
        match event {
            Event::Up { release } => {
                self.say(&format!("{release} is up"));
                self.deadline = Instant::now() + GRACE;
            }
            Event::Start { scenario } => {
                let task = self.tasks.iter().find(|task| task.name == scenario);
                let limit = task.map(|task| task.limit).unwrap_or_default();
                self.deadline = Instant::now() + limit + GRACE;
                self.current = Some(scenario);
            }
            Event::End(end) => {
                self.current = None;
                self.deadline = Instant::now() + GRACE;
                self.end(end, publish);
            }
            Event::Done => {
                let slowest = slowest(&mut self.took);
                self.say(&format!("done; {slowest}"));
                return true;
            }
        }
        false
    }

    fn end(&mut self, end: ScenarioEnd, publish: &mut dyn FnMut(&str, Outcome)) {
        for what in end.left {
            say!("kernel {}: {} left behind: {what}", self.name, end.scenario);
        }
        publish(&end.scenario, with_log(end.outcome, &end.log));
        self.took.push((end.seconds, end.scenario));
    }

    fn say(&self, what: &str) {
        say!(
            "kernel {}: {:.1} s: {what}",
            self.name,
            self.started.elapsed().as_secs_f64()
        );
    }

    /// What is known of a death: the cause and the console's last lines, with QEMU's own words.
    pub(super) fn explain(&self, why: &str) -> String {
        let console = fs::read(self.running.folder().console()).unwrap_or_default();
        let console = tail(&String::from_utf8_lossy(&console), TAIL);
        let qemu = tail(&self.running.complaints(), TAIL);
        format!(
            "{why}\n  console of kernel {}:\n{console}\n  QEMU:\n{qemu}",
            self.name
        )
    }
}

/// Where the time went.
fn slowest(took: &mut [(f64, String)]) -> String {
    took.sort_by(|one, other| other.0.total_cmp(&one.0));
    let some = took.iter().take(SLOWEST);
    let some = some.map(|(seconds, scenario)| format!("{seconds:.1} s {scenario}"));
    some.collect::<Vec<_>>().join(", ")
}

fn with_log(outcome: Outcome, log: &str) -> Outcome {
    match outcome {
        Outcome::Failed(why) if !log.is_empty() => {
            Outcome::Failed(format!("{why}\n  its output:\n{}", tail(log, 200)))
        }
        other => other,
    }
}
