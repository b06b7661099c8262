//! Which pods the kubelet has made cgroups for.

use std::{collections::HashSet, path::Path};

use super::Owner;
use crate::kernel::cgroup::{self, Hierarchies};

/// A pod is at most this deep: slice, quality of service, pod, and a root of the kubelet's own.
const DEEPEST: usize = 6;

/// Cgroups that are looked at.
const MOST: usize = 20_000;

/// The UIDs of the pods that have a cgroup; none where the tree cannot be seen. They are the
/// node's own: of a cluster within a pod only the pod.
pub(super) fn pods() -> HashSet<String> {
    match Hierarchies::find() {
        Ok(Hierarchies { v2: Some(root), .. }) => below(&root),
        Ok(Hierarchies { v2: None, .. }) | Err(_) => HashSet::new(),
    }
}

fn below(root: &Path) -> HashSet<String> {
    let mut pods = HashSet::new();
    let mut open = vec![(root.to_owned(), String::new(), 0)];
    let mut seen = 0;
    while let Some((folder, path, depth)) = open.pop() {
        for name in cgroup::children(&folder).unwrap_or_default() {
            seen += 1;
            if seen > MOST {
                return pods;
            }
            let path = format!("{path}/{}", cgroup::shown(&name));
            let owner = Owner::of(&path);
            match owner.pod {
                Some(pod) => {
                    pods.insert(pod.uid);
                }
                None if owner.container.is_none() && depth < DEEPEST => {
                    open.push((folder.join(name), path, depth + 1));
                }
                None => {}
            }
        }
    }
    pods
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_pods_of_the_node_itself_are_found() {
        let root = tempfile::tempdir().unwrap();
        let (outer, inner) = ("1858680e_b044_4fd5_9dd4_f137e30e2180", "2".repeat(32));
        let id = "a".repeat(64);
        for path in [
            format!(
                "kubepods.slice/kubepods-pod{outer}.slice/cri-containerd-{id}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{inner}.slice"
            ),
            format!("docker/{id}/kubepods/pod{inner}"),
            "system.slice/ssh.service".to_owned(),
        ] {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        let found: Vec<_> = below(root.path()).into_iter().collect();
        assert_eq!(found, [outer.replace('_', "-")]);
    }
}
