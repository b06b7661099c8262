//! Whose a cgroup is, by its path alone.
//!
//! | Made by | Path |
//! |---|---|
//! | kubelet, driver cgroupfs | `/kubepods/burstable/pod<uid>/<id>` (pkg/kubelet/cm/cgroup_manager_linux.go, `ToCgroupfs`) |
//! | kubelet, driver systemd | `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/…`, the dashes of the UID as underscores (same file, `ToSystemd`) |
//! | kubelet with a root of its own | the same below `/kubelet.slice/kubelet-kubepods.slice/kubelet-…` |
//! | containerd's CRI | `cri-containerd-<id>.scope`; `<slice>:cri-containerd:<id>` where kubelet uses systemd and it does not |
//! | CRI-O | `crio-<id>.scope`, with systemd in the container also `…/container`; `crio-<id>` with cgroupfs |
//! | Docker | `/system.slice/docker-<id>.scope`, `/docker/<id>` |
//! | Podman | `libpod-<id>.scope` in a slice of the machine or of a user |
//! | systemd | units and slices |
//!
//! `crio-conmon-<id>` and `libpod-conmon-<id>` are of a container's monitor, which runs on
//! the host: they belong to the pod and are no container.

use std::fmt;

/// Whose a cgroup is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The pod of Kubernetes.
    pub pod: Option<Pod>,
    /// The container.
    pub container: Option<Container>,
    /// The unit of systemd that holds it, the nearest upwards: `ssh.service`. For a
    /// container that is the scope of the container itself.
    pub unit: Option<String>,
}

/// A pod of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its UID; of a static pod the hash of its manifest, which has no dashes.
    pub uid: String,
    /// What it was promised; not known where the path does not hold it.
    pub qos: Option<Qos>,
}

/// Quality of service of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    /// All limits are requests.
    Guaranteed,
    /// Some requests.
    Burstable,
    /// None.
    BestEffort,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// What runs it, where the path tells.
    pub runtime: Option<Runtime>,
}

/// What runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// containerd, through CRI.
    Containerd,
    /// CRI-O.
    Crio,
    /// Docker.
    Docker,
    /// Podman.
    Podman,
}

impl Owner {
    /// Reads a path below the root of a tree of cgroups, of either version.
    pub fn of(path: &str) -> Self {
        let mut owner = Self::default();
        let mut kubepods = false;
        for part in path.split('/').filter(|part| !part.is_empty()) {
            // containerd without systemd under a kubelet with it.
            let mut pieces = part.splitn(3, ':');
            let (slice, runtime, id) = (pieces.next(), pieces.next(), pieces.next());
            let slice = slice.unwrap_or(part);
            kubepods |= is_kubepods(slice);
            if kubepods && let Some(pod) = Pod::of(slice, path) {
                owner.pod = Some(pod);
            }
            let container = match (runtime, id) {
                (Some(runtime), Some(id)) => Container::of(&format!("{runtime}-{id}")),
                _ => Container::of(part),
            };
            if container.is_some() {
                owner.container = container;
            }
            if is_unit(part) {
                owner.unit = Some(part.to_owned());
            }
        }
        // Docker's own parent says what its children do not.
        if let Some(container) = &mut owner.container
            && container.runtime.is_none()
            && path.starts_with("/docker/")
        {
            container.runtime = Some(Runtime::Docker);
        }
        owner
    }
}

impl Pod {
    fn of(part: &str, path: &str) -> Option<Self> {
        let name = part.strip_suffix(".slice").unwrap_or(part);
        // `kubepods-burstable-pod<uid>` or `pod<uid>`: the UID's dashes are underscores
        // in the first, so what follows the last dash before `pod` is whole.
        let uid = match name.rsplit_once("-pod") {
            Some((_, uid)) => uid.replace('_', "-"),
            None => name.strip_prefix("pod")?.to_owned(),
        };
        let digits = uid.chars().filter(|c| *c != '-');
        let is_uid = uid.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        (is_uid && digits.count() == 32).then(|| Self {
            qos: Qos::of(path),
            uid,
        })
    }
}

impl Qos {
    /// A pod right below `kubepods` is guaranteed.
    fn of(path: &str) -> Option<Self> {
        if path.contains("burstable") {
            Some(Self::Burstable)
        } else if path.contains("besteffort") {
            Some(Self::BestEffort)
        } else if path.contains("kubepods") {
            Some(Self::Guaranteed)
        } else {
            None
        }
    }

    /// As Kubernetes has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

impl Container {
    fn of(part: &str) -> Option<Self> {
        const PREFIXES: [(&str, Runtime); 4] = [
            ("cri-containerd-", Runtime::Containerd),
            ("crio-", Runtime::Crio),
            ("docker-", Runtime::Docker),
            ("libpod-", Runtime::Podman),
        ];
        let name = part.strip_suffix(".scope").unwrap_or(part);
        let named = PREFIXES
            .into_iter()
            .find_map(|(prefix, runtime)| Some((name.strip_prefix(prefix)?, Some(runtime))));
        let (id, runtime) = named.unwrap_or((name, None));
        let is_id = id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit());
        is_id.then(|| Self {
            id: id.to_owned(),
            runtime,
        })
    }

    /// As command lines show it.
    pub fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

impl Runtime {
    /// What it calls itself.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// For a sentence: what an operator looks up; nothing for a cgroup that is of nobody
/// known.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.container, &self.pod, &self.unit) {
            (Some(container), Some(pod), _) => {
                write!(f, "container {} of pod {}", container.short_id(), pod.uid)
            }
            (Some(container), None, _) => match container.runtime {
                Some(runtime) => {
                    write!(f, "{} container {}", runtime.name(), container.short_id())
                }
                None => write!(f, "container {}", container.short_id()),
            },
            (None, Some(pod), _) => write!(f, "pod {}", pod.uid),
            (None, None, Some(unit)) => f.write_str(unit),
            (None, None, None) => Ok(()),
        }
    }
}

/// The root of kubelet's pods: `kubepods`, `kubepods.slice`, `kubelet-kubepods.slice`, and
/// what systemd makes of it in the names below.
fn is_kubepods(part: &str) -> bool {
    part.split(['-', '.']).any(|word| word == "kubepods")
}

/// Only these hold processes, or others that do.
fn is_unit(part: &str) -> bool {
    [".service", ".scope", ".slice", ".socket", ".mount", ".swap"]
        .into_iter()
        .any(|kind| part.len() > kind.len() && part.ends_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "1858680e-b044-4fd5-9dd4-f137e30e2180";
    const UNDERSCORES: &str = "1858680e_b044_4fd5_9dd4_f137e30e2180";
    const STATIC: &str = "99dcb84d2a34f7e338778606703258c4";

    /// The path with the id and the UID put in.
    fn owner(path: &str) -> Owner {
        let path = path.replace("<id>", ID).replace("<uid>", UID);
        Owner::of(
            &path
                .replace("<u_uid>", UNDERSCORES)
                .replace("<static>", STATIC),
        )
    }

    /// What every runtime and driver makes, from their sources.
    #[test]
    fn pods_and_containers_are_known_under_every_driver_and_runtime() {
        let shapes = include_str!("owner/shapes.txt").lines();
        let shapes = shapes.filter(|line| line.starts_with('/'));
        let mut tried = 0;
        for shape in shapes {
            let words: Vec<_> = shape.split_whitespace().collect();
            let [path, pod, qos, container, runtime] = words[..] else {
                panic!("{shape}: these are not five words")
            };
            let owner = owner(path);
            let uid = match pod {
                "uid" => Some(UID),
                "static" => Some(STATIC),
                _ => None,
            };
            let known = owner.pod.as_ref();
            assert_eq!(known.map(|pod| pod.uid.as_str()), uid, "{shape}");
            let promised = known.and_then(|pod| pod.qos).map_or("-", Qos::name);
            assert_eq!(promised, qos, "{shape}");
            let id = match container {
                "id" => Some(ID),
                other => other.strip_prefix("id:"),
            };
            let known = owner.container.as_ref();
            assert_eq!(known.map(|it| it.id.as_str()), id, "{shape}");
            let runs = known.and_then(|it| it.runtime).map_or("-", Runtime::name);
            assert_eq!(runs, runtime, "{shape}");
            tried += 1;
        }
        assert!(tried > 20, "{tried} shapes");
    }

    #[test]
    fn a_unit_of_systemd_is_known_by_the_nearest_upwards() {
        for (path, unit) in [
            ("/system.slice/ssh.service", "ssh.service"),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                "getty@tty1.service",
            ),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                "session-3.scope",
            ),
            ("/init.scope", "init.scope"),
            ("/system.slice/ssh.service/below", "ssh.service"),
            (
                "/machine.slice/libpod-conmon-<id>.scope",
                "libpod-conmon-<id>.scope",
            ),
        ] {
            let owner = owner(path);
            let unit = unit.replace("<id>", ID);
            assert_eq!(owner.unit.as_deref(), Some(unit.as_str()), "{path}");
            assert_eq!((owner.pod, owner.container), (None, None), "{path}");
        }
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        let short = &ID[..12];
        for path in [
            String::new(),
            "/".to_owned(),
            "//".to_owned(),
            "/podcast".to_owned(),
            "/kubepods/podcast".to_owned(),
            format!("/pod{UID}"),
            format!("/docker/{short}"),
            format!("/crio-{short}.scope:"),
            ":::".to_owned(),
            "/\u{fffd}/é-pod/.service".to_owned(),
        ] {
            let owner = Owner::of(&path);
            assert_eq!((owner.pod, owner.container), (None, None), "{path}");
        }
        assert_eq!(Owner::of("/.service").unit, None);
    }

    #[test]
    fn an_owner_is_called_what_an_operator_looks_up() {
        for (path, called) in [
            (
                "/kubepods/pod<uid>/<id>",
                format!("container 0123456789ab of pod {UID}"),
            ),
            ("/kubepods/pod<uid>", format!("pod {UID}")),
            ("/docker/<id>", "docker container 0123456789ab".to_owned()),
            ("/system.slice/ssh.service", "ssh.service".to_owned()),
            ("/mine", String::new()),
        ] {
            assert_eq!(owner(path).to_string(), called);
        }
    }
}
