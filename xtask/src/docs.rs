//! Writes the pages that the agent describes itself on, or checks that they are what it says.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{build, paths, performance};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail and show the difference if a page is stale.
    #[arg(long)]
    check: bool,
}

/// A page: its head, and the call of the agent that prints the rest.
struct Page {
    file: &'static str,
    head: &'static str,
    call: &'static [&'static str],
}

const PAGES: [Page; 4] = [
    Page {
        file: "docs/metrics.md",
        head: "\
# Metrics

All that a scrape of `/metrics` can show. `nodemedic metrics --list` prints it for the agent at hand.
",
        call: &["metrics", "--list", "--markdown"],
    },
    Page {
        file: "docs/config.md",
        head: "\
# Configuration

Every key of the configuration file with its default. `nodemedic config --default` prints them as a
file to begin with, and `nodemedic config --check FILE` tells all that is wrong with one.
",
        call: &["config", "--default", "--markdown"],
    },
    Page {
        file: "docs/treatments.md",
        head: "\
# Treatments

All that nodemedic can change on a node, and nothing else. Each is changed for a limited time, has to
help while it is watched, and is put back; `nodemedic treatments` prints the list for the agent at hand.
How to use them stands in [operations.md](operations.md).
",
        call: &["treatments", "--markdown"],
    },
    Page {
        file: "docs/verdicts.md",
        head: "\
# Verdicts

Every finding: how severe it is, the numbers that lead to it, and what can be mistaken for it.
`nodemedic findings` prints the list for the agent at hand. The pages of the ailments have the remedies.

An ailment is `healthy` only if what would have shown a finding was measured. Where it was not, and nothing
was found, the verdict is `unknown`, and a note says what is missing.
",
        call: &["findings", "--markdown"],
    },
];

const MARK: &str =
    "<!-- Made by `cargo xtask docs`: change what the agent says, not this page. -->";

pub(crate) fn run(args: Args) -> Result<()> {
    if args.check {
        return check();
    }
    build::agent()?;
    for page in &PAGES {
        write(page.file, &page.text()?)?;
    }
    write_performance()
}

/// Writes the pages about what the agent costs.
pub(crate) fn write_performance() -> Result<()> {
    for (name, text) in performance::pages()? {
        write(&format!("docs/{name}"), &text)?;
    }
    Ok(())
}

fn write(page: &str, text: &str) -> Result<()> {
    let path = paths::root().join(page);
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

/// Shows how each stale page differs from what it should be.
pub(crate) fn check() -> Result<()> {
    build::agent()?;
    let mut pages = Vec::new();
    for page in &PAGES {
        pages.push((page.file.to_owned(), page.text()?));
    }
    let performance = performance::pages()?.into_iter();
    pages.extend(performance.map(|(name, text)| (format!("docs/{name}"), text)));
    let mut stale = Vec::new();
    for (page, text) in pages {
        if !same(&paths::root().join(&page), &text)? {
            stale.push(page);
        }
    }
    ensure!(
        stale.is_empty(),
        "stale: {}; run `cargo xtask docs`",
        stale.join(" and ")
    );
    Ok(())
}

impl Page {
    fn text(&self) -> Result<String> {
        Ok(format!(
            "{MARK}\n{}\n{}",
            self.head,
            agent_output(self.call)?
        ))
    }
}

fn agent_output(arguments: &[&str]) -> Result<String> {
    let agent = paths::agent();
    let call = || format!("{} {}", agent.display(), arguments.join(" "));
    let output = Command::new(&agent)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output();
    let output = output.with_context(|| format!("start {}", call()))?;
    ensure!(
        output.status.success(),
        "`{}` ended with {}",
        call(),
        output.status
    );
    String::from_utf8(output.stdout).with_context(|| format!("read what `{}` prints", call()))
}

/// Compares by `diff`, which prints what differs. A page that is not there counts as empty.
fn same(path: &Path, wanted: &str) -> Result<bool> {
    let mut command = Command::new("diff");
    command
        .args(["--unified", "--new-file"])
        .arg(path)
        .arg("-")
        .stdin(Stdio::piped());
    let mut diff = command.spawn().context("start diff")?;
    if let Some(mut stdin) = diff.stdin.take() {
        stdin
            .write_all(wanted.as_bytes())
            .context("write to diff")?;
    }
    match diff.wait().context("wait for diff")?.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => bail!("diff could not compare {}", path.display()),
    }
}
