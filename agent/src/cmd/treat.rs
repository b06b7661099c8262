//! `nodemedic treat`

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use rustix::process::geteuid;
use tokio::time::timeout;

use super::{Node, exit::Exit, signals::Signals, treatment_service};
use crate::{
    ailments,
    config::Config,
    control::{self, Answer, Asked, Request},
    identity::Identity,
    logging,
    model::{AilmentReport, Ending, Reports, Run, RunState},
    monitor::Monitor,
    render::{Terminal, complain, print, run_as_text},
    state,
    treatment::{Policy, TreatmentService},
};

/// Attaching takes a second or two, and longer on a busy node.
const TO_ATTACH: Duration = Duration::from_secs(30);

/// If an agent runs on this node, it applies the treatment and this command returns at
/// once. Otherwise this command observes the node itself and stays until the treatment
/// ends; Ctrl-C restores the values.
///
/// Nothing is set without --apply, unless the configuration sets the treatment to manual,
/// alert or auto.
#[derive(Debug, Args)]
pub(super) struct Treat {
    /// Treat this ailment, for example udp_conntrack.
    ailment: String,
    #[command(flatten)]
    node: Node,
    /// Apply this treatment, as `treatments` lists them [default: the first that is allowed].
    #[arg(long, value_name = "TREATMENT")]
    treatment: Option<String>,
    /// End the treatment after this time [default: as configured].
    #[arg(long, value_name = "TIME", value_parser = Policy::parse_duration)]
    duration: Option<Duration>,
    /// Apply the treatment.
    #[arg(long, conflicts_with = "dry_run")]
    apply: bool,
    /// Print what would be set, and set nothing.
    #[arg(long)]
    dry_run: bool,
    /// Ignore the verdict and the cooldown.
    #[arg(long)]
    force: bool,
    /// Observe the node for this time before treating it, where no agent runs.
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
        match control::call_or_lock(&config.agent.state_dir, &request)? {
            Asked::Answered(answer) => show(*answer),
            Asked::Alone(_lock) => self.without_an_agent(config, directory, request),
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
        let kernel = Arc::new(config.kernel());
        let service = Arc::new(treatment_service(&config, &directory));
        let identity = Identity::of_this_node(&config.agent.node_name);
        let mut monitor = Monitor::new(
            config.ailments,
            kernel,
            identity,
            config.agent.interval.min(self.window),
            config.metrics.max_series,
        );
        monitor.treat_with(Arc::clone(&service));
        let reports = monitor.reports();
        let treated = self.observe_and_treat(&service, reports, request);
        let outcome = tokio::select! {
            never = monitor.run() => match never {},
            outcome = treated => outcome,
            signal = signals.next() => {
                eprintln!("{signal}: restoring the values");
                Ok(Exit::Healthy)
            }
        };
        let undone = service.undo(None, Ending::Requested);
        monitor.stop().await;
        for run in undone.into_iter().flatten() {
            print_run(&run)?;
        }
        outcome
    }

    /// From the first report that has seen enough to the end of the treatment.
    async fn observe_and_treat(
        &self,
        service: &TreatmentService,
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
        let answer = control::answer(request, geteuid().as_raw(), service, &reports);
        let Answer::Begun { run } = answer else {
            return show(answer);
        };
        print_run(&run)?;
        let mut state = run.state;
        loop {
            reports.changed().await.context("the monitor has ended")?;
            let (runs, _) = service.status();
            let Some(now) = runs.into_iter().find(|it| it.id == run.id) else {
                continue;
            };
            if now.state != state {
                state = now.state;
                print_run(&now)?;
            }
            if !now.is_active() {
                return Ok(exit(&now));
            }
        }
    }
}

/// Tells what an agent has answered.
pub(super) fn show(answer: Answer) -> anyhow::Result<Exit> {
    match answer {
        Answer::Begun { run } => {
            print_run(&run)?;
            if !run.is_active() {
                complain(&run.why);
            }
            Ok(exit(&run))
        }
        Answer::Would { run } => {
            print_run(&run)?;
            print("Dry run: nothing was set. Add --apply to set it.\n")?;
            Ok(Exit::Healthy)
        }
        Answer::Undone { runs } if runs.is_empty() => {
            print("no treatment is active\n")?;
            Ok(Exit::Healthy)
        }
        Answer::Undone { runs } => {
            for run in &runs {
                print_run(run)?;
            }
            let undone = runs.iter().all(|run| !run.is_active());
            Ok(if undone { Exit::Healthy } else { Exit::Unknown })
        }
        Answer::Refused { reason, why } => {
            complain(&why);
            Ok(match reason.as_str() {
                "unknown" => Exit::Usage,
                _ => Exit::Unknown,
            })
        }
        Answer::Status { .. } => anyhow::bail!("the agent answers something else: {answer:?}"),
    }
}

fn print_run(run: &Run) -> anyhow::Result<()> {
    print(&run_as_text(
        run,
        &ailments::treatments(),
        Terminal::of_stdout(),
    ))
}

/// Whether it has done what it was begun for.
fn exit(run: &Run) -> Exit {
    match (run.state, run.ending) {
        (RunState::Failed | RunState::Overridden | RunState::Rebooted, _)
        | (_, Some(Ending::Ineffective | Ending::Harmful | Ending::Refused)) => Exit::Unknown,
        _ => Exit::Healthy,
    }
}
