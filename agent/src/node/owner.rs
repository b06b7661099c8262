//! Whose a cgroup is, by its path alone.
//!
//! | Made by | Path |
//! |---|---|
//! | kubelet, driver cgroupfs | `/kubepods/burstable/pod<uid>/<id>` (pkg/kubelet/cm/cgroup_manager_linux.go, `ToCgroupfs`) |
//! | kubelet, driver systemd | `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/…`, the dashes of the UID as underscores (same file, `ToSystemd`) |
//! | kubelet with a root of its own | the same below `/kubelet.slice/kubelet-kubepods.slice/kubelet-…` |
//! | containers | owner/container.rs |
//! | systemd | units and slices |
//!
//! What is below a container or a virtual machine is inside of it: another pod, another
//! container, or a unit of a systemd of its own, which the host's does not know. It is kept
//! apart, in [`Owner::inside`]; the owner is who is outermost, whom the node knows.

mod container;

use std::fmt;

pub use self::container::{Container, Runtime};

/// Whose a cgroup is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The pod of Kubernetes.
    pub pod: Option<Pod>,
    /// The container.
    pub container: Option<Container>,
    /// The unit of the host's systemd that holds it, the nearest upwards: `ssh.service`. For a
    /// container that is the scope of the container itself.
    pub unit: Option<String>,
    /// The owner within the container, where that runs pods or containers itself.
    pub inside: Option<Box<Self>>,
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

impl Owner {
    /// Reads a path below the root of a tree of cgroups, of either version.
    pub fn of(path: &str) -> Self {
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut levels = Vec::new();
        let mut rest = &parts[..];
        while !rest.is_empty() {
            let (owner, read) = Self::outermost(rest);
            levels.push(owner);
            rest = &rest[read..];
        }
        let none = Self::default();
        let found = levels.into_iter().filter(|level| *level != none).rev();
        let nested = found.reduce(|inside, owner| Self {
            inside: Some(Box::new(inside)),
            ..owner
        });
        nested.unwrap_or_default()
    }

    /// The owner up to its container, and how many parts tell of it.
    fn outermost(parts: &[&str]) -> (Self, usize) {
        let mut owner = Self::default();
        let mut kubepods = None;
        let mut pod_at = 0;
        for (at, part) in parts.iter().enumerate() {
            // containerd without systemd under a kubelet with it.
            let mut pieces = part.splitn(3, ':');
            let (slice, runtime, id) = (pieces.next(), pieces.next(), pieces.next());
            let slice = slice.unwrap_or(part);
            if is_kubepods(slice) {
                kubepods = Some(at);
            }
            let parent = at.checked_sub(1).map_or("", |above| parts[above]);
            if let Some(pod) = Pod::of(slice, parent, kubepods.is_some()) {
                match (&owner.pod, kubepods) {
                    // One more root of pods, with nothing above it that tells of a container.
                    (Some(_), Some(root)) if root > pod_at => return (owner, root),
                    // A name like that of a pod, in a pod.
                    (Some(_), Some(_)) => {}
                    (Some(_), None) | (None, _) => (owner.pod, pod_at) = (Some(pod), at),
                }
            }
            if is_unit(part) {
                owner.unit = Some((*part).to_owned());
            }
            owner.container = match (runtime, id) {
                (Some(runtime), Some(id)) => Container::of(&[], &format!("{runtime}-{id}")),
                _ => Container::of(&parts[..at], part),
            };
            if owner.container.is_some() {
                return (owner, at + 1);
            }
        }
        (owner, parts.len())
    }

    /// It, and who is within, from the outside in.
    pub fn levels(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |owner| owner.inside.as_deref())
    }

    /// What an operator looks up, without what is inside.
    pub(super) fn outer(&self) -> String {
        match (&self.container, &self.pod, &self.unit) {
            (Some(container), Some(pod), _) => {
                format!("container {} of pod {}", container.short_id(), pod.uid)
            }
            (Some(container), None, _) => container.to_string(),
            (None, Some(pod), _) => format!("pod {}", pod.uid),
            (None, None, Some(unit)) => unit.clone(),
            (None, None, None) => String::new(),
        }
    }
}

impl Pod {
    fn of(part: &str, parent: &str, kubepods: bool) -> Option<Self> {
        let name = part.strip_suffix(".slice").unwrap_or(part);
        // `kubepods-burstable-pod<uid>` or `pod<uid>`: the UID's dashes are underscores
        // in the first, so what follows the last dash before `pod` is whole.
        let (above, uid) = match name.rsplit_once("-pod") {
            Some((above, uid)) => (above, uid.replace('_', "-")),
            None => (parent, name.strip_prefix("pod")?.to_owned()),
        };
        let class = above.rsplit('-').next().unwrap_or(above);
        let qos = Qos::of(class);
        // Before Kubernetes 1.6 nothing but the class was above a pod.
        let is_below = kubepods || (name != part && qos.is_some());
        let digits = uid.chars().filter(|c| *c != '-');
        let is_uid = uid.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
        (is_below && is_uid && digits.count() == 32).then_some(Self { uid, qos })
    }
}

impl Qos {
    /// Of the last word above a pod; one right below `kubepods` is guaranteed.
    fn of(class: &str) -> Option<Self> {
        let class = class.strip_suffix(".slice").unwrap_or(class);
        match class.to_ascii_lowercase().as_str() {
            "burstable" => Some(Self::Burstable),
            "besteffort" => Some(Self::BestEffort),
            "kubepods" => Some(Self::Guaranteed),
            _ => None,
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

/// For a sentence: what an operator looks up; nothing for a cgroup that is of nobody
/// known.
impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let levels: Vec<_> = self.levels().map(Self::outer).collect();
        f.write_str(&levels.join(", in it "))
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

/// For fuzzing: paths of cgroups.
#[cfg(any(test, fuzzing))]
pub(super) const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "owner",
    read: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let owner = Owner::of(&text);
        let _ = (owner.to_string(), owner.levels().count());
    },
    seeds: &[
        b"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1858680e_b044_4fd5_9dd4_f137e30e2180.slice/cri-containerd-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope",
        b"/system.slice/docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope/kubelet.slice/a.service",
        b"/lxc.payload.a/init.scope",
    ],
};

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

    /// Anybody who may make cgroups in a pod may make it.
    #[test]
    fn a_name_like_that_of_a_pod_in_a_pod_is_of_that_pod() {
        let pod = "/kubepods.slice/kubepods-burstable-pod<u_uid>.slice";
        let other = "2858680e_b044_4fd5_9dd4_f137e30e2181";
        for inside in [
            format!("cri-containerd-0kubepods-burstable-pod{other}.slice/a"),
            format!("a-pod{other}.slice/b-pod{other}.slice"),
        ] {
            let owner = owner(&format!("{pod}/{inside}"));
            let uids = owner
                .levels()
                .filter_map(|it| it.pod.as_ref())
                .map(|pod| pod.uid.as_str());
            assert_eq!(uids.collect::<Vec<_>>(), [UID], "{inside}");
        }
    }

    /// What every runtime and driver makes, from their sources.
    #[test]
    fn pods_and_containers_are_known_under_every_driver_and_runtime() {
        let shapes = include_str!("owner/shapes.txt").lines();
        let shapes = shapes.filter(|line| line.starts_with('/'));
        let mut tried = 0;
        for shape in shapes {
            let words: Vec<_> = shape.split_whitespace().collect();
            let [path, pod, qos, container, runtime, inside] = words[..] else {
                panic!("{shape}: these are not six words")
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
            let levels = owner.levels().skip(1).map(Owner::outer);
            let within = levels.collect::<Vec<_>>().join("+").replace(' ', "_");
            let within = within
                .replace(ID.get(..12).unwrap(), "<short>")
                .replace(UID, "<uid>");
            let within = if within.is_empty() {
                "-".to_owned()
            } else {
                within
            };
            assert_eq!(within, inside, "{shape}");
            tried += 1;
        }
        assert!(tried > 50, "{tried} shapes");
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
            "/lxc".to_owned(),
            "/lxc/".to_owned(),
            "/lxc.payload.".to_owned(),
            "/lxc.monitor.web1".to_owned(),
            "/lxc.pivot".to_owned(),
            "/machine.slice".to_owned(),
            "/machine.slice/machine-.scope".to_owned(),
            "/system.slice/systemd-nspawn@.service".to_owned(),
            "/system.slice/docker.service/buildkit".to_owned(),
            "/nomad.slice/share.slice".to_owned(),
            "/qemu.slice".to_owned(),
            format!("/burstable-pod{UNDERSCORES}"),
            format!("/system.slice/sshd-pod{UNDERSCORES}.slice"),
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
            ("/qemu.slice/104.scope", "VM 104".to_owned()),
            (
                "/lxc/104/ns/system.slice/ssh.service",
                "lxc container 104, in it ssh.service".to_owned(),
            ),
            (
                "/kubepods/pod<uid>/<id>/kubelet/kubepods/burstable/pod<static>/<id>",
                format!(
                    "container 0123456789ab of pod {UID}, in it container 0123456789ab of pod {STATIC}"
                ),
            ),
            ("/system.slice/ssh.service", "ssh.service".to_owned()),
            ("/mine", String::new()),
        ] {
            assert_eq!(owner(path).to_string(), called);
        }
    }
}
