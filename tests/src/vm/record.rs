//! What the agent finds out about each kernel of the matrix, kept for the unit tests of what it
//! makes of that.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde::Serialize as _;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::kernels::{Kernel, Matrix};
use super::report::say;
use super::{session, vm};
use crate::protocol::{Outcome, Task};
use crate::scenario::{Registry, Scenario};

const SCENARIO: &str = "record::facts";

/// Writes a file for each kernel that is selected. What the agent finds out is the same of a kernel
/// and of its unfixed form.
pub(super) fn run(matrix: &Matrix, registry: &Registry) -> Result<ExitCode> {
    let folder = env::var_os("NODEMEDIC_RECORD_FOLDER").map(PathBuf::from);
    let folder = folder.context("NODEMEDIC_RECORD_FOLDER names no folder for the files")?;
    let scenario = registry.find(SCENARIO).context("there is no recorder")?;
    for kernel in matrix.kernels.iter().filter(|kernel| !kernel.unfixed) {
        let facts = facts(matrix, kernel, scenario)
            .with_context(|| format!("record kernel {}", kernel.name))?;
        write(&folder, &facts)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn facts(matrix: &Matrix, kernel: &Kernel, scenario: &Scenario) -> Result<Value> {
    let vm = vm(matrix, kernel, scenario.shape)?;
    let mut outcome = None;
    let tasks = [Task::new(scenario, Value::Null)];
    session::outcomes(&kernel.name, &vm, &tasks, &mut |_, end| outcome = Some(end))?;
    match outcome {
        Some(Outcome::Measured(facts)) => Ok(facts),
        other => bail!("{other:?}"),
    }
}

fn write(folder: &Path, facts: &Value) -> Result<()> {
    let release = facts["release"].as_str().context("no release in it")?;
    let path = folder.join(format!("linux-{}.json", version(release)?));
    let mut text = Vec::new();
    let format = PrettyFormatter::with_indent(b" ");
    facts
        .serialize(&mut Serializer::with_formatter(&mut text, format))
        .context("write the facts as JSON")?;
    text.push(b'\n');
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    say!("written: {}", path.display());
    Ok(())
}

/// `7.3` of `7.3.4+deb13-cloud-amd64`: the newest kernel has its name for a while only.
fn version(release: &str) -> Result<String> {
    let mut numbers = release.split('.');
    let (major, minor) = (numbers.next(), numbers.next());
    let (Some(major), Some(minor)) = (major, minor) else {
        bail!("a kernel of the release {release:?}");
    };
    Ok(format!("{major}.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_kernels_version() {
        assert_eq!(version("7.3.4+deb13").unwrap(), "7.3");
        assert_eq!(version("5.10.0-46-cloud-amd64").unwrap(), "5.10");
        assert!(version("5").is_err());
    }
}
