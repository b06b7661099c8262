//! `[node]`

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::PodLabels;
use crate::config::{Allowed, Key};

const SECOND: Duration = Duration::from_secs(1);

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Who is asked for the names of pods and containers.
    pub names: Ask,
    /// Labels of pods that go along with their names.
    pub pod_labels: PodLabels,
    /// Socket of the container runtime; empty for the usual places.
    pub cri_socket: PathBuf,
    /// Where the kubelet listens; empty for not at all.
    pub kubelet_url: String,
    /// File of the bearer token that the kubelet is shown; empty for none.
    pub kubelet_token_file: PathBuf,
    /// File of the certificates that vouch for the kubelet's.
    pub kubelet_ca_file: PathBuf,
    /// Name in the kubelet's certificate; empty for the host of the URL.
    pub kubelet_server_name: String,
    /// File of the certificate that the kubelet is shown; empty for none.
    pub kubelet_cert_file: PathBuf,
    /// File of the key of that certificate.
    pub kubelet_key_file: PathBuf,
    /// Time between questions while nothing unknown is met.
    #[serde(with = "humantime_serde")]
    pub refresh: Duration,
    /// How long an answer may take.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Pods that are known at the most.
    pub max_pods: usize,
}

/// Who is asked for names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// The runtime where it has a socket, else the kubelet where it is configured.
    #[default]
    Auto,
    /// The runtime alone.
    Cri,
    /// The kubelet alone.
    Kubelet,
    /// Nobody.
    Off,
}

impl Node {
    /// What may stand in `[node]`.
    pub const KEYS: &'static [Key] = &[
        Key {
            name: "names",
            allowed: Allowed::OneOf(&["auto", "cri", "kubelet", "off"]),
            help: "Who is asked for the names of pods and containers. cri: the container runtime, \
                   by its socket. kubelet: GET /pods of the kubelet. auto: the runtime where it \
                   has a socket and answers, else the kubelet where kubelet_url is set. off: \
                   nobody; pods are told by UID and containers by id.",
        },
        Key {
            name: "pod_labels",
            allowed: Allowed::LabelKeys,
            help: "The labels of pods that go along with their names: in the series that name \
                   pods, as label_app_kubernetes_io_name and the like, and in the report as JSON. \
                   One that a pod has not is empty. Other labels are not kept. Empty: none.",
        },
        Key {
            name: "cri_socket",
            allowed: Allowed::Text,
            help: "Socket of the container runtime. Empty: the first that is there of the places \
                   where containerd, k3s, CRI-O and cri-dockerd have theirs, under /host too. \
                   Whoever may use it rules the node, so give a container the socket only if you \
                   would make it root.",
        },
        Key {
            name: "kubelet_url",
            allowed: Allowed::Text,
            help: "Where the kubelet listens, as https://127.0.0.1:10250. Empty: it is not asked.",
        },
        Key {
            name: "kubelet_token_file",
            allowed: Allowed::Text,
            help: "File of the bearer token that the kubelet is shown, of a service account that \
                   may get nodes/pods (before Kubernetes 1.33: nodes/proxy). Read again when it \
                   changes. Empty: none.",
        },
        Key {
            name: "kubelet_ca_file",
            allowed: Allowed::Text,
            help: "File in PEM of the certificates that vouch for the kubelet's. Needed for https.",
        },
        Key {
            name: "kubelet_server_name",
            allowed: Allowed::Text,
            help: "Name or address that the kubelet's certificate has to be for. Empty: the host \
                   of kubelet_url.",
        },
        Key {
            name: "kubelet_cert_file",
            allowed: Allowed::Text,
            help: "File in PEM of the certificate that the kubelet is shown. Empty: none.",
        },
        Key {
            name: "kubelet_key_file",
            allowed: Allowed::Text,
            help: "File in PEM of the key of kubelet_cert_file.",
        },
        Key {
            name: "refresh",
            allowed: Allowed::Time {
                min: SECOND.saturating_mul(5),
                max: SECOND.saturating_mul(3_600),
            },
            help: "Time from one question for all names to the next. A pod or container that is \
                   not known yet is asked for at once, but not more often than every 5 s.",
        },
        Key {
            name: "timeout",
            allowed: Allowed::Time {
                min: SECOND,
                max: SECOND.saturating_mul(60),
            },
            help: "How long the whole answer may take; that of a runtime half of it where the \
                   kubelet may be asked instead. Readings never wait for it.",
        },
        Key {
            name: "max_pods",
            allowed: Allowed::Count {
                min: 10,
                max: 10_000,
            },
            help: "Pods that are known at the most, and twenty times as many containers; each \
                   takes about 1 KiB. What is beyond stays a UID, and the report says so.",
        },
    ];
}

impl Default for Node {
    fn default() -> Self {
        Self {
            names: Ask::default(),
            pod_labels: PodLabels::usual(),
            cri_socket: PathBuf::new(),
            kubelet_url: String::new(),
            kubelet_token_file: PathBuf::new(),
            kubelet_ca_file: PathBuf::new(),
            kubelet_server_name: String::new(),
            kubelet_cert_file: PathBuf::new(),
            kubelet_key_file: PathBuf::new(),
            refresh: SECOND * 60,
            timeout: SECOND * 10,
            max_pods: 1_000,
        }
    }
}
