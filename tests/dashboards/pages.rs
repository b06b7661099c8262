//! The pages written by hand: every link to another file of the checkout leads somewhere.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::check::{Check, Verdict, files_of, found, none, read, root};

const AT_THE_ROOT: [&str; 3] = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"];

/// A target such as `docs/kernels.md#udp`, seen from a folder: the file is there, and so is the
/// heading.
pub(crate) fn resolve(folder: &Path, target: &str) -> Result<()> {
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let path = folder.join(file);
    ensure!(path.exists(), "there is no {file}");
    if heading.is_empty() {
        return Ok(());
    }
    let there = read(&path)?
        .lines()
        .any(|line| anchor(line).as_deref() == Some(heading));
    ensure!(there, "{file} has no heading #{heading}");
    Ok(())
}

/// How a heading is addressed, as the common forges have it.
fn anchor(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').trim();
    let kept = heading.to_lowercase().replace(' ', "-");
    Some(
        kept.chars()
            .filter(|c| c.is_alphanumeric() || ['-', '_'].contains(c))
            .collect(),
    )
}

/// Targets of a page's links that are files of the checkout.
fn links(page: &str) -> Vec<&str> {
    let targets = page
        .split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0));
    targets
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .collect()
}

fn faults(path: &Path, page: &str) -> Vec<String> {
    let folder = path.parent().unwrap_or(path);
    let own = path.file_name().unwrap_or_default().to_string_lossy();
    let broken = links(page).into_iter().filter_map(|link| {
        let target = if link.starts_with('#') {
            format!("{own}{link}")
        } else {
            link.to_owned()
        };
        Some(format!(
            "{}: {:#}",
            path.display(),
            resolve(folder, &target).err()?
        ))
    });
    broken.collect()
}

fn pages() -> Result<Vec<PathBuf>> {
    let mut pages: Vec<_> = AT_THE_ROOT.iter().map(|name| root().join(name)).collect();
    for folder in ["docs", "docs/ailments"] {
        pages.extend(files_of(folder, ".md")?);
    }
    Ok(pages)
}

fn every_link_leads_somewhere() -> Result<Verdict> {
    let mut all = Vec::new();
    for path in pages()? {
        all.extend(faults(&path, &read(&path)?));
    }
    none(all)
}

fn a_link_into_the_void_is_found() -> Result<Verdict> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let path = folder.path().join("a.md");
    let page = "# What `x_y` is, and why\n[here](#what-x_y-is-and-why) [there](b.md) [deep](#gone) \
                [out](https://example.org/c.md)";
    std::fs::write(&path, page).context("write a page")?;
    let faults = faults(&path, page);
    found(&faults, "there is no b.md")?;
    found(&faults, "a.md has no heading #gone")?;
    ensure!(faults.len() == 2, "{faults:?}");
    Ok(Verdict::Passed)
}

#[rustfmt::skip]
pub(crate) const CHECKS: &[Check] = &[
    Check::new("pages::every_link_leads_somewhere", every_link_leads_somewhere),
    Check::new("pages::a_link_into_the_void_is_found", a_link_into_the_void_is_found),
];
