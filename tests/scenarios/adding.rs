//! One more ailment, added to a copy of the project as docs/adding-an-ailment.md says.

use std::env;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::files;

const PAGE: &str = "docs/adding-an-ailment.md";
const EXAMPLE: &str = "tests/example_ailment";
const KERNEL: &str = "newest";

/// Of the package, as one checkout and another have it: cargo then keeps what it compiles of both
/// apart, and what it compiles for both once.
const VERSION: [&str; 2] = ["version = \"0.1.0\"", "version = \"0.1.0-example\""];

pub(crate) fn an_ailment_takes_its_own_files_and_the_lines_of_the_page() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let copy = tempfile::tempdir().context("make a folder for the copy")?;
    let copy = copy.path();
    copy_checkout(&root, copy)?;
    copy_all(&root.join(EXAMPLE), copy)?;
    apply(&diff(&root.join(PAGE))?, copy)?;
    replace(&copy.join("Cargo.toml"), VERSION)?;

    // This also builds the agent.
    cargo(copy, "imports", &[])?;
    cargo(copy, "dashboards", &[])?;
    cargo(copy, "scenarios", &["listen_overflow"])
}

/// All but what is built.
fn copy_checkout(root: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(root).with_context(|| format!("list {}", root.display()))? {
        let (name, path) = entry.map(|it| (it.file_name(), it.path()))?;
        if name == "target" || name == ".git" {
            continue;
        }
        let to = to.join(name);
        if path.is_dir() {
            copy_all(&path, &to)?;
        } else {
            copy_file(&path, &to)?;
        }
    }
    Ok(())
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    for file in files::below(from)? {
        copy_file(&file, &to.join(file.strip_prefix(from)?))?;
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let context = || format!("copy {} to {}", from.display(), to.display());
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(context)?;
    }
    fs::copy(from, to).with_context(context)?;
    Ok(())
}

/// The lines that the page adds to files of the project.
fn diff(page: &Path) -> Result<String> {
    let text = fs::read_to_string(page).with_context(|| format!("read {}", page.display()))?;
    let (_, rest) = text.split_once("```diff\n").context("it has no diff")?;
    let (diff, _) = rest.split_once("```").context("its diff has no end")?;
    Ok(diff.to_owned())
}

fn apply(diff: &str, copy: &Path) -> Result<()> {
    let mut git = Command::new("git");
    git.args(["apply", "-"]).current_dir(copy);
    // The copy is no repository, nor a part of one.
    git.env("GIT_CEILING_DIRECTORIES", copy);
    let mut git = git.stdin(Stdio::piped()).spawn().context("start git")?;
    let mut input = git.stdin.take().context("write to git")?;
    input.write_all(diff.as_bytes()).context("write to git")?;
    drop(input);
    let status = git.wait().context("wait for git")?;
    ensure!(
        status.success(),
        "the diff of {PAGE} does not apply any more: {status}"
    );
    Ok(())
}

fn replace(file: &Path, [old, new]: [&str; 2]) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    ensure!(text.contains(old), "{} lacks {old}", file.display());
    let text = text.replacen(old, new, 1);
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

/// Runs a test of the copy, which must have something to run. The flags, the build folder and the
/// cargo are those that made this test.
fn cargo(copy: &Path, test: &str, filter: &[&str]) -> Result<()> {
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let agent: PathBuf = [copy, Path::new("target"), target.as_ref()]
        .iter()
        .collect();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(copy);
    cargo.args(["test", "--offline", "--workspace", "--target", &target]);
    cargo.args(["--test", test, "--"]).args(filter);
    cargo.env("RUSTFLAGS", "-Ctarget-feature=+crt-static");
    cargo.env("NODEMEDIC_BIN", agent.join("debug/nodemedic"));
    cargo.env("NODEMEDIC_VM_KERNEL", KERNEL);
    cargo.env_remove("CARGO_TARGET_DIR");
    let run = cargo.output().context("start cargo")?;
    let output = [&run.stdout[..], &run.stderr[..]].concat();
    let output = String::from_utf8_lossy(&output);
    ensure!(
        run.status.success() && !output.contains("result: ok. 0 passed"),
        "{test}: {}: {output}",
        run.status
    );
    Ok(())
}
