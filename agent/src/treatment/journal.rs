//! The journal: one JSON object a line, written and synced before what it announces is
//! done.
//!
//! The first line names the format and its version. Each other line holds when it was
//! written and a whole [`Run`] as it is from then on, so the last line of an id is
//! how that run stands, and a person can read how it came there. A line that the end
//! of the agent has cut short was never synced: what it would have announced was not
//! done. Any other line that cannot be read is damage, and nothing is treated then: what
//! the journal should have said may still be in force.
//!
//! When it is opened, all but the last lines are dropped.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::model::Run;

/// Version of the format.
const VERSION: u32 = 1;

/// Runs that are over and still told of.
const REMEMBERED: usize = 100;

#[derive(Serialize, Deserialize)]
struct Head {
    nodemedic_journal: u32,
}

#[derive(Serialize, Deserialize)]
struct Line<C> {
    unix_seconds: f64,
    run: C,
}

/// The journal, open for appending.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Its name in the state directory.
    pub const FILE: &'static str = "journal";

    /// Opens the journal of a state directory, or begins one; and what it tells, in the
    /// order of ids.
    ///
    /// # Errors
    ///
    /// When it cannot be read or written, is damaged, or of another version; what to do
    /// about it. It is left as it is then.
    pub fn open(directory: &Path) -> anyhow::Result<(Self, Vec<Run>)> {
        let path = directory.join(Self::FILE);
        let known = Self::read(directory)?;
        let over = known.iter().filter(|run| !run.is_active()).count();
        let mut forgotten = over.saturating_sub(REMEMBERED);
        let mut runs = known;
        runs.retain(|run| {
            let forget = !run.is_active() && forgotten > 0;
            forgotten -= usize::from(forget);
            !forget
        });
        let file = replace(&path, &runs)
            .with_context(|| format!("write the journal {}", path.display()))?;
        Ok((Self { path, file }, runs))
    }

    /// What the journal of a state directory tells, in the order of ids; nothing where
    /// there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is damaged, or of another version.
    pub fn read(directory: &Path) -> anyhow::Result<Vec<Run>> {
        let path = directory.join(Self::FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).context(format!("read {}", path.display())),
        };
        parse(&text).with_context(|| {
            format!(
                "read the journal {}: look there for the active treatments, restore their values \
                 manually, then move the file away",
                path.display()
            )
        })
    }

    /// Appends how a run stands, and waits until it is on the disk.
    ///
    /// # Errors
    ///
    /// When it cannot be written. The line may be there or not.
    pub(super) fn append(&mut self, run: &Run, unix_seconds: f64) -> anyhow::Result<()> {
        let line = line(run, unix_seconds)?;
        self.file
            .write_all(line.as_bytes())
            .and_then(|()| self.file.sync_data())
            .with_context(|| format!("write the journal {}", self.path.display()))
    }
}

fn line(run: &Run, unix_seconds: f64) -> serde_json::Result<String> {
    let line = Line { unix_seconds, run };
    Ok(serde_json::to_string(&line)? + "\n")
}

fn parse(text: &str) -> anyhow::Result<Vec<Run>> {
    // What follows the last end of a line was cut short.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut lines = whole.lines().enumerate();
    let Some((_, head)) = lines.next() else {
        ensure!(text.is_empty(), "it has no whole line");
        return Ok(Vec::new());
    };
    let Head { nodemedic_journal } = serde_json::from_str(head).context("line 1")?;
    if nodemedic_journal != VERSION {
        bail!(
            "it is of version {nodemedic_journal}, this agent reads version {VERSION}: use the \
             nodemedic that wrote it"
        );
    }
    let mut runs: Vec<Run> = Vec::new();
    for (number, line) in lines {
        let line: Line<Run> =
            serde_json::from_str(line).with_context(|| format!("line {}", number + 1))?;
        match runs.iter_mut().find(|known| known.id == line.run.id) {
            Some(known) => *known = line.run,
            None => runs.push(line.run),
        }
    }
    runs.sort_by_key(|run| run.id);
    Ok(runs)
}

/// Puts a journal with these runs in the place of what is there, at once.
fn replace(path: &Path, runs: &[Run]) -> anyhow::Result<File> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&new)?;
    let head = Head {
        nodemedic_journal: VERSION,
    };
    let mut text = serde_json::to_string(&head)? + "\n";
    for run in runs {
        text.push_str(&line(run, run.began_unix_seconds)?);
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    if let Some(directory) = path.parent() {
        File::open(directory)?.sync_all()?;
    }
    // The same file as before the renaming, at its end.
    Ok(file)
}

/// For fuzzing: journals of treatments.
#[cfg(any(test, fuzzing))]
pub const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "journal",
    read: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = parse(&text);
    },
    seeds: &[
        br#"{"nodemedic_journal":1}
{"unix_seconds":1.5,"run":{"id":1,"treatment":"udp_timeout","ailment":"udp_conntrack","against":["idle_entries"],"trigger":{"by":"manual","uid":0},"state":"applied","why":"asked for","changes":[{"key":"net.netfilter.nf_conntrack_udp_timeout","netns":4026531840,"from":30,"to":7}],"began_unix_seconds":1.5,"ends_unix_seconds":3601.5,"boot":"b","began":1.0,"watched_until":91.0,"ends":3601.0,"ended":null,"ending":null,"reapplied":0,"before":[],"writers":[]}}
"#,
    ],
};
