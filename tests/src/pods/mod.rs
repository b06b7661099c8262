//! Pods as a kubelet has them made, by a real containerd in the guest: sandboxes and containers by
//! its CRI, cgroups and network as on a node. There is no kubelet, and no registry: the one image is
//! made here.

mod call;
mod image;
mod messages;

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use self::messages::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, CreateContainerResponse, DnsConfig,
    Empty, ImageSpec, LinuxContainerConfig, LinuxContainerResources, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    PodSandboxStatusRequest, PodSandboxStatusResponse, RunPodSandboxRequest, RunPodSandboxResponse,
    StartContainerRequest,
};
use crate::eventually::eventually;
use crate::guest::{Guest, Process};

/// Where the runtime listens, as on any node.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// Its configuration, its state and its images. The file system of a guest is its initramfs, from
/// which no container can have its root moved.
const FOLDER: &str = "/run/pods";

/// The address of the node in each pod's network, and what the pods' are of.
pub const GATEWAY: &str = "10.88.0.1";
const NETWORK: &str = "10.88.0.0/24";

/// Emulated, it takes a while to start.
const START_LIMIT: Duration = Duration::from_secs(90);

/// A running containerd. Dropping it kills it; its pods run on until the guest is cleaned.
#[derive(Debug)]
pub struct Runtime {
    process: Option<Process>,
}

/// A pod with its sandbox.
#[derive(Debug)]
pub struct Pod {
    config: PodSandboxConfig,
    sandbox: String,
}

/// What a pod is to be.
#[derive(Debug, Clone, Copy)]
pub struct PodSpec<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    /// Keys and values.
    pub labels: &'a [(&'a str, &'a str)],
    /// Whether it has the network of the node.
    pub host_network: bool,
}

impl Runtime {
    /// Starts it, and gives it the image.
    pub fn start(guest: &Guest) -> Result<Self> {
        let runtime = Self {
            process: Some(launch(guest)?),
        };
        image::import(guest, SOCKET, FOLDER)?;
        Ok(runtime)
    }

    /// As `systemctl stop containerd`: pods run on.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Runs a pod without a container, in the cgroup that a kubelet gives it.
    pub fn pod(&self, guest: &Guest, spec: PodSpec<'_>) -> Result<Pod> {
        let options = NamespaceOption {
            network: if spec.host_network { 2 } else { 0 },
            pid: 1,
        };
        let label = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: spec.name.to_owned(),
                uid: spec.uid.to_owned(),
                namespace: spec.namespace.to_owned(),
                attempt: 0,
            }),
            hostname: if spec.host_network { "" } else { "pod" }.to_owned(),
            log_directory: format!("{FOLDER}/log/{}", spec.uid),
            // Without one it copies the node's /etc/resolv.conf, which a guest has not.
            dns_config: Some(DnsConfig {
                servers: vec![GATEWAY.to_owned()],
            }),
            labels: spec.labels.iter().map(label).collect(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/kubepods/burstable/pod{}", spec.uid),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(options),
                }),
            }),
        };
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
        };
        let answer: RunPodSandboxResponse = call::unary(guest, SOCKET, "RunPodSandbox", &request)?;
        Ok(Pod {
            config,
            sandbox: answer.pod_sandbox_id,
        })
    }
}

impl Pod {
    /// Runs a script of the shell in a container, with at most so many hundredths of a CPU.
    pub fn run(
        &self,
        guest: &Guest,
        container: &str,
        percent: Option<i64>,
        script: &str,
    ) -> Result<()> {
        let quota = percent.map(|percent| LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: percent * 1_000,
        });
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata {
                name: container.to_owned(),
                attempt: 0,
            }),
            image: Some(ImageSpec {
                image: image::NAME.to_owned(),
            }),
            command: ["/bin/busybox", "sh", "-c", script]
                .map(str::to_owned)
                .into(),
            log_path: format!("{container}.log"),
            linux: Some(LinuxContainerConfig { resources: quota }),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: self.sandbox.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let made: CreateContainerResponse =
            call::unary(guest, SOCKET, "CreateContainer", &request)?;
        let start = StartContainerRequest {
            container_id: made.container_id,
        };
        let _: Empty = call::unary(guest, SOCKET, "StartContainer", &start)?;
        Ok(())
    }

    /// The address that its network gave it.
    pub fn address(&self, guest: &Guest) -> Result<IpAddr> {
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: self.sandbox.clone(),
        };
        let answer: PodSandboxStatusResponse =
            call::unary(guest, SOCKET, "PodSandboxStatus", &request)?;
        let network = answer.status.and_then(|status| status.network);
        let text = network.context("it has no network")?.ip;
        text.parse()
            .with_context(|| format!("its address is {text:?}"))
    }
}

fn launch(guest: &Guest) -> Result<Process> {
    let write = |path: &str, text: &str| {
        let path = Path::new(FOLDER).join(path);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    fs::create_dir_all(format!("{FOLDER}/net.d")).context("make a folder for the runtime")?;
    write("config.toml", &configuration())?;
    write("net.d/10-ptp.conflist", &network())?;
    let mut command = Command::new("containerd");
    command.args(["--config", &format!("{FOLDER}/config.toml")]);
    let process = guest.start("containerd", &mut command)?;
    eventually(START_LIMIT, "containerd answers", || {
        let _: Empty = call::unary(guest, SOCKET, "Version", &Empty {})?;
        Ok(())
    })?;
    Ok(process)
}

fn configuration() -> String {
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    let image = image::NAME;
    format!(
        r#"version = 2
root = "{FOLDER}/root"
state = "{FOLDER}/state"
disabled_plugins = [
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{SOCKET}"
[{cri}]
sandbox_image = "{image}"
restrict_oom_score_adj = true
[{cri}.cni]
bin_dir = "/opt/cni/bin"
conf_dir = "{FOLDER}/net.d"
[{cri}.containerd]
snapshotter = "native"
default_runtime_name = "runc"
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
NoPivotRoot = true
SystemdCgroup = false
"#
    )
}

/// A pair of interfaces for each pod, with an address of a pool.
fn network() -> String {
    format!(
        r#"{{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{{
    "type": "ptp",
    "ipam": {{
      "type": "host-local",
      "dataDir": "{FOLDER}/addresses",
      "ranges": [[{{"subnet": "{NETWORK}", "gateway": "{GATEWAY}"}}]],
      "routes": [{{"dst": "0.0.0.0/0"}}]
    }}
  }}]
}}"#
    )
}
