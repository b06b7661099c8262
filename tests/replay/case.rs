//! A case: what was reported, the node's files, and what has to come out.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::node::Node;
use crate::txtar;

/// One folder of `tests/cases/`.
#[derive(Debug)]
pub(crate) struct Case {
    folder: PathBuf,
    description: Description,
}

/// `case.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Description {
    /// Where it was reported.
    reported: Vec<String>,
    #[serde(rename = "environment")]
    _environment: String,
    #[serde(rename = "symptom")]
    _symptom: String,
    /// The ailment to check.
    pub(crate) ailment: String,
    /// The agent's configuration.
    pub(crate) config: String,
    /// Folders that the fake node replaces as a whole.
    #[serde(default)]
    pub(crate) dirs: Vec<String>,
    /// Lines of the fake mountinfo.
    #[serde(default)]
    pub(crate) mounts: Option<String>,
    expect: Expected,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    verdict: String,
    /// Texts that the report has.
    #[serde(default)]
    says: Vec<String>,
    /// Texts that it does not have.
    #[serde(default)]
    never: Vec<String>,
}

/// Files of the node by path. One whose path begins with `cg:` is of the tree of cgroups.
pub(crate) type Files = BTreeMap<String, String>;

impl Case {
    /// All of them, by name.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
        let entries = fs::read_dir(&folder).context("list tests/cases")?;
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let mut folders: Vec<_> = entries.iter().map(fs::DirEntry::path).collect();
        folders.retain(|path| path.is_dir());
        folders.sort();
        ensure!(!folders.is_empty(), "there is none");
        folders.into_iter().map(Self::read).collect()
    }

    fn read(folder: PathBuf) -> Result<Self> {
        let file = folder.join("case.toml");
        let named = || format!("read {}", file.display());
        let text = fs::read_to_string(&file).with_context(named)?;
        let description: Description = toml::from_str(&text).with_context(named)?;
        ensure!(
            !description.reported.is_empty(),
            "{} tells nowhere where it was reported",
            file.display()
        );
        Ok(Self {
            folder,
            description,
        })
    }

    pub(crate) fn name(&self) -> String {
        let name = self.folder.file_name().unwrap_or(OsStr::new(""));
        name.to_string_lossy().into_owned()
    }

    /// Has the agent check the node, and compares.
    pub(crate) fn replay(&self, agent: &OsStr) -> Result<()> {
        let before = self.files("before.txtar")?;
        let after = self.files("after.txtar")?;
        let report = Node::build(&self.description, &before)?.check(agent, &after)?;
        let wrong = self.description.expect.compare(&report);
        ensure!(
            wrong.is_empty(),
            "{}\n{report}\nreported at {}",
            wrong.join("\n"),
            self.description.reported.join(", ")
        );
        Ok(())
    }

    /// Those of one moment; a node that does not change has one.
    fn files(&self, name: &str) -> Result<Files> {
        let file = self.folder.join(name);
        if !file.exists() {
            return Ok(Files::new());
        }
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        Ok(txtar::files(&text))
    }
}

/// Whether a report has a text. A percentage in it is of a window that takes as long as the
/// agent's start and its timers make it, so that it differs a little.
fn says(report: &str, text: &str) -> bool {
    const TOLERANCE: u32 = 3;
    let begin = text.split_once(" %").map(|(begin, _)| begin);
    let digits =
        |begin: &str| begin.len() - begin.trim_end_matches(|it: char| it.is_ascii_digit()).len();
    let Some((begin, number)) = begin.map(|it| it.split_at(it.len() - digits(it))) else {
        return report.contains(text);
    };
    let Ok(percent) = number.parse::<u32>() else {
        return report.contains(text);
    };
    let end = &text[begin.len() + number.len()..];
    let near = percent.saturating_sub(TOLERANCE)..=(percent + TOLERANCE).min(100);
    near.into_iter()
        .any(|percent| report.contains(&format!("{begin}{percent}{end}")))
}

impl Expected {
    /// What is not as it should be.
    fn compare(&self, report: &str) -> Vec<String> {
        // The report breaks lines at the width of a terminal.
        let flat = report.split_whitespace().collect::<Vec<_>>().join(" ");
        let first = report.lines().next().unwrap_or_default();
        let verdict = first.rsplit(": ").next().unwrap_or_default().trim();
        let verdict = (verdict != self.verdict)
            .then(|| format!("the verdict is {verdict:?}, not {:?}", self.verdict));
        let lacks = self.says.iter().filter(|text| !says(&flat, text));
        let has = self.never.iter().filter(|text| flat.contains(*text));
        verdict
            .into_iter()
            .chain(lacks.map(|text| format!("it does not say {text:?}")))
            .chain(has.map(|text| format!("it says {text:?}")))
            .collect()
    }
}
