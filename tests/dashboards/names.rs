//! The agents that ask the kubelet for names of pods, as their manifest has them do it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use rcgen::{CertificateParams, KeyPair};

use crate::agent;
use crate::check::{Check, Verdict, read};
use crate::deploy::{self, container, filled_in, object, objects, takes};
use crate::kubernetes;

/// Where the manifest has the configuration, and what the kubelet is asked with.
const CONFIGURATION: &str = "/etc/nodemedic-names";
const CREDENTIALS: &str = "/run/secrets/names";

/// The manifest with what has the agents ask, made as it says itself.
fn manifest() -> Result<String> {
    let text = read(&deploy::manifest())?;
    let lines = text.lines().map(|line| line.replacen("#~ ", "", 1));
    Ok(lines.collect::<Vec<_>>().join("\n") + "\n")
}

fn the_manifest_is_what_kubernetes_expects() -> Result<Verdict> {
    kubernetes::validator().then(|validator| {
        let folder = tempfile::tempdir().context("make a folder")?;
        let file = folder.path().join("names.yaml");
        fs::write(&file, manifest()?).context("write a manifest")?;
        validator.validate(&file)?;
        Ok(Verdict::Passed)
    })
}

fn the_agents_ask_the_kubelet_as_their_manifest_says() -> Result<Verdict> {
    agent::program().then(|program| {
        let objects = objects(&manifest()?)?;
        let role = object(&objects, "ClusterRole", "nodemedic-names")?;
        let allowed = serde_json::json!([
            {"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]}
        ]);
        ensure!(role["rules"] == allowed, "it may {}", role["rules"]);
        let folder = tempfile::tempdir().context("make a folder")?;
        let path = |name: &str| folder.path().join(name);
        let map = object(&objects, "ConfigMap", "nodemedic-names")?;
        let text = map["data"]["nodemedic.toml"].as_str();
        let text = text.context("no nodemedic.toml")?;
        let here = folder.path().to_string_lossy();
        fs::write(path("nodemedic.toml"), text.replace(CREDENTIALS, &here))
            .context("write a configuration")?;
        fs::write(path("token"), "secret").context("write a token")?;
        fs::set_permissions(path("token"), Permissions::from_mode(0o400))
            .context("close a token")?;
        fs::write(path("ca.crt"), authority()?).context("write a certificate")?;
        let container = container(object(&objects, "DaemonSet", "nodemedic")?)?;
        let arguments = container.args.iter();
        let arguments: Vec<_> = arguments
            .map(|it| filled_in(it).replace(CONFIGURATION, &here))
            .collect();
        takes(&program, &arguments)?;
        fs::remove_file(path("token")).context("remove the token")?;
        ensure!(
            takes(&program, &arguments).is_err(),
            "nobody misses the token"
        );
        Ok(Verdict::Passed)
    })
}

fn authority() -> Result<String> {
    let key = KeyPair::generate().context("make a key")?;
    let certificate = CertificateParams::default().self_signed(&key);
    Ok(certificate.context("make a certificate")?.pem())
}

#[rustfmt::skip]
pub(crate) const CHECKS: &[Check] = &[
    Check::new("names::the_manifest_is_what_kubernetes_expects", the_manifest_is_what_kubernetes_expects),
    Check::new("names::the_agents_ask_the_kubelet_as_their_manifest_says", the_agents_ask_the_kubelet_as_their_manifest_says),
];
