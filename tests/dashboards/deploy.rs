//! The ways to run the agent: their files are valid, and they call the agent as it wants.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::agent;
use crate::check::{Available, Check, Verdict, read, root};
use crate::kubernetes;

const SYSTEMD_ANALYZE: &str = "systemd-analyze";

/// Where the unit expects the agent.
const INSTALLED: &str = "/usr/local/bin/nodemedic";

fn manifest() -> PathBuf {
    root().join("deploy/daemonset.yaml")
}

fn unit() -> Result<String> {
    read(&root().join("deploy/nodemedic.service"))
}

fn the_manifest_is_what_kubernetes_expects() -> Result<Verdict> {
    kubernetes::validator().then(|validator| {
        validator.validate(&manifest())?;
        Ok(Verdict::Passed)
    })
}

fn a_field_that_kubernetes_does_not_know_is_found() -> Result<Verdict> {
    kubernetes::validator().then(|validator| {
        let folder = tempfile::tempdir().context("make a folder")?;
        for (sound, spoilt) in [
            ("hostNetwork: true", "hostNetwrok: true"),
            ("hostPID: true", "hostPID: maybe"),
            ("readOnlyRootFilesystem:", "readOnlyRootFileSystem:"),
        ] {
            let text = read(&manifest())?;
            ensure!(text.contains(sound), "the manifest has no {sound}");
            let file = folder.path().join("spoilt.yaml");
            fs::write(&file, text.replace(sound, spoilt)).context("write a manifest")?;
            ensure!(
                validator.validate(&file).is_err(),
                "nobody objects to {spoilt}"
            );
        }
        Ok(Verdict::Passed)
    })
}

/// The one container, as far as the agent cares.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    args: Vec<String>,
    ports: Vec<Port>,
    liveness_probe: Probe,
    readiness_probe: Probe,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    name: String,
    container_port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    http_get: HttpGet,
}

#[derive(Debug, Deserialize)]
struct HttpGet {
    path: String,
    port: String,
}

fn container() -> Result<Container> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&read(&manifest())?).context("parse the manifest")?;
    let set = documents
        .iter()
        .find(|document| document["kind"] == "DaemonSet");
    let containers = &set.context("no DaemonSet")?["spec"]["template"]["spec"]["containers"];
    let container = containers.get(0).context("no container")?;
    Container::deserialize(container).context("read the container")
}

fn the_manifest_calls_the_agent_as_it_wants() -> Result<Verdict> {
    agent::program().then(|program| {
        let container = container()?;
        let arguments: Vec<_> = container.args.iter().map(|it| filled_in(it)).collect();
        takes(&program, &arguments)?;
        let port = container.ports.first().context("no port")?;
        let listen = arguments.iter().find_map(|it| it.strip_prefix("--listen="));
        let ends = format!(":{}", port.container_port);
        ensure!(
            listen.is_some_and(|it| it.ends_with(&ends)),
            "the agent listens at {listen:?}"
        );
        for (probe, path) in [
            (&container.liveness_probe, "/healthz"),
            (&container.readiness_probe, "/readyz"),
        ] {
            let HttpGet {
                path: asked,
                port: at,
            } = &probe.http_get;
            ensure!(
                asked == path && *at == port.name,
                "a probe asks {at}{asked}, not {path}"
            );
        }
        Ok(Verdict::Passed)
    })
}

/// As the kubelet does it.
fn filled_in(argument: &str) -> String {
    argument
        .replace("$(HOST_IP)", "192.0.2.1")
        .replace("$(NODE_NAME)", "node-1")
}

/// The agent understands the command line.
fn takes(program: &OsString, arguments: &[String]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .arg("--check-config")
        .output()
        .with_context(|| format!("start {}", program.display()))?;
    ensure!(
        output.status.success(),
        "the agent refuses {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// The words behind `ExecStart=` and the program.
fn unit_arguments() -> Result<Vec<String>> {
    let unit = unit()?;
    let start = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="));
    let mut words = start
        .context("no ExecStart")?
        .split_whitespace()
        .map(str::to_owned);
    ensure!(
        words.next().as_deref() == Some(INSTALLED),
        "it does not start {INSTALLED}"
    );
    Ok(words.collect())
}

fn the_unit_calls_the_agent_as_it_wants() -> Result<Verdict> {
    agent::program().then(|program| {
        takes(&program, &unit_arguments()?)?;
        Ok(Verdict::Passed)
    })
}

fn systemd() -> Available<()> {
    match Command::new(SYSTEMD_ANALYZE).arg("--version").output() {
        Ok(_) => Available::Yes(()),
        Err(error) => Available::No {
            why: format!("no {SYSTEMD_ANALYZE} on the path: {error}"),
        },
    }
}

/// It looks for the program, too, and there is one of another name on every machine.
fn verify(unit: &str) -> Result<()> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let file = folder.path().join("nodemedic.service");
    fs::write(&file, unit.replace(INSTALLED, "/bin/true")).context("write the unit")?;
    let output = Command::new(SYSTEMD_ANALYZE)
        .args(["verify", "--man=no"])
        .arg(&file)
        .output()
        .with_context(|| format!("start {SYSTEMD_ANALYZE}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // What it does not understand it only mentions.
    let about_ours = said.lines().find(|line| mentions(line, &file));
    if !output.status.success() {
        bail!("{said}");
    }
    ensure!(about_ours.is_none(), "{}", about_ours.unwrap_or_default());
    Ok(())
}

fn mentions(line: &str, file: &Path) -> bool {
    line.contains(&*file.to_string_lossy()) || line.starts_with("nodemedic.service")
}

fn systemd_understands_the_unit() -> Result<Verdict> {
    systemd().then(|()| {
        verify(&unit()?)?;
        Ok(Verdict::Passed)
    })
}

fn a_setting_that_systemd_does_not_know_is_found() -> Result<Verdict> {
    systemd().then(|()| {
        let spoilt = unit()?.replace("ProtectSystem=", "ProtectSytem=");
        ensure!(verify(&spoilt).is_err(), "nobody objects to ProtectSytem=");
        Ok(Verdict::Passed)
    })
}

/// The image holds the agent alone, under the name that the manifest's arguments are for.
fn the_image_is_the_agent() -> Result<Verdict> {
    let file = read(&root().join("deploy/Containerfile"))?;
    for line in ["FROM scratch", "ENTRYPOINT [\"/nodemedic\"]"] {
        ensure!(
            file.lines().any(|it| it == line),
            "the Containerfile has no line {line}"
        );
    }
    Ok(Verdict::Passed)
}

#[rustfmt::skip]
pub(crate) const CHECKS: &[Check] = &[
    Check::new("deploy::the_manifest_is_what_kubernetes_expects", the_manifest_is_what_kubernetes_expects),
    Check::new("deploy::a_field_that_kubernetes_does_not_know_is_found", a_field_that_kubernetes_does_not_know_is_found),
    Check::new("deploy::the_manifest_calls_the_agent_as_it_wants", the_manifest_calls_the_agent_as_it_wants),
    Check::new("deploy::the_unit_calls_the_agent_as_it_wants", the_unit_calls_the_agent_as_it_wants),
    Check::new("deploy::systemd_understands_the_unit", systemd_understands_the_unit),
    Check::new("deploy::a_setting_that_systemd_does_not_know_is_found", a_setting_that_systemd_does_not_know_is_found),
    Check::new("deploy::the_image_is_the_agent", the_image_is_the_agent),
];
