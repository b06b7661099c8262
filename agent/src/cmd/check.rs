//! `nodemedic check`

use std::{
    fs::{self, File},
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
    ailments,
    collector::{Configured, Host as _, RunningKernel},
    config::Config,
    files,
    identity::Identity,
    logging,
    model::{About, AilmentReport, NodeReport, VERSION},
    node::Directory,
    render::{Terminal, print, report_as_text},
};

/// The source of the names of pods answers while the ailments are observed; a slow source gets
/// this time in addition.
const NAMES_WITHIN: Duration = Duration::from_secs(2);

/// Bytes of a saved report. One with 4,000 runs has 3 MB.
const LARGEST_REPORT: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(super) struct Check {
    /// Check only these ailments, even if the configuration disables them [default: all
    /// enabled ailments].
    #[arg(value_name = "AILMENT", value_parser = names(), conflicts_with = "from")]
    ailments: Vec<String>,
    #[command(flatten)]
    config: ConfigFile,
    /// Observe the node for this time.
    #[arg(long, default_value = "10s", value_parser = window)]
    window: Duration,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Judge the saved report in this file instead of observing the node.
    #[arg(long, value_name = "FILE", conflicts_with = "window")]
    from: Option<PathBuf>,
    /// Save the report to this file, for `--from`.
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
    fn narrow(&self, configured: &mut Vec<Configured>) {
        if self.ailments.is_empty() {
            return;
        }
        configured.retain(|configured| {
            self.ailments
                .iter()
                .any(|name| name == configured.collector.about().name)
        });
        for configured in configured {
            configured.enabled = true;
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
        .map(|collector| collector.about().name)
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
fn observe_all(
    configured: Vec<Configured>,
    window: Duration,
    kernel: &RunningKernel,
) -> Vec<AilmentReport> {
    thread::scope(|scope| {
        let threads = configured.into_iter().map(|configured| {
            let about = configured.collector.about();
            (
                about,
                scope.spawn(move || observe(configured, window, kernel)),
            )
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
    Configured {
        enabled,
        mut collector,
    }: Configured,
    window: Duration,
    kernel: &RunningKernel,
) -> AilmentReport {
    if !enabled {
        return collector.about().off();
    }
    let attached = collector.tick(kernel);
    if !attached.coverage.is_attached() {
        return attached;
    }
    thread::sleep(window);
    kernel.directory().settle(NAMES_WITHIN);
    collector.tick(kernel)
}

/// A saved report, judged with the settings in force now.
fn replay(file: &Path, config: &Config) -> anyhow::Result<NodeReport> {
    // A pipe may be meant: the report of another node.
    let text = File::open(file).and_then(|file| files::up_to(file, LARGEST_REPORT));
    let text = text.with_context(|| format!("read {}", file.display()))?;
    let mut report = parse(&text).with_context(|| format!("read {}", file.display()))?;
    for ailment in &mut report.ailments {
        let known = config
            .ailments
            .iter()
            .find(|configured| configured.collector.about().name == ailment.name);
        let Some(Configured { collector, .. }) = known else {
            bail!(
                "read {}: this agent knows no ailment {:?}",
                file.display(),
                ailment.name
            );
        };
        collector
            .replay(ailment)
            .with_context(|| format!("read {}: the reading of {}", file.display(), ailment.name))?;
    }
    Ok(report)
}

/// Reads the version first: the rest of another version may have another form.
fn parse(text: &[u8]) -> anyhow::Result<NodeReport> {
    #[derive(Deserialize)]
    struct Head {
        version: u32,
        #[serde(default)]
        agent: String,
    }
    let Head { version, agent } =
        serde_json::from_slice(text).context("this is no saved report")?;
    ensure!(
        version == VERSION,
        "the report has format version {version}, this agent reads format version {VERSION}: use \
         the nodemedic that saved it{}",
        if agent.is_empty() {
            agent
        } else {
            format!(", version {agent}")
        }
    );
    Ok(serde_json::from_slice(text)?)
}

fn save(report: &NodeReport, file: &Path) -> anyhow::Result<()> {
    fs::write(file, json(report)?).with_context(|| format!("write {}", file.display()))
}

fn json(report: &NodeReport) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(report).context("write the report as JSON")? + "\n")
}

/// For fuzzing: saved reports.
#[cfg(any(test, fuzzing))]
pub const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "report",
    read: |bytes| {
        if let Ok(report) = parse(bytes) {
            let _ = report_as_text(&report, Terminal::of_stdout());
        }
    },
    seeds: &[
        br#"{"version":2,"node":"n","kernel":"6.12","agent":"0.1.0","unix_seconds":1.0,"ailments":[{"ailment":"psi_stall","coverage":{"state":"full"},"probes":[],"verdict":"healthy","findings":[],"notes":[],"reading":null}]}"#,
    ],
};
