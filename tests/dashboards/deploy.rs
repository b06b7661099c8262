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
use crate::{dispatch, kubernetes};

const SYSTEMD_ANALYZE: &str = "systemd-analyze";

/// Where the unit expects the agent.
const INSTALLED: &str = "/usr/local/bin/nodemedic";

pub(crate) fn manifest() -> PathBuf {
    root().join("deploy/daemonset.yaml")
}

fn unit() -> Result<String> {
    read(&root().join("deploy/nodemedic.service"))
}

fn the_manifests_are_what_kubernetes_expects() -> Result<Verdict> {
    kubernetes::validator().then(|validator| {
        validator.validate(&manifest())?;
        validator.validate(&dispatch::manifest())?;
        let folder = tempfile::tempdir().context("make a folder")?;
        let file = folder.path().join("by-alert.yaml");
        fs::write(&file, dispatch::agents_by_alert()?).context("write a manifest")?;
        validator.validate(&file)?;
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
pub(crate) struct Container {
    pub(crate) args: Vec<String>,
    pub(crate) ports: Vec<Port>,
    liveness_probe: Probe,
    readiness_probe: Probe,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) container_port: u16,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    http_get: HttpGet,
}

#[derive(Debug, Deserialize)]
struct HttpGet {
    /// The pod, where there is none.
    host: Option<String>,
    path: String,
    port: String,
}

/// All objects of a manifest.
pub(crate) fn objects(manifest: &str) -> Result<Vec<Value>> {
    serde_saphyr::from_multiple(manifest).context("parse the manifest")
}

/// The one object of a kind and a name.
pub(crate) fn object<'o>(objects: &'o [Value], kind: &str, name: &str) -> Result<&'o Value> {
    let wanted = |it: &&Value| it["kind"] == kind && it["metadata"]["name"] == name;
    let mut found = objects.iter().filter(wanted);
    found.next().with_context(|| format!("no {kind} {name}"))
}

/// The container of an object that runs one.
pub(crate) fn container(object: &Value) -> Result<Container> {
    let container = object["spec"]["template"]["spec"]["containers"].get(0);
    Container::deserialize(container.context("no container")?).context("read the container")
}

fn the_manifest_calls_the_agent_as_it_wants() -> Result<Verdict> {
    agent::program().then(|program| {
        let objects = objects(&read(&manifest())?)?;
        let container = container(object(&objects, "DaemonSet", "nodemedic")?)?;
        let arguments: Vec<_> = container.args.iter().map(|it| filled_in(it)).collect();
        takes(&program, &arguments)?;
        let listen = arguments.iter().find_map(|it| it.strip_prefix("--listen="));
        let ends = format!(":{}", container.port("metrics")?);
        ensure!(
            listen.is_some_and(|it| it.ends_with(&ends)),
            "the agent listens at {listen:?}"
        );
        container.probes(Some("127.0.0.1"))?;
        // The kubelet asks on the loopback of the node, which is that of the pod.
        let host_network = &object(&objects, "DaemonSet", "nodemedic")?["spec"]["template"]["spec"];
        ensure!(
            host_network["hostNetwork"] == true,
            "the loopback is another"
        );
        let health = arguments
            .iter()
            .find_map(|it| it.strip_prefix("--health-listen="));
        let wanted = format!("127.0.0.1:{}", container.port("health")?);
        ensure!(
            health == Some(&wanted),
            "the health checks are at {health:?}, not {wanted}"
        );
        Ok(Verdict::Passed)
    })
}

impl Container {
    /// Liveness and readiness have a listener of their own, which no flood of another reaches.
    pub(crate) fn probes(&self, at: Option<&str>) -> Result<()> {
        for (probe, path) in [
            (&self.liveness_probe, "/healthz"),
            (&self.readiness_probe, "/readyz"),
        ] {
            let HttpGet {
                host,
                path: asked,
                port,
            } = &probe.http_get;
            ensure!(
                asked == path && port == "health" && host.as_deref() == at,
                "a probe asks {host:?} {port}{asked}, not {path}"
            );
        }
        Ok(())
    }

    /// The number of a port.
    pub(crate) fn port(&self, name: &str) -> Result<u16> {
        let found = self.ports.iter().find(|port| port.name == name);
        Ok(found
            .with_context(|| format!("no port {name}"))?
            .container_port)
    }
}

/// As the kubelet does it.
pub(crate) fn filled_in(argument: &str) -> String {
    argument
        .replace("$(HOST_IP)", "192.0.2.1")
        .replace("$(NODE_NAME)", "node-1")
}

/// The agent understands the command line.
pub(crate) fn takes(program: &OsString, arguments: &[String]) -> Result<()> {
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
    Check::new("deploy::the_manifests_are_what_kubernetes_expects", the_manifests_are_what_kubernetes_expects),
    Check::new("deploy::a_field_that_kubernetes_does_not_know_is_found", a_field_that_kubernetes_does_not_know_is_found),
    Check::new("deploy::the_manifest_calls_the_agent_as_it_wants", the_manifest_calls_the_agent_as_it_wants),
    Check::new("deploy::the_unit_calls_the_agent_as_it_wants", the_unit_calls_the_agent_as_it_wants),
    Check::new("deploy::systemd_understands_the_unit", systemd_understands_the_unit),
    Check::new("deploy::a_setting_that_systemd_does_not_know_is_found", a_setting_that_systemd_does_not_know_is_found),
    Check::new("deploy::the_image_is_the_agent", the_image_is_the_agent),
];
