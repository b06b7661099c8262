//! `nodemedic check`

use std::{
    fs,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    thread::{self, ScopedJoinHandle},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, builder::PossibleValuesParser};
use serde::Deserialize;

use super::{ConfigFile, exit::Exit};
use crate::{
    ailments::{self, About, Host as _, RunningKernel},
    config::{Case, Config},
    identity::Identity,
    logging,
    node::Directory,
    render::{Terminal, print, report_as_text},
    report::{AilmentReport, NodeReport, VERSION},
};

/// Whoever tells the names of pods is asked while the ailments are observed; this much is
/// added for one that is slow.
const NAMES_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Only these ailments, whatever the configuration switches off; all that it leaves on,
    /// if none is given.
    #[arg(value_name = "AILMENT", value_parser = names(), conflicts_with = "from")]
    ailments: Vec<String>,
    #[command(flatten)]
    config: ConfigFile,
    /// How long to observe.
    #[arg(long, default_value = "10s", value_parser = window)]
    window: Duration,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Judge a saved report again instead of observing.
    #[arg(long, value_name = "FILE", conflicts_with = "window")]
    from: Option<PathBuf>,
    /// Save the report, for `--from`.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
}

impl Check {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        logging::for_a_person();
        let mut config = self.config.load()?;
        self.narrow(&mut config.ailments);
        let report = match &self.from {
            Some(file) => replay(file, &config)?,
            None => self.observe(config)?,
        };
        if let Some(file) = &self.save {
            save(&report, file)?;
        }
        print(&if self.json {
            json(&report)?
        } else {
            report_as_text(&report, Terminal::of_stdout())
        })?;
        Ok(report.verdict().into())
    }

    /// Keeps what was asked for.
    fn narrow(&self, cases: &mut Vec<Case>) {
        if self.ailments.is_empty() {
            return;
        }
        cases.retain(|case| {
            self.ailments
                .iter()
                .any(|name| name == case.ward.about().name)
        });
        for case in cases {
            case.enabled = true;
        }
    }

    fn observe(&self, config: Config) -> anyhow::Result<NodeReport> {
        if std::io::stderr().is_terminal() {
            eprintln!(
                "observing for {} …",
                humantime::format_duration(self.window)
            );
        }
        let identity = Identity::of_this_node(&config.agent.node_name);
        let directory = Directory::start(&config.node)?;
        let kernel = config.kernel().with(directory.clone());
        let mut report = identity.report(observe_all(config.ailments, self.window, &kernel), 0);
        report.names = directory.report();
        Ok(report)
    }
}

fn names() -> PossibleValuesParser {
    ailments::all()
        .iter()
        .map(|ward| ward.about().name)
        .collect::<Vec<_>>()
        .into()
}

/// The shortest that gives a rate, up to what anybody would wait for.
fn window(text: &str) -> Result<Duration, String> {
    let window = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_millis(100)..=Duration::from_secs(3_600);
    if allowed.contains(&window) {
        Ok(window)
    } else {
        Err("allowed are 100ms to 1h".to_owned())
    }
}

/// All at once, each on a thread of its own.
fn observe_all(cases: Vec<Case>, window: Duration, kernel: &RunningKernel) -> Vec<AilmentReport> {
    thread::scope(|scope| {
        let threads = cases.into_iter().map(|case| {
            let about = case.ward.about();
            (about, scope.spawn(move || observe(case, window, kernel)))
        });
        let threads: Vec<_> = threads.collect();
        let end = |(about, thread): (About, ScopedJoinHandle<'_, _>)| {
            thread
                .join()
                .unwrap_or_else(|_| about.failed("its thread has panicked"))
        };
        threads.into_iter().map(end).collect()
    })
}

/// Attaches, waits, reads.
fn observe(
    Case { enabled, mut ward }: Case,
    window: Duration,
    kernel: &RunningKernel,
) -> AilmentReport {
    if !enabled {
        return ward.about().off();
    }
    let attached = ward.tick(kernel);
    if !attached.coverage.is_attached() {
        return attached;
    }
    thread::sleep(window);
    kernel.directory().settle(NAMES_WITHIN);
    ward.tick(kernel)
}

/// A saved report, judged with the settings in force now.
fn replay(file: &Path, config: &Config) -> anyhow::Result<NodeReport> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let mut report = parse(&text).with_context(|| format!("read {}", file.display()))?;
    for ailment in &mut report.ailments {
        let known = config
            .ailments
            .iter()
            .find(|case| case.ward.about().name == ailment.name);
        let Some(Case { ward, .. }) = known else {
            bail!(
                "read {}: this agent knows no ailment {:?}",
                file.display(),
                ailment.name
            );
        };
        ward.replay(ailment)
            .with_context(|| format!("read {}: the reading of {}", file.display(), ailment.name))?;
    }
    Ok(report)
}

/// The version is looked at first: of another version nothing else can be expected
/// to be understood.
fn parse(text: &str) -> anyhow::Result<NodeReport> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let Head { version } = serde_json::from_str(text).context("this is no saved report")?;
    ensure!(
        version == VERSION,
        "it is of version {version}, this agent reads version {VERSION}: use the nodemedic that \
         saved it"
    );
    Ok(serde_json::from_str(text)?)
}

fn save(report: &NodeReport, file: &Path) -> anyhow::Result<()> {
    fs::write(file, json(report)?).with_context(|| format!("write {}", file.display()))
}

fn json(report: &NodeReport) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(report).context("write the report as JSON")? + "\n")
}
