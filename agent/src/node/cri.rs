//! A container runtime, by its CRI: containerd, CRI-O, and what is made of them.
//!
//! Two lists tell of all pods and containers. What a sandbox's network is takes a question
//! of its own, which is asked once: it stays the same for the sandbox's life.

#[cfg(test)]
pub(super) mod fake;
mod messages;
/// For fuzzing: answers of a container runtime.
#[cfg(any(test, fuzzing))]
pub(super) const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "cri",
    read: |bytes| {
        let _ = <ListPodSandboxResponse as prost::Message>::decode(bytes);
        let _ = <ListContainersResponse as prost::Message>::decode(bytes);
        if let Ok(answer) = <PodSandboxStatusResponse as prost::Message>::decode(bytes) {
            let _ = Network::of(answer, "sandbox", "uid");
        }
    },
    seeds: &[
        b"\x0a\x2a\x0a\x01a\x12\x0a\x0a\x01b\x12\x01c\x1a\x02ns\x18\x00",
        b"\x0a\x10\x1a\x0a\x0a\x0810.0.0.1\x22\x02\x0a\x00\x12\x14\x0a\x04info\x12\x0c{\"pid\":12345}",
    ],
};

#[cfg(test)]
pub(super) mod tests;

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use hyper::http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tonic::{
    Code, Request,
    client::Grpc,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use tower::service_fn;

use self::messages::{
    ListContainersRequest, ListContainersResponse, ListPodSandboxRequest, ListPodSandboxResponse,
    NamespaceOption, PodSandbox, PodSandboxFilter, PodSandboxStatusRequest,
    PodSandboxStatusResponse, StateValue,
};
use super::{
    Owner,
    names::{ContainerRecord, PodRecord},
};
use crate::kernel::{cgroup, netns};

/// Where runtimes have their socket: those that crictl looks at, then k3s and RKE2, k0s, MicroK8s
/// and Canonical Kubernetes.
const USUAL: [&str; 7] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
    "/var/snap/k8s/common/run/containerd.sock",
];

/// Where manifests mount what is the host's.
const HOST: &str = "/host";

/// As much as the kubelet takes, and containerd sends.
const LARGEST_ANSWER: usize = 16 << 20;

/// A runtime behind a socket.
#[derive(Debug)]
pub(super) struct Cri {
    socket: PathBuf,
    /// The networks of sandboxes that were there at the last answer.
    networks: HashMap<String, Network>,
}

/// What a sandbox has of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Network {
    addresses: Vec<IpAddr>,
    netns: Option<u32>,
}

/// All sockets that are there, each once, or the one that was asked for.
pub(super) fn find(configured: &Path) -> Vec<PathBuf> {
    if !configured.as_os_str().is_empty() {
        return vec![configured.to_owned()];
    }
    let places = ["", HOST].into_iter().flat_map(|root| {
        USUAL
            .into_iter()
            .map(move |path| PathBuf::from(format!("{root}{path}")))
    });
    once_each(places)
}

/// One socket may be there under two names, by a link or a mount.
fn once_each(places: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let mut is_new = |path: &PathBuf| match fs::metadata(path) {
        Ok(file) => seen.insert((file.dev(), file.ino())),
        // Asking that socket will report this error.
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    places.filter(|path| is_new(path)).collect()
}

impl Cri {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            networks: HashMap::new(),
        }
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// All pods that run, and their containers, the newest first, so many at the most.
    ///
    /// # Errors
    ///
    /// Why there is no answer, with what to do.
    pub(super) async fn pods(&mut self, max: usize) -> anyhow::Result<Vec<PodRecord>> {
        let socket = self.socket.clone();
        self.ask(max)
            .await
            .with_context(|| format!("ask the container runtime at {}", socket.display()))
    }

    async fn ask(&mut self, max: usize) -> anyhow::Result<Vec<PodRecord>> {
        let mut client = Client::connect(&self.socket).await?;
        let mut sandboxes = client.sandboxes().await?;
        // Of a pod whose sandbox was made anew the newer one is meant.
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at));
        let mut containers = client.containers().await?;
        let mut pods = Vec::new();
        let mut networks = HashMap::new();
        let mut seen = HashSet::new();
        for sandbox in sandboxes {
            let PodSandbox { id, labels, .. } = sandbox;
            let Some(metadata) = sandbox.metadata else {
                continue;
            };
            if !seen.insert(metadata.uid.clone()) {
                continue;
            }
            let mut pod = PodRecord {
                uid: metadata.uid,
                namespace: metadata.namespace,
                name: metadata.name,
                labels,
                containers: containers.remove(&id).unwrap_or_default(),
                ..PodRecord::default()
            };
            // What is cut is counted, and nothing more is asked about it.
            if pods.len() < max {
                let network = match self.networks.remove(&id) {
                    Some(known) => known,
                    None => client.network(&id, &pod.uid).await?,
                };
                pod.addresses.clone_from(&network.addresses);
                pod.netns = network.netns;
                networks.insert(id.clone(), network);
            }
            pod.sandbox = Some(id);
            pods.push(pod);
        }
        self.networks = networks;
        Ok(pods)
    }
}

/// A connection, for one round of questions.
struct Client(Grpc<Channel>);

impl Client {
    async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let path = socket.to_owned();
        let connect = service_fn(move |_| {
            let path = path.clone();
            async move { io::Result::Ok(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        // The name is for the header `:authority` alone.
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(connect)
            .await
            .map_err(refused)?;
        Ok(Self(
            Grpc::new(channel).max_decoding_message_size(LARGEST_ANSWER),
        ))
    }

    async fn sandboxes(&mut self) -> anyhow::Result<Vec<PodSandbox>> {
        let ready = PodSandboxFilter {
            state: Some(StateValue { state: 0 }),
        };
        let request = ListPodSandboxRequest {
            filter: Some(ready),
        };
        let answer: ListPodSandboxResponse = self.call("ListPodSandbox", request).await?;
        Ok(answer.items)
    }

    /// By sandbox. Those that have ended are among them: their cgroup may still be there.
    async fn containers(&mut self) -> anyhow::Result<HashMap<String, Vec<ContainerRecord>>> {
        let request = ListContainersRequest { filter: None };
        let answer: ListContainersResponse = self.call("ListContainers", request).await?;
        let mut containers: HashMap<_, Vec<_>> = HashMap::new();
        for container in answer.containers {
            let record = ContainerRecord {
                id: container.id,
                name: container.metadata.unwrap_or_default().name,
            };
            containers
                .entry(container.pod_sandbox_id)
                .or_default()
                .push(record);
        }
        Ok(containers)
    }

    /// Nothing for a sandbox that went in between, and for one in the node's namespace.
    async fn network(&mut self, sandbox: &str, uid: &str) -> anyhow::Result<Network> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: sandbox.to_owned(),
            verbose: true,
        };
        let answer = match self.unary("PodSandboxStatus", request).await {
            Ok(answer) => answer,
            Err(status) if status.code() == Code::NotFound => return Ok(Network::default()),
            Err(status) => return Err(call_error("PodSandboxStatus", &status)),
        };
        Ok(Network::of(answer, sandbox, uid))
    }

    async fn call<Q, A>(&mut self, method: &'static str, request: Q) -> anyhow::Result<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let answer = self.unary(method, request).await;
        answer.map_err(|status| call_error(method, &status))
    }

    async fn unary<Q, A>(&mut self, method: &'static str, request: Q) -> Result<A, tonic::Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"));
        let path = path.map_err(|error| tonic::Status::internal(error.to_string()))?;
        let ready = self.0.ready().await;
        ready.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<Q, A>::default();
        let answer = self.0.unary(Request::new(request), path, codec).await?;
        Ok(answer.into_inner())
    }
}

impl Network {
    fn of(answer: PodSandboxStatusResponse, sandbox: &str, uid: &str) -> Self {
        let status = answer.status.unwrap_or_default();
        let namespaces = status.linux.and_then(|linux| linux.namespaces);
        let options = namespaces.and_then(|it| it.options);
        if options.is_some_and(|it| it.network == NamespaceOption::NODE) {
            return Self::default();
        }
        let network = status.network.unwrap_or_default();
        let more = network.additional_ips.into_iter().map(|it| it.ip);
        let texts = std::iter::once(network.ip).chain(more);
        let info = answer.info.get("info").map(String::as_str);
        Self {
            addresses: texts.filter_map(|text| text.parse().ok()).collect(),
            netns: info.and_then(|info| netns_of(info, sandbox, uid)),
        }
    }
}

/// What containerd and CRI-O tell when they are asked to be verbose: parts of
/// `SandboxInfo` (containerd, pkg/cri) and of `info` (CRI-O, server/sandbox_status.go).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Info {
    /// The sandbox's process; 0 where it has none, as mostly with CRI-O.
    pid: u32,
    #[serde(rename = "runtimeSpec")]
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    linux: Linux,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Vec<SpecNamespace>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SpecNamespace {
    #[serde(rename = "type")]
    kind: String,
    path: String,
}

/// The inode number of the sandbox's own network namespace.
fn netns_of(info: &str, sandbox: &str, uid: &str) -> Option<u32> {
    let info: Info = serde_json::from_str(info).ok()?;
    let netns = of_process(info.pid, sandbox, uid).or_else(|| {
        let mut namespaces = info.spec.linux.namespaces.iter();
        let network = namespaces.find(|namespace| namespace.kind == "network")?;
        netns::of_file(Path::new(&network.path))
    });
    // A runtime may call it the pod's own though it is not.
    netns.filter(|netns| netns::own().ok() != Some(*netns))
}

/// The namespace of a process, if that is really in the sandbox: the answer may be old, or
/// wrong, and the number another's by now.
fn of_process(pid: u32, sandbox: &str, uid: &str) -> Option<u32> {
    let paths = cgroup::of_process(pid).ok()?;
    let theirs = paths.iter().any(|path| {
        Owner::of(path).levels().any(|owner| {
            let (container, pod) = (owner.container.as_ref(), owner.pod.as_ref());
            container.is_some_and(|it| it.id == sandbox) || pod.is_some_and(|it| it.uid == uid)
        })
    });
    theirs.then(|| netns::of_process(pid))?.ok()
}

fn refused(error: tonic::transport::Error) -> anyhow::Error {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let denied = cause
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    if denied {
        anyhow::anyhow!("{cause}: run as root, or set names = \"off\" in [node]")
    } else {
        anyhow::anyhow!("{cause}: is it running? [node] cri_socket names its socket")
    }
}

fn call_error(method: &str, status: &tonic::Status) -> anyhow::Error {
    let message = status.message();
    let hint = match status.code() {
        Code::Unimplemented => {
            "it has no CRI of version 1: containerd has one from 1.6 on, unless its configuration \
             disables the plugin, as Docker's does; set [node] cri_socket to the kubelet's runtime, \
             or names to \"kubelet\" or \"off\""
        }
        Code::OutOfRange => "the answer is larger than any that the kubelet would take",
        _ => return anyhow::anyhow!("{method}: {message} ({:?})", status.code()),
    };
    anyhow::anyhow!("{method}: {message}: {hint}")
}
