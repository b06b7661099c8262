//! Runs scenarios in a VM and says of each how it ended, whatever happens to the VM.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::boot::{Running, Vm};
use super::console;
use super::costs::Cost;
use super::report::{say, tail};
use super::tail::Tail;
use super::watchdog::Watchdog;
use crate::protocol::{Event, Job, Outcome, ScenarioEnd, TOLD, Task};

/// Until the guest is up, in its own time.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// Beyond a scenario's own limit, which the guest keeps: for cleaning up after it.
const GRACE: Duration = Duration::from_secs(90);

pub(super) const POLL: Duration = Duration::from_millis(50);

/// Lines of the console in a failure.
const TAIL: usize = 40;

/// What happens in a boot.
#[derive(Debug)]
pub(crate) enum Progress {
    /// The guest was up after this long.
    Up(Duration),
    /// It never came up, for this reason, and is booted once more.
    BootAgain(String),
    /// A scenario has ended. Its cost is not known where the guest has died of it.
    Ended {
        scenario: String,
        outcome: Outcome,
        cost: Option<Cost>,
    },
}

/// Runs all tasks, in as many boots as it takes: a kernel that dies of one scenario does not hide
/// how the next ones end. The end of each task is reported exactly once.
///
/// A guest that never comes up is booted once more, which is reported, unless its kernel has a fault.
pub(crate) fn run(
    name: &str,
    vm: &Vm,
    tasks: &[Task],
    report: &mut dyn FnMut(Progress),
) -> Result<()> {
    let mut remaining = tasks.to_vec();
    let mut may_boot_again = true;
    while !remaining.is_empty() {
        let mut session = Session::start(name, vm, &remaining)?;
        let end = session.follow(&mut |progress| {
            if let Progress::Ended { scenario, .. } = &progress {
                remaining.retain(|task| task.name != *scenario);
            }
            report(progress);
        })?;
        let why = match end {
            End::Done => "the guest gave no verdict".to_owned(),
            End::NeverUp(why) if may_boot_again => {
                may_boot_again = false;
                report(Progress::BootAgain(session.explain(&why)));
                continue;
            }
            End::Fault(why) | End::Died(why) | End::NeverUp(why) => session.explain(&why),
        };
        let blamed = match session.current.take() {
            Some(current) => remaining
                .extract_if(.., |task| task.name == current)
                .collect(),
            // No scenario is to blame, and another boot would end like this one.
            None => std::mem::take(&mut remaining),
        };
        for task in blamed {
            report(Progress::Ended {
                scenario: task.name,
                outcome: Outcome::Failed(why.clone()),
                cost: None,
            });
        }
    }
    Ok(())
}

/// As [`run`], for callers that want nothing but outcomes.
pub(crate) fn outcomes(
    name: &str,
    vm: &Vm,
    tasks: &[Task],
    publish: &mut dyn FnMut(&str, Outcome),
) -> Result<()> {
    run(name, vm, tasks, &mut |progress| match progress {
        Progress::Ended {
            scenario, outcome, ..
        } => publish(&scenario, outcome),
        Progress::BootAgain(why) => say!("kernel {name} is booted once more: {why}"),
        Progress::Up(_) => {}
    })
}

/// How a boot ended.
pub(super) enum End {
    Done,
    /// The kernel reports a fault.
    Fault(String),
    /// Before it was up, and without a fault.
    NeverUp(String),
    /// Later, and without a fault.
    Died(String),
}

/// One boot.
pub(super) struct Session<'a> {
    name: &'a str,
    tasks: Vec<Task>,
    running: Running,
    console: Tail,
    events: Tail,
    is_up: bool,
    /// The scenario that runs now, which began when the guest was last heard of.
    current: Option<String>,
    started: Instant,
    heard: Instant,
    watchdog: Watchdog,
}

impl<'a> Session<'a> {
    pub(super) fn start(name: &'a str, vm: &Vm, tasks: &[Task]) -> Result<Self> {
        let job = Job {
            kernel: name.to_owned(),
            scenarios: tasks.to_vec(),
            ..Job::default()
        };
        let running = vm.start(&job)?;
        let mut watchdog = Watchdog::new(running.id(), vm.machine.clock);
        watchdog.grant(BOOT_LIMIT);
        let started = Instant::now();
        Ok(Self {
            name,
            tasks: tasks.to_vec(),
            console: Tail::new(&running.folder().console()),
            events: Tail::new(&running.folder().events()),
            running,
            is_up: false,
            current: None,
            started,
            heard: started,
            watchdog,
        })
    }

    fn follow(&mut self, report: &mut dyn FnMut(Progress)) -> Result<End> {
        loop {
            if let Some(end) = self.poll(report)? {
                return Ok(end);
            }
            sleep(POLL);
        }
    }

    /// Looks once at what has happened.
    pub(super) fn poll(&mut self, report: &mut dyn FnMut(Progress)) -> Result<Option<End>> {
        // In this order: what a guest wrote before it ended is still read.
        let ended = self.running.has_ended()?;
        let fault = self.fault()?;
        for line in self.events.lines()? {
            let event = serde_json::from_str(&line)
                .with_context(|| format!("kernel {}: event {line:?}", self.name))?;
            if self.take(event, report) {
                return Ok(Some(End::Done));
            }
        }
        if let Some(fault) = fault {
            self.settle();
            return Ok(Some(End::Fault(format!("the kernel reports: {fault}"))));
        }
        let why = match ended {
            Some(status) => Some(format!("QEMU ended with {status}")),
            None => self.watchdog.look()?,
        };
        Ok(why.map(|why| match self.is_up {
            true => End::Died(why),
            false => End::NeverUp(why),
        }))
    }

    fn fault(&mut self) -> Result<Option<String>> {
        let lines = self.console.lines()?;
        for line in lines.iter().filter_map(|line| line.strip_prefix(TOLD)) {
            say!("kernel {}: {}", self.name, line.trim_end());
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
    fn take(&mut self, event: Event, report: &mut dyn FnMut(Progress)) -> bool {
        let since = std::mem::replace(&mut self.heard, Instant::now());
        match event {
            Event::Up { release } => {
                self.is_up = true;
                self.say(&format!("{release} is up"));
                self.watchdog.grant(GRACE);
                report(Progress::Up(self.started.elapsed()));
            }
            Event::Start { scenario } => {
                let task = self.tasks.iter().find(|task| task.name == scenario);
                let limit = task.map(|task| task.limit).unwrap_or_default();
                self.watchdog.grant(limit + GRACE);
                self.current = Some(scenario);
            }
            Event::End(end) => {
                self.current = None;
                self.watchdog.grant(GRACE);
                self.end(end, since.elapsed(), report);
            }
            Event::Done => {
                self.say("done");
                return true;
            }
        }
        false
    }

    fn end(&mut self, end: ScenarioEnd, host: Duration, report: &mut dyn FnMut(Progress)) {
        for what in &end.left {
            say!("kernel {}: {} left behind: {what}", self.name, end.scenario);
        }
        report(Progress::Ended {
            scenario: end.scenario,
            outcome: with_log(end.outcome, &end.log),
            cost: Some(Cost {
                host,
                guest: end.took,
                busy: end.busy,
                cleaning: end.cleaning,
            }),
        });
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

fn with_log(outcome: Outcome, log: &str) -> Outcome {
    match outcome {
        Outcome::Failed(why) if !log.is_empty() => {
            Outcome::Failed(format!("{why}\n  its output:\n{}", tail(log, 200)))
        }
        other => other,
    }
}
