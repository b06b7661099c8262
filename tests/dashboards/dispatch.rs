//! What runs the dispatcher, and the agents that take alerts: that they find each other.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use toml::Table;

use crate::agent;
use crate::check::{Check, Verdict, read, root};
use crate::deploy::{self, container, filled_in, object, objects, takes};

/// Where the manifests have the configuration and the tokens.
const MOUNTED: &str = "/etc/nodemedic";

/// Mode 0400 in the only notation that every reader of YAML understands.
const OWNER_ALONE: u64 = 0o400;

pub(crate) fn manifest() -> PathBuf {
    root().join("deploy/dispatch.yaml")
}

/// The manifest of the agents with what has them take alerts, made as it says itself.
pub(crate) fn agents_by_alert() -> Result<String> {
    let text = read(&deploy::manifest())?;
    let lines = text.lines().map(|line| line.replacen("#: ", "", 1));
    Ok(lines.collect::<Vec<_>>().join("\n") + "\n")
}

/// The configuration in a manifest, for a folder that has what is mounted.
fn configuration(objects: &[Value], map: &str, folder: &Path) -> Result<String> {
    let text = object(objects, "ConfigMap", map)?["data"]["nodemedic.toml"].as_str();
    let text = text.context("no nodemedic.toml")?;
    Ok(text.replace(MOUNTED, &folder.to_string_lossy()))
}

/// A folder with what the manifests mount, and the arguments that find it there.
fn mounted(
    objects: &[Value],
    map: &str,
    arguments: &[String],
) -> Result<(tempfile::TempDir, Vec<String>)> {
    let folder = tempfile::tempdir().context("make a folder")?;
    for token in ["dispatch", "agents"] {
        let path = folder.path().join(token);
        fs::create_dir(&path).context("make a folder")?;
        fs::write(path.join("token"), "secret").context("write a token")?;
        fs::set_permissions(path.join("token"), Permissions::from_mode(0o400))
            .context("close a token")?;
    }
    let text = configuration(objects, map, folder.path())?;
    fs::write(folder.path().join("nodemedic.toml"), text).context("write a configuration")?;
    let here = folder.path().to_string_lossy();
    let arguments = arguments
        .iter()
        .map(|it| filled_in(it).replace(MOUNTED, &here));
    let arguments = arguments.collect();
    Ok((folder, arguments))
}

/// Every secret that a pod mounts is for its owner alone.
fn secrets_are_private(object: &Value) -> Result<()> {
    let volumes = object["spec"]["template"]["spec"]["volumes"].as_array();
    let secrets = volumes.context("no volumes")?.iter();
    let secrets: Vec<_> = secrets.filter_map(|volume| volume.get("secret")).collect();
    ensure!(!secrets.is_empty(), "no secret is mounted");
    for secret in secrets {
        ensure!(
            secret["defaultMode"] == OWNER_ALONE,
            "others can read {secret}"
        );
    }
    Ok(())
}

fn the_manifest_calls_the_dispatcher_as_it_wants() -> Result<Verdict> {
    agent::program().then(|program| {
        let objects = objects(&read(&manifest())?)?;
        let deployment = object(&objects, "Deployment", "nodemedic-dispatch")?;
        let container = container(deployment)?;
        let (_folder, arguments) = mounted(&objects, "nodemedic-dispatch", &container.args)?;
        takes(&program, &arguments)?;
        secrets_are_private(deployment)?;
        container.probes(None)?;
        ensure!(
            deployment["spec"]["replicas"] == 1
                && deployment["spec"]["strategy"]["type"] == "Recreate",
            "there may be two dispatchers at a time"
        );
        Ok(Verdict::Passed)
    })
}

fn the_agents_take_alerts_as_their_manifest_says() -> Result<Verdict> {
    agent::program().then(|program| {
        let objects = objects(&agents_by_alert()?)?;
        let set = object(&objects, "DaemonSet", "nodemedic")?;
        let container = container(set)?;
        let (_folder, arguments) = mounted(&objects, "nodemedic", &container.args)?;
        takes(&program, &arguments)?;
        secrets_are_private(set)
            .and_then(|()| {
                let webhook = arguments
                    .iter()
                    .find_map(|it| it.strip_prefix("--webhook="));
                let ends = format!(":{}", container.port("webhook")?);
                let found = webhook.is_some_and(|it| it.ends_with(&ends));
                ensure!(found, "the webhook listens at {webhook:?}");
                Ok(())
            })
            .map(|()| Verdict::Passed)
    })
}

fn the_dispatcher_finds_the_agents_and_alertmanager_the_dispatcher() -> Result<Verdict> {
    let agents = objects(&agents_by_alert()?)?;
    let set = object(&agents, "DaemonSet", "nodemedic")?;
    let agent = container(set)?;
    let objects = objects(&read(&manifest())?)?;
    let dispatcher = container(object(&objects, "Deployment", "nodemedic-dispatch")?)?;
    let text = configuration(&objects, "nodemedic-dispatch", Path::new(MOUNTED))?;
    let config: Table = text.parse().context("parse the configuration")?;
    let config = &config["dispatch"];

    let service = object(&objects, "Service", "nodemedic-agents")?;
    let name = "nodemedic-agents.nodemedic.svc.cluster.local";
    ensure!(
        config["service"].as_str() == Some(name),
        "the agents are {name}"
    );
    ensure!(
        service["spec"]["clusterIP"] == "None",
        "{name} is one address for all"
    );
    ensure!(
        service["spec"]["selector"] == set["spec"]["selector"]["matchLabels"],
        "{name} is not the agents"
    );
    for (port, usual) in [("metrics", 19_110), ("webhook", 19_111)] {
        ensure!(
            agent.port(port)? == usual,
            "{port} of the agents is not {usual}"
        );
    }
    for (key, port) in [
        ("listen", "webhook"),
        ("http_listen", "metrics"),
        ("health_listen", "health"),
    ] {
        let listens = config[key].as_str().unwrap_or_default();
        let ends = format!(":{}", dispatcher.port(port)?);
        ensure!(
            listens.ends_with(&ends),
            "{key} is {listens}, and {port} is {ends}"
        );
    }
    let service = object(&objects, "Service", "nodemedic-dispatch")?;
    let port = &service["spec"]["ports"][0];
    ensure!(
        port["targetPort"] == "webhook" && port["port"] == dispatcher.port("webhook")?,
        "the service leads to {port}"
    );
    Ok(Verdict::Passed)
}

#[rustfmt::skip]
pub(crate) const CHECKS: &[Check] = &[
    Check::new("dispatch::the_manifest_calls_the_dispatcher_as_it_wants", the_manifest_calls_the_dispatcher_as_it_wants),
    Check::new("dispatch::the_agents_take_alerts_as_their_manifest_says", the_agents_take_alerts_as_their_manifest_says),
    Check::new("dispatch::the_dispatcher_finds_the_agents_and_alertmanager_the_dispatcher", the_dispatcher_finds_the_agents_and_alertmanager_the_dispatcher),
];
