//! `nodemedic treat`

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use rustix::process::geteuid;
use tokio::time::timeout;

use super::{Node, exit::Exit, signals::Signals};
use crate::{
    config::Config,
    control::{self, Answer, Request},
    identity::Identity,
    logging,
    monitor::{Monitor, Reports},
    render::{Terminal, course_as_text, print},
    report::AilmentReport,
    state::{self, Lock},
    treatment::{Course, Ending, Policy, Practice, State},
};

/// Attaching takes a second or two, and longer on a busy node.
const TO_ATTACH: Duration = Duration::from_secs(30);

/// Asks the agent of this node, if one runs, and returns at once. Without one it observes
/// the node itself, and stays until the treatment ends; Ctrl-C ends it.
///
/// Nothing is changed without --apply, unless the configuration has the treatment as
/// manual, alert or auto.
#[derive(Debug, Args)]
pub(super) struct Treat {
    /// The ailment, as udp_conntrack.
    ailment: String,
    #[command(flatten)]
    node: Node,
    /// With which treatment, as `treatments` lists them; the first that may be, if none
    /// is given.
    #[arg(long = "with", value_name = "TREATMENT")]
    treatment: Option<String>,
    /// For how long; as configured, if not given.
    #[arg(long = "for", value_name = "TIME", value_parser = Policy::parse_duration)]
    duration: Option<Duration>,
    /// Do it.
    #[arg(long, conflicts_with = "dry_run")]
    apply: bool,
    /// Only tell what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Though the node is healthy, or the treatment has just ended.
    #[arg(long)]
    force: bool,
    /// Without an agent: how long to observe the node first.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    window: Duration,
}

impl Treat {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let config = self.node.load()?;
        let request = Request::Treat {
            ailment: self.ailment.clone(),
            treatment: self.treatment.clone(),
            duration: self.duration,
            apply: self.apply,
            dry_run: self.dry_run,
            force: self.force,
        };
        let directory = state::directory(&config.agent.state_dir);
        match control::call(&directory, &request)? {
            Some(answer) => show(answer),
            None => self.without_an_agent(config, directory, request),
        }
    }

    fn without_an_agent(
        &self,
        config: Config,
        directory: PathBuf,
        request: Request,
    ) -> anyhow::Result<Exit> {
        logging::for_a_person();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the runtime")?;
        let outcome = runtime.block_on(self.alone(config, directory, request));
        runtime.shutdown_background();
        outcome
    }

    /// Nothing is left in force when this ends.
    async fn alone(
        &self,
        config: Config,
        directory: PathBuf,
        request: Request,
    ) -> anyhow::Result<Exit> {
        let mut signals = Signals::take()?;
        let _lock = Lock::take(&config.agent.state_dir)?;
        let kernel = Arc::new(config.kernel());
        let practice = Arc::new(Practice::open(
            config.treatment_policy.with(config.treatments),
            &directory,
        ));
        let identity = Identity::of_this_node(&config.agent.node_name);
        let mut monitor = Monitor::new(
            config.ailments,
            kernel,
            identity,
            config.agent.interval.min(self.window),
            config.metrics.max_series,
        );
        monitor.practise(Arc::clone(&practice));
        let reports = monitor.reports();
        let course = self.course(&practice, reports, request);
        let outcome = tokio::select! {
            never = monitor.run() => match never {},
            outcome = course => outcome,
            signal = signals.next() => {
                eprintln!("{signal}: putting back what was changed");
                Ok(Exit::Healthy)
            }
        };
        let undone = practice.undo(None, Ending::AgentEnded);
        monitor.stop().await;
        for course in undone.into_iter().flatten() {
            print(&course_as_text(&course, Terminal::of_stdout()))?;
        }
        outcome
    }

    /// From the first report that has seen enough to the end of the treatment.
    async fn course(
        &self,
        practice: &Practice,
        mut reports: Reports,
        request: Request,
    ) -> anyhow::Result<Exit> {
        eprintln!(
            "observing for {} …",
            humantime::format_duration(self.window)
        );
        let measured = reports.wait_for(|last| {
            let ailments = last.iter().flat_map(|last| &last.report.ailments);
            let mut ours = ailments.filter(|it| it.name == self.ailment);
            ours.any(|it: &AilmentReport| !it.reading.is_null())
        });
        // An ailment that is never measured is refused with its reason.
        let _ = timeout(TO_ATTACH, measured).await;
        tokio::time::sleep(self.window).await;
        let answer = control::answer(request, geteuid().as_raw(), practice, &reports);
        let Answer::Begun { course } = answer else {
            return show(answer);
        };
        print(&course_as_text(&course, Terminal::of_stdout()))?;
        let mut state = course.state;
        loop {
            reports.changed().await.context("the monitor has ended")?;
            let (courses, _) = practice.status();
            let Some(now) = courses.into_iter().find(|it| it.id == course.id) else {
                continue;
            };
            if now.state != state {
                state = now.state;
                print(&course_as_text(&now, Terminal::of_stdout()))?;
            }
            if !now.is_active() {
                return Ok(exit(&now));
            }
        }
    }
}

/// Tells what an agent has answered.
pub(super) fn show(answer: Answer) -> anyhow::Result<Exit> {
    let terminal = Terminal::of_stdout();
    match answer {
        Answer::Begun { course } => {
            print(&course_as_text(&course, terminal))?;
            Ok(exit(&course))
        }
        Answer::Would { course } => {
            print(&course_as_text(&course, terminal))?;
            print("This is what would be done; nothing was changed. --apply does it.\n")?;
            Ok(Exit::Healthy)
        }
        Answer::Undone { courses } if courses.is_empty() => {
            print("no treatment is active\n")?;
            Ok(Exit::Healthy)
        }
        Answer::Undone { courses } => {
            for course in &courses {
                print(&course_as_text(course, terminal))?;
            }
            let undone = courses.iter().all(|course| !course.is_active());
            Ok(if undone { Exit::Healthy } else { Exit::Unknown })
        }
        Answer::Refused { reason, why } => {
            eprintln!("nodemedic: {why}");
            Ok(match reason.as_str() {
                "unknown" => Exit::Usage,
                _ => Exit::Unknown,
            })
        }
        Answer::Status { .. } => anyhow::bail!("the agent answers something else: {answer:?}"),
    }
}

/// Whether it has done what it was begun for.
fn exit(course: &Course) -> Exit {
    match (course.state, course.ending) {
        (State::Failed | State::Overtaken | State::Void, _)
        | (_, Some(Ending::Ineffective | Ending::Harmful)) => Exit::Unknown,
        _ => Exit::Healthy,
    }
}
