//! The journal: one JSON object a line, written and synced before what it announces is
//! done.
//!
//! The first line names the format and its version. Each other line holds when it was
//! written and a whole [`Run`] as it is from then on, so the last line of an id is
//! how that run stands, and a person can read how it came there. A last line that the end
//! of the agent or a power failure has cut short was never synced: what it would have announced
//! was not done. Any other line that cannot be read is damage, and nothing is treated then: what
//! the journal should have said may still be in force. So is an active run that this agent cannot
//! have begun: nothing is written by it.
//!
//! The journal holds room on the disk for all lines that end its active runs, so a full disk
//! keeps no run from being undone and recorded. A run for which there is no room does not begin.
//!
//! When it is opened, and when it has grown, all but the last lines are dropped.

use std::{collections::BTreeMap, fmt, fs::File, io, path::Path};

use anyhow::{Context as _, bail, ensure};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{
    durable::{Directory, Log, Storage},
    model::Run,
};

/// Version of the format.
const VERSION: u32 = 1;

/// Runs that are over and still told of.
const REMEMBERED: usize = 100;

/// Of them those that people have begun. The others count for the limits of the policy.
const REMEMBERED_BY_HAND: usize = 40;

/// Bytes after which a journal is rewritten, unless what is remembered is half as long.
const LONG: u64 = 512 << 10;

/// Bytes that no journal of this program reaches.
const LONGEST: u64 = 64 << 20;

/// Bytes that are held for more words about ends than beginnings have: errors and other writers.
const WORDS: u64 = 8 << 10;

/// Lines that a run can add after its first: applied, confirmed, and its end.
const LINES_TO_THE_END: u64 = 3;

#[derive(Serialize, Deserialize)]
struct Head {
    nodemedic_journal: u32,
}

#[derive(Serialize, Deserialize)]
struct Line<C> {
    unix_seconds: f64,
    run: C,
}

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// What is about to be done, if the line and room for the end of it are on the disk.
    Announced,
    /// What is so already.
    Holds,
}

/// The journal, open for appending.
pub struct Journal {
    directory: Directory,
    storage: Box<MakeStorage>,
    log: Result<Log, Closed>,
    /// The length at which it is rewritten, bytes.
    rewritten_at: u64,
}

/// How a log writes to a file.
type MakeStorage = dyn Fn(File) -> io::Result<Box<dyn Storage>> + Send;

/// Why nothing can be written.
#[derive(Clone, Debug)]
enum Closed {
    /// It must be left as it is.
    Damaged(String),
    /// The disk is full or read-only, which may pass.
    Unwritable(String),
}

/// What a journal contains.
struct Contents {
    /// In the order of ids.
    runs: Vec<Run>,
    /// Where the last whole line ends, bytes.
    end: u64,
    /// Whether the beginning of a line follows.
    is_torn: bool,
}

impl Journal {
    /// Its name in the state directory.
    pub const FILE: &'static str = "journal";

    /// Opens the journal of a state directory, or begins one; and what it tells, in the
    /// order of ids. A journal that cannot be written is open all the same, so that what it tells
    /// can be undone. So is one with an active run that `permitted` refuses, with a reason; the
    /// others are told.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is damaged, or of another version; what to do
    /// about it. It is left as it is then.
    pub fn open(
        directory: &Path,
        permitted: impl Fn(&Run) -> Result<(), String>,
    ) -> anyhow::Result<(Self, Vec<Run>)> {
        Self::open_on(directory, permitted, Box::new(|file| Ok(Box::new(file))))
    }

    /// The same, on another storage than the kernel's.
    pub(super) fn open_on(
        directory: &Path,
        permitted: impl Fn(&Run) -> Result<(), String>,
        storage: Box<MakeStorage>,
    ) -> anyhow::Result<(Self, Vec<Run>)> {
        let directory = Directory::open(directory)?;
        let Contents {
            mut runs,
            end,
            is_torn,
        } = read(&directory)?;
        let damage = runs.iter().filter_map(|run| {
            let refused = permitted(run).err()?;
            Some(format!("run {}: {refused}", run.id))
        });
        let damage = damage.collect::<Vec<_>>().join("; ");
        let mut journal = Self {
            directory,
            storage,
            log: Err(Closed::Damaged(String::new())),
            rewritten_at: LONG,
        };
        if !damage.is_empty() {
            runs.retain(|run| permitted(run).is_ok());
            let why = format!(
                "{damage}. Nothing was written by it. {}",
                what_to_do(&journal.directory)
            );
            journal.log = Err(Closed::Damaged(why));
            return Ok((journal, runs));
        }
        forget(&mut runs);
        if let Err(error) = journal.rewrite(&runs) {
            warn!("the journal is not rewritten: {error:#}");
            journal.log = journal
                .log_of_file(end, is_torn)
                .map_err(|_| Closed::Unwritable(format!("{error:#}")));
        }
        Ok((journal, runs))
    }

    /// What the journal of a state directory tells, in the order of ids; nothing where
    /// there is none.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is damaged, or of another version.
    pub fn read(directory: &Path) -> anyhow::Result<Vec<Run>> {
        match Directory::open_existing(directory)? {
            Some(directory) => Ok(read(&directory)?.runs),
            None => Ok(Vec::new()),
        }
    }

    /// Why nothing can be recorded, if so.
    pub(super) fn trouble(&self) -> Option<&str> {
        match &self.log {
            Ok(_) => None,
            Err(Closed::Damaged(why) | Closed::Unwritable(why)) => Some(why),
        }
    }

    /// Why it must be left as it is, if so.
    pub(super) fn damage(&self) -> Option<&str> {
        match &self.log {
            Err(Closed::Damaged(why)) => Some(why),
            Ok(_) | Err(Closed::Unwritable(_)) => None,
        }
    }

    /// Appends how a run stands, and waits until it is on the disk. `known` are all runs, perhaps
    /// with this one.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or there is no room for what has to follow. No whole line is
    /// there then.
    pub(super) fn append(
        &mut self,
        run: &Run,
        known: &[Run],
        step: Step,
        unix_seconds: f64,
    ) -> anyhow::Result<()> {
        let line = line(run, unix_seconds)?;
        self.open_or_shorten(known)?;
        let room = room(known, Some(run))?;
        let path = self.directory.path(Self::FILE);
        let log = match &mut self.log {
            Ok(log) => log,
            Err(Closed::Damaged(why) | Closed::Unwritable(why)) => bail!("{why}"),
        };
        if step == Step::Announced {
            let all = line.len() as u64 + room;
            log.reserve(all).with_context(|| {
                format!(
                    "hold {all} bytes in the journal {}, so that undoing needs no disk",
                    path.display()
                )
            })?;
        }
        log.append(line.as_bytes())
            .with_context(|| format!("write the journal {}", path.display()))?;
        if step == Step::Holds {
            // There was room before the line. More of it is welcome.
            let _ = log.reserve(room);
        }
        Ok(())
    }

    /// Opens what could not be written before: the disk may have room again.
    pub(super) fn try_again(&mut self, known: &[Run]) {
        if matches!(self.log, Err(Closed::Unwritable(_))) {
            // Why it still cannot be written is known.
            let _ = self.rewrite(known);
        }
    }

    /// Opens what could not be written before, and drops all but the last lines of what is long.
    fn open_or_shorten(&mut self, known: &[Run]) -> anyhow::Result<()> {
        match &self.log {
            Ok(log) if log.length() < self.rewritten_at => return Ok(()),
            Err(Closed::Damaged(why)) => bail!("{why}"),
            Ok(_) | Err(Closed::Unwritable(_)) => {}
        }
        match (self.rewrite(known), &self.log) {
            (Err(error), Ok(log)) => {
                warn!("the journal is not shortened: {error:#}");
                self.rewritten_at = log.length() + LONG / 4;
                Ok(())
            }
            (done, _) => done,
        }
    }

    /// Puts a journal with these runs, and room for their ends, in the place of what is there.
    fn rewrite(&mut self, runs: &[Run]) -> anyhow::Result<()> {
        let head = Head {
            nodemedic_journal: VERSION,
        };
        let mut text = serde_json::to_string(&head)? + "\n";
        for run in runs {
            text.push_str(&line(run, run.began_unix_seconds)?);
        }
        let (end, room) = (text.len() as u64, room(runs, None)?);
        let storage = &self.storage;
        let prepare = |file: &File| storage(file.try_clone()?)?.reserve(end, room);
        let file = self.directory.replace(Self::FILE, text.as_bytes(), prepare);
        let log = file.and_then(|file| Ok(Log::new(storage(file)?, end)));
        self.log = Ok(log.with_context(|| {
            let path = self.directory.path(Self::FILE);
            format!("write the journal {}", path.display())
        })?);
        self.rewritten_at = LONG.max(2 * end);
        Ok(())
    }

    /// The journal as it is, from the end of its last whole line on.
    fn log_of_file(&self, end: u64, is_torn: bool) -> io::Result<Log> {
        let file = self.directory.file(Self::FILE, OFlags::RDWR)?;
        let file = (self.storage)(file)?;
        Ok(if is_torn {
            Log::torn(file, end)
        } else {
            Log::new(file, end)
        })
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("directory", &self.directory)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

/// Drops the oldest of those that are over, first those that people have begun.
pub(super) fn forget(runs: &mut Vec<Run>) {
    let over = |run: &Run| !run.is_active();
    let by_hand = |run: &Run| over(run) && run.trigger.name() == "manual";
    let surplus = runs
        .iter()
        .filter(|run| over(run))
        .count()
        .saturating_sub(REMEMBERED);
    let many = runs.iter().filter(|run| by_hand(run)).count();
    let mut by_hand_first = surplus.min(many.saturating_sub(REMEMBERED_BY_HAND));
    let mut any = surplus - by_hand_first;
    runs.retain(|run| {
        let left = if by_hand(run) && by_hand_first > 0 {
            &mut by_hand_first
        } else {
            &mut any
        };
        let forgotten = over(run) && *left > 0;
        *left -= usize::from(forgotten);
        !forgotten
    });
}

/// Bytes that the lines to come of these runs can take, with one of them as it is now.
fn room(runs: &[Run], now: Option<&Run>) -> serde_json::Result<u64> {
    let others = runs
        .iter()
        .filter(|run| now.is_none_or(|now| now.id != run.id));
    let mut room = WORDS;
    for run in others.chain(now).filter(|run| run.is_active()) {
        room += LINES_TO_THE_END * line(run, 0.0)?.len() as u64;
    }
    Ok(room)
}

fn line(run: &Run, unix_seconds: f64) -> serde_json::Result<String> {
    let line = Line { unix_seconds, run };
    Ok(serde_json::to_string(&line)? + "\n")
}

fn read(directory: &Directory) -> anyhow::Result<Contents> {
    let bytes = directory.read(Journal::FILE, LONGEST);
    bytes
        .map_err(anyhow::Error::from)
        .and_then(|bytes| parse(&bytes.unwrap_or_default()))
        .with_context(|| {
            let path = directory.path(Journal::FILE);
            format!(
                "read the journal {}: {}",
                path.display(),
                what_to_do(directory)
            )
        })
}

fn what_to_do(directory: &Directory) -> String {
    format!(
        "look in {} for the active treatments, restore their values manually, then move the file \
         away",
        directory.path(Journal::FILE).display()
    )
}

fn parse(bytes: &[u8]) -> anyhow::Result<Contents> {
    let end = end_of_lines(bytes);
    let text = std::str::from_utf8(&bytes[..end]).context("it is no text")?;
    let is_torn = bytes[end..].iter().any(|byte| *byte != 0);
    let mut runs = BTreeMap::new();
    let mut lines = text.lines().enumerate();
    if let Some((_, head)) = lines.next() {
        let Head { nodemedic_journal } = serde_json::from_str(head).context("line 1")?;
        if nodemedic_journal != VERSION {
            bail!(
                "it is of version {nodemedic_journal}, this agent reads version {VERSION}: use \
                 the nodemedic that wrote it"
            );
        }
    } else {
        ensure!(bytes.is_empty(), "it has no whole line");
    }
    for (number, line) in lines {
        let line: Line<Run> =
            serde_json::from_str(line).with_context(|| format!("line {}", number + 1))?;
        runs.insert(line.run.id, line.run);
    }
    Ok(Contents {
        runs: runs.into_values().collect(),
        end: end as u64,
        is_torn,
    })
}

/// Where the last whole line ends. What follows was cut short. A power failure can also leave
/// zeros in the last line, where a part of it did not reach the disk.
fn end_of_lines(bytes: &[u8]) -> usize {
    let end = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte == b'\n');
    let Some(last) = end(bytes) else {
        return 0;
    };
    let before = end(&bytes[..last]).map_or(0, |end| end + 1);
    if bytes[before..last].contains(&0) {
        before
    } else {
        last + 1
    }
}

/// For fuzzing: journals of treatments.
#[cfg(any(test, fuzzing))]
pub const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "journal",
    read: |bytes| {
        let _ = parse(bytes);
    },
    seeds: &[
        br#"{"nodemedic_journal":1}
{"unix_seconds":1.5,"run":{"id":1,"treatment":"udp_timeout","ailment":"udp_conntrack","against":["idle_entries"],"trigger":{"by":"manual","uid":0},"state":"applied","why":"asked for","changes":[{"key":"net.netfilter.nf_conntrack_udp_timeout","netns":4026531840,"from":30,"to":7}],"began_unix_seconds":1.5,"ends_unix_seconds":3601.5,"boot":"b","began":1.0,"watched_until":91.0,"ends":3601.0,"ended":null,"ending":null,"reapplied":0,"before":[],"writers":[]}}
"#,
    ],
};
