//! The kubelet, by its `/pods`: all pods that it is to run on this node.
//!
//! It tells less than a runtime does: no network namespaces, and no containers before they
//! have started.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use hyper::StatusCode;
use serde::Deserialize;

use super::{
    Node,
    names::{ContainerRecord, PodRecord},
};
use crate::http::{Client, ClientConfig, Url};

/// A pod is told in some 20 KiB, with all that somebody configured.
const LARGEST_ANSWER: usize = 64 << 20;

/// A kubelet, and how it is asked.
#[derive(Debug)]
pub(super) struct Kubelet {
    at: Url,
    client: Client,
}

impl Kubelet {
    /// # Errors
    ///
    /// When the URL is none, or a file cannot be used.
    pub(super) fn open(settings: &Node) -> anyhow::Result<Self> {
        let at = Url::parse(&settings.kubelet_url)
            .map_err(anyhow::Error::msg)
            .context("[node] kubelet_url")?;
        let client = Client::open(&ClientConfig {
            table: "node",
            whom: "kubelet",
            token_file: settings.kubelet_token_file.clone(),
            ca_file: settings.kubelet_ca_file.clone(),
            server_name: settings.kubelet_server_name.clone(),
            cert_file: settings.kubelet_cert_file.clone(),
            key_file: settings.kubelet_key_file.clone(),
            is_https: at.is_https,
            within: settings.timeout,
            largest: LARGEST_ANSWER,
        })?;
        Ok(Self { at, client })
    }

    pub(super) fn url(&self) -> String {
        self.at.to_string()
    }

    /// All pods of the node.
    ///
    /// # Errors
    ///
    /// Why there is no answer, with what to do.
    pub(super) async fn pods(&self) -> anyhow::Result<Vec<PodRecord>> {
        self.ask()
            .await
            .with_context(|| format!("ask the kubelet at {} for /pods", self.at))
    }

    async fn ask(&self) -> anyhow::Result<Vec<PodRecord>> {
        let answer = self.client.get_with_token(&self.at, "/pods").await;
        let answer = answer.map_err(anyhow::Error::msg)?;
        match answer.code {
            StatusCode::OK => {}
            code @ StatusCode::UNAUTHORIZED => bail!(
                "{code}: it does not accept the credentials of kubelet_token_file or \
                 kubelet_cert_file in [node]"
            ),
            code @ StatusCode::FORBIDDEN => bail!(
                "{code}: the service account lacks permission. Allow it get on nodes/pods in a \
                 ClusterRole (before Kubernetes 1.33: nodes/proxy)"
            ),
            code => bail!("it answers {code}: does a kubelet listen there?"),
        }
        let list: PodList =
            serde_json::from_slice(&answer.body).context("its answer is no list of pods")?;
        Ok(list.items.into_iter().map(PodRecord::from).collect())
    }
}

/// The parts of a list of pods (k8s.io/api/core/v1) that are needed.
#[derive(Deserialize)]
struct PodList {
    /// A kubelet without pods says null.
    #[serde(deserialize_with = "null_is_none")]
    items: Vec<Pod>,
}

fn null_is_none<'d, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'d>,
    D: serde::Deserializer<'d>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    /// A pod without any says nothing, or null.
    #[serde(default, deserialize_with = "null_is_none")]
    labels: HashMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    host_network: bool,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
    init_container_statuses: Vec<ContainerStatus>,
    container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

#[derive(Deserialize)]
struct ContainerStatus {
    name: String,
    /// `containerd://<id>`; absent before it has started.
    #[serde(default, rename = "containerID")]
    container_id: String,
}

impl From<Pod> for PodRecord {
    fn from(pod: Pod) -> Self {
        let Pod {
            metadata,
            spec,
            status,
        } = pod;
        // One that has ended keeps its address in its status, where another has it by now.
        let ended = matches!(status.phase.as_str(), "Succeeded" | "Failed");
        let addresses = if spec.host_network || ended {
            Vec::new()
        } else {
            let several = status.pod_ips.into_iter().map(|it| it.ip);
            let mut addresses: Vec<_> = std::iter::once(status.pod_ip)
                .chain(several)
                .filter_map(|text| text.parse().ok())
                .collect();
            addresses.sort_unstable();
            addresses.dedup();
            addresses
        };
        let containers = [
            status.init_container_statuses,
            status.container_statuses,
            status.ephemeral_container_statuses,
        ];
        let container = |status: ContainerStatus| {
            let (_, id) = status.container_id.split_once("://")?;
            Some(ContainerRecord {
                id: id.to_owned(),
                name: status.name,
            })
        };
        Self {
            uid: metadata.uid,
            namespace: metadata.namespace,
            name: metadata.name,
            labels: metadata.labels,
            addresses,
            netns: None,
            sandbox: None,
            containers: containers
                .into_iter()
                .flatten()
                .filter_map(container)
                .collect(),
        }
    }
}

/// For fuzzing: answers of the kubelet.
#[cfg(any(test, fuzzing))]
pub(super) const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "kubelet",
    read: |bytes| {
        if let Ok(list) = serde_json::from_slice::<PodList>(bytes) {
            list.items.into_iter().map(PodRecord::from).for_each(drop);
        }
    },
    seeds: &[
        br#"{"items":[{"metadata":{"name":"a","namespace":"b","uid":"c","labels":null},"spec":{"hostNetwork":true},"status":{"phase":"Running","podIP":"10.0.0.1","podIPs":[{"ip":"fd00::1"}],"containerStatuses":[{"name":"x","containerID":"containerd://0123"}]}}]}"#,
    ],
};

#[cfg(test)]
mod tests;
