//! Who may have written a sysctl. The kernel does not tell; programs that are known to write
//! sysctls, and files that set them, do.

use std::{fs, path::Path};

use crate::kernel::mounts::{NODE_ROOT, sees_nodes_root};

/// Programs, as `/proc/PID/comm` has them, and the beginnings of the keys that they write when they
/// start, or again and again.
const WRITERS: [(&str, &[&str]); 14] = [
    // pkg/proxy/ipvs/proxier.go and cmd/kube-proxy/app/conntrack.go of Kubernetes
    (
        "kube-proxy",
        &["net.ipv4.vs.", "net.netfilter.nf_conntrack_"],
    ),
    ("kube-router", &["net.ipv4.vs."]),
    ("keepalived", &["net.ipv4.vs."]),
    ("cilium-agent", &["net."]),
    ("calico-node", &["net."]),
    // pkg/koordlet/qosmanager/plugins/sysreconcile of Koordinator: again and again
    (
        "koordlet",
        &["vm.watermark_scale_factor", "vm.min_free_kbytes"],
    ),
    ("katalyst-agent", &["vm.", "net.ipv4.tcp_mem"]),
    // TuneD, alone and of OpenShift's Node Tuning Operator; a name has 15 bytes
    ("tuned", &[""]),
    ("openshift-tuned", &[""]),
    ("cluster-node-tu", &[""]),
    // Tunes the network's buffers and tables while it runs
    ("bpftune", &["net."]),
    // pkg/kubelet/cm/container_manager_linux.go, with protectKernelDefaults off
    (
        "kubelet",
        &[
            "vm.overcommit_memory",
            "vm.panic_on_oom",
            "kernel.panic",
            "kernel.keys.root_max",
        ],
    ),
    ("sysctl", &[""]),
    ("systemd-sysctl", &[""]),
];

/// Where files for `sysctl --system` and systemd-sysctl are (sysctl.d(5)).
const FOLDERS: [&str; 4] = [
    "etc/sysctl.d",
    "run/sysctl.d",
    "usr/local/lib/sysctl.d",
    "usr/lib/sysctl.d",
];
const FILE: &str = "etc/sysctl.conf";

/// Those that are on this node, as sentences. What cannot be read names nobody.
pub(super) fn likely_writers(key: &str) -> Vec<String> {
    let mut found = writers_below(Path::new("/"), key);
    if sees_nodes_root() != Some(true) {
        found.extend(files(Path::new(NODE_ROOT), key));
    }
    found
}

fn writers_below(root: &Path, key: &str) -> Vec<String> {
    let mut likely_writers = programs(root, key);
    likely_writers.extend(files(root, key));
    likely_writers
}

fn programs(root: &Path, key: &str) -> Vec<String> {
    let writes = |comm: &str| {
        let mut known = WRITERS.iter();
        known.any(|(name, keys)| *name == comm && keys.iter().any(|start| key.starts_with(start)))
    };
    let processes = fs::read_dir(root.join("proc"))
        .into_iter()
        .flatten()
        .flatten();
    let found = processes.filter_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let comm = fs::read_to_string(process.path().join("comm")).ok()?;
        let comm = comm.trim();
        writes(comm).then(|| format!("{comm} runs (process {pid}), and writes such keys"))
    });
    let mut found: Vec<_> = found.collect();
    found.sort();
    found
}

fn files(root: &Path, key: &str) -> Vec<String> {
    let folders = FOLDERS.iter().flat_map(|folder| {
        let entries = fs::read_dir(root.join(folder))
            .into_iter()
            .flatten()
            .flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    });
    let paths = folders.filter(|path| path.extension().is_some_and(|it| it == "conf"));
    let paths = paths.chain([root.join(FILE)]);
    let found = paths.filter_map(|path| {
        let text = fs::read_to_string(&path).ok()?;
        let value = setting(&text, key)?;
        Some(format!("{} sets it to {value}", path.display()))
    });
    found.collect()
}

/// What such a file sets a key to: the last line wins. Slashes may stand for dots, and a minus
/// before a key has errors ignored.
fn setting<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let mut settings = text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        let name = name.trim().trim_start_matches('-').replace('/', ".");
        (name == key).then(|| value.trim())
    });
    settings.next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "net.ipv4.vs.run_estimation";

    #[test]
    fn the_last_line_of_a_key_wins() {
        let text = "# net.ipv4.vs.run_estimation = 7\nnet.ipv4.vs.run_estimation = 0\n\
                    vm.swappiness = 3\n-net/ipv4/vs/run_estimation=1\n";
        assert_eq!(setting(text, KEY), Some("1"));
        assert_eq!(setting(text, "net.ipv4.vs.conntrack"), None);
        assert_eq!(setting("nonsense\n=\n", KEY), None);
    }

    #[test]
    fn programs_and_files_of_the_node_are_named() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert!(writers_below(root.path(), KEY).is_empty());
        put("proc/812/comm", "kube-proxy\n");
        put("proc/813/comm", "dockerd\n");
        put("proc/uptime", "1 1\n");
        put("etc/sysctl.d/99-k8s.conf", "net.ipv4.vs.run_estimation=1\n");
        put("etc/sysctl.d/README", "net.ipv4.vs.run_estimation=2\n");
        let found = writers_below(root.path(), KEY);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            found[0].starts_with("kube-proxy runs (process 812)"),
            "{found:?}"
        );
        assert!(found[1].ends_with("99-k8s.conf sets it to 1"), "{found:?}");
        let others = writers_below(root.path(), "vm.swappiness");
        assert!(others.is_empty(), "{others:?}");
    }
}
