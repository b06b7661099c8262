//! `[node]`

use std::{path::PathBuf, time::Duration};

use super::PodLabels;
use crate::config::{HOUR, MINUTE, SECOND, count, settings, time, words};

settings! {
    /// Who tells the names of pods and containers: docs/operations.md, Names of pods.
    pub struct Node as "node" {
        /// Who is asked for the names of pods and containers. cri: the container runtime, by its
        /// socket. kubelet: GET /pods of the kubelet. auto: the runtime where it has a socket and
        /// answers, else the kubelet where kubelet_url is set. off: nobody; pods are told by UID
        /// and containers by id.
        names: Ask = Ask::default();
        /// The labels of pods that go along with their names: in the series that name pods, as
        /// label_app_kubernetes_io_name and the like, and in the report as JSON. One that a pod has
        /// not is empty. Other labels are not kept. Empty: none.
        pod_labels: PodLabels = PodLabels::usual();
        /// Socket of the container runtime. Empty: the first that is there of the places where
        /// containerd, k3s, CRI-O and cri-dockerd have theirs, under /host too. Whoever may use it
        /// rules the node, so give a container the socket only if you would make it root.
        cri_socket: PathBuf = PathBuf::new();
        /// Where the kubelet listens, as https://127.0.0.1:10250. Empty: it is not asked.
        kubelet_url: String = String::new();
        /// File of the bearer token that the kubelet is shown, of a service account that may get
        /// nodes/pods (before Kubernetes 1.33: nodes/proxy). Read again when it changes. Empty:
        /// none.
        kubelet_token_file: PathBuf = PathBuf::new();
        /// File in PEM of the certificates that vouch for the kubelet's. Needed for https.
        kubelet_ca_file: PathBuf = PathBuf::new();
        /// Name or address that the kubelet's certificate has to be for. Empty: the host of
        /// kubelet_url.
        kubelet_server_name: String = String::new();
        /// File in PEM of the certificate that the kubelet is shown. Empty: none.
        kubelet_cert_file: PathBuf = PathBuf::new();
        /// File in PEM of the key of kubelet_cert_file.
        kubelet_key_file: PathBuf = PathBuf::new();
        /// Time from one question for all names to the next. A pod or container that is not known
        /// yet is asked for at once, but not more often than every 5 s.
        refresh: Duration = MINUTE, in time(Duration::from_secs(5)..=HOUR);
        /// How long the whole answer may take; that of a runtime half of it where the kubelet may
        /// be asked instead. Readings never wait for it.
        timeout: Duration = Duration::from_secs(10), in time(SECOND..=MINUTE);
        /// Pods that are known at the most, and twenty times as many containers; each takes about 1
        /// KiB. What is beyond stays a UID, and the report says so.
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
