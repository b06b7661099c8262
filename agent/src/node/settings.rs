//! `[node]`

use std::{path::PathBuf, time::Duration};

use super::PodLabels;
use crate::keys::{HOUR, MINUTE, SECOND, count, settings, time, words};

settings! {
    /// Where the agent looks up the names of pods and containers: docs/operations.md, Names of
    /// pods.
    pub struct Node as "node" {
        /// Select the source of pod and container names. `cri`: the socket of the container
        /// runtime. `kubelet`: GET /pods of the kubelet. `auto`: the runtime where its socket
        /// answers, else the kubelet where kubelet_url is set. `off`: no source; reports show UIDs
        /// of pods and IDs of containers.
        names: Ask = Ask::default();
        /// Copy these pod labels into the series that name pods, as `label_app_kubernetes_io_name`
        /// and the like, and into the JSON report. The agent keeps no other labels. A label that
        /// the pod lacks is empty. Empty list: no labels.
        pod_labels: PodLabels = PodLabels::usual();
        /// Set the socket of the container runtime. Access to the socket is root on the node, so
        /// give it only to a container that may be root. Empty: all sockets found where containerd,
        /// CRI-O, cri-dockerd, k3s, RKE2, k0s, MicroK8s and Canonical Kubernetes have theirs, also
        /// under `/host`. The names are those of the runtime with the node's pods.
        cri_socket: PathBuf = PathBuf::new();
        /// Set the URL of the kubelet, such as `https://127.0.0.1:10250`. Empty: the agent does not
        /// ask the kubelet.
        kubelet_url: String = String::new(), flag "--kubelet-url URL";
        /// Send the bearer token in this file to the kubelet. The agent reads the file again when
        /// it changes. The service account needs `get` on `nodes/pods` (before Kubernetes 1.33:
        /// `nodes/proxy`). Empty: no token.
        kubelet_token_file: PathBuf = PathBuf::new();
        /// Verify the kubelet's certificate with the CA bundle in this PEM file. Required for
        /// https.
        kubelet_ca_file: PathBuf = PathBuf::new();
        /// Expect this name or address in the kubelet's certificate. Empty: the host of
        /// kubelet_url.
        kubelet_server_name: String = String::new();
        /// Present the client certificate in this PEM file to the kubelet. Empty: none.
        kubelet_cert_file: PathBuf = PathBuf::new();
        /// Set the PEM file with the private key of kubelet_cert_file.
        kubelet_key_file: PathBuf = PathBuf::new();
        /// Set the time between two lookups of all names. The agent looks up an unknown pod or
        /// container at once, but at most every 5 s.
        refresh: Duration = MINUTE, in time(Duration::from_secs(5)..=HOUR);
        /// Limit the time for a whole answer. A runtime gets half of the time where the agent can
        /// ask another runtime or the kubelet instead. Readings never wait for an answer.
        timeout: Duration = Duration::from_secs(10), in time(SECOND..=MINUTE);
        /// Limit the pods with known names, and containers to 20 times as many. Each takes about 1
        /// KiB of memory. The agent shows further pods by UID, and the report says so.
        max_pods: usize = 1_000, in count(10..=10_000);
    }
}

words! {
    /// Who is asked for names.
    #[derive(Default)]
    pub enum Ask {
        /// The runtime where it has a socket, else the kubelet where it is configured.
        #[default]
        Auto = "auto",
        /// The runtime alone.
        Cri = "cri",
        /// The kubelet alone.
        Kubelet = "kubelet",
        /// Nobody.
        Off = "off",
    }
}
