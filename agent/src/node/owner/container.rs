//! Containers and virtual machines, by the part of a path that names them.
//!
//! | Made by | Part |
//! |---|---|
//! | containerd's CRI | `cri-containerd-<id>.scope`; `<slice>:cri-containerd:<id>` where kubelet uses systemd and it does not |
//! | CRI-O | `crio-<id>.scope`, with systemd in the container also `…/container`; `crio-<id>` with cgroupfs |
//! | Docker | `/system.slice/docker-<id>.scope`, `/docker/<id>`, `/ecs/<task>/<id>` for Amazon ECS |
//! | Podman | `libpod-<id>.scope` in a slice of the machine or of a user; `<unit>.service/libpod-payload-<id>` with `--cgroups=split`, as Quadlet has it |
//! | nerdctl | `nerdctl-<id>.scope`, `/<namespace>/<id>` |
//! | Kata | `kata_<id>` below the pod, the rest of the hypervisor below `/kata_overhead` |
//! | LXC, Incus, LXD | `/lxc.payload.<name>`; `/lxc.payload/<name>`, `/lxc/<name>` before LXC 4, and of Proxmox |
//! | systemd-nspawn | `systemd-nspawn@<name>.service`, `/machine.slice/machine-<name>.scope` |
//! | libvirt | `/machine.slice/machine-qemu\x2d<number>\x2d<name>.scope`, the same with `lxc` |
//! | Proxmox | `/qemu.slice/<number>.scope` |
//! | Nomad | `/nomad.slice/share.slice/<allocation>.<task>.scope`, `/nomad/<allocation>.<task>` |
//! | Garden, Mesos, BuildKit | `/garden/<handle>`, `/mesos/<id>`, `…/buildkit/<id>` |
//!
//! `crio-conmon-<id>` and `libpod-conmon-<id>` are of a container's monitor, which runs on
//! the host, as `/lxc.monitor.<name>`: they are no container.

use std::fmt;

use crate::kernel::cgroup;

/// A container, or a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id, mostly 64 hexadecimal digits, or its name where that is all there is.
    pub id: String,
    /// What runs it, where the path tells.
    pub runtime: Option<Runtime>,
}

/// What runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// containerd, through CRI or its own client.
    Containerd,
    /// CRI-O.
    Crio,
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// nerdctl, by containerd.
    Nerdctl,
    /// Kata Containers, which has a virtual machine for each pod.
    Kata,
    /// LXC, and what is made of it: Incus, LXD, Proxmox, libvirt.
    Lxc,
    /// systemd-nspawn.
    Nspawn,
    /// A virtual machine of QEMU.
    Qemu,
    /// Nomad, without another's help.
    Nomad,
    /// Garden of Cloud Foundry.
    Garden,
    /// Mesos.
    Mesos,
    /// A step of a build.
    Buildkit,
}

impl Container {
    /// Of a part of a path, below others.
    pub(super) fn of(above: &[&str], part: &str) -> Option<Self> {
        let name = part.strip_suffix(".scope").unwrap_or(part);
        let (parent, before) = match above {
            [.., before, parent] => (*parent, *before),
            [parent] => (*parent, ""),
            [] => ("", ""),
        };
        let prefixed = PREFIXES
            .into_iter()
            .find_map(|(prefix, runtime)| Some((name.strip_prefix(prefix)?, runtime)));
        match prefixed {
            Some((id, runtime)) => is_id(id).then(|| Self::new(id, Some(runtime))),
            None if is_id(name) => Some(Self::new(name, of_parents(above, parent, before))),
            None => named(parent, before, part, name),
        }
    }

    fn new(id: &str, runtime: Option<Runtime>) -> Self {
        Self {
            id: id.to_owned(),
            runtime,
        }
    }

    /// As command lines show it: an id is cut, a name is not.
    pub fn short_id(&self) -> &str {
        match is_id(&self.id) {
            true => self.id.get(..12).unwrap_or(&self.id),
            false => &self.id,
        }
    }
}

/// What precedes an id, the longer of two first.
const PREFIXES: [(&str, Runtime); 7] = [
    ("cri-containerd-", Runtime::Containerd),
    ("crio-", Runtime::Crio),
    ("docker-", Runtime::Docker),
    ("libpod-payload-", Runtime::Podman),
    ("libpod-", Runtime::Podman),
    ("nerdctl-", Runtime::Nerdctl),
    ("kata_", Runtime::Kata),
];

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What the parts above say of an id that stands alone.
fn of_parents(above: &[&str], parent: &str, before: &str) -> Option<Runtime> {
    match (before, parent) {
        (_, "docker") | ("ecs", _) => Some(Runtime::Docker),
        // Before systemd had scopes for them.
        _ if above.contains(&"docker.service") => Some(Runtime::Docker),
        // The path that the orchestrator has chosen follows.
        _ if above.first() == Some(&"kata_overhead") => Some(Runtime::Kata),
        // The namespace of nerdctl's containers (containerd, namespaces/context.go).
        ("", "default") => Some(Runtime::Containerd),
        _ => None,
    }
}

/// One that has a name, or an id of its own form.
fn named(parent: &str, before: &str, part: &str, name: &str) -> Option<Container> {
    let of = |runtime, id: &str| is_name(id).then(|| Container::new(id, Some(runtime)));
    if let Some(name) = name.strip_prefix("lxc.payload.") {
        return of(Runtime::Lxc, name);
    }
    if let Some(instance) = part.strip_prefix("systemd-nspawn@") {
        let name = unescape(instance.strip_suffix(".service")?);
        return of(Runtime::Nspawn, &name);
    }
    match parent {
        "lxc" | "lxc.payload" => of(Runtime::Lxc, part),
        "garden" => of(Runtime::Garden, part),
        "mesos" => of(Runtime::Mesos, part),
        "nomad" => of(Runtime::Nomad, part),
        "buildkit" => of(Runtime::Buildkit, part),
        "qemu.slice" if name != part => of(Runtime::Qemu, name),
        "machine.slice" if name != part => {
            let machine = unescape(name.strip_prefix("machine-")?);
            let numbered = |kind: &str| {
                let (number, name) = machine.strip_prefix(kind)?.split_once('-')?;
                number.parse::<u32>().ok().map(|_| name)
            };
            match (numbered("qemu-"), numbered("lxc-")) {
                (Some(name), _) => of(Runtime::Qemu, name),
                (_, Some(name)) => of(Runtime::Lxc, name),
                (None, None) => of(Runtime::Nspawn, &machine),
            }
        }
        _ if before == "nomad.slice" && name != part => of(Runtime::Nomad, name),
        // Fargate: the task and a number.
        _ if before == "ecs" => {
            let number = part.strip_prefix(parent)?.strip_prefix('-')?;
            number.parse::<u64>().ok()?;
            of(Runtime::Containerd, part)
        }
        _ => None,
    }
}

fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// What systemd has written as `\x2d` (systemd.unit(5), String Escaping). What is no UTF-8 then
/// stays as it is.
fn unescape(text: &str) -> String {
    String::from_utf8(cgroup::unescape(text)).unwrap_or_else(|_| text.to_owned())
}

impl Runtime {
    /// What it calls itself.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Crio => "cri-o",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Nerdctl => "nerdctl",
            Self::Kata => "kata",
            Self::Lxc => "lxc",
            Self::Nspawn => "systemd-nspawn",
            Self::Qemu => "qemu",
            Self::Nomad => "nomad",
            Self::Garden => "garden",
            Self::Mesos => "mesos",
            Self::Buildkit => "buildkit",
        }
    }
}

/// For a sentence.
impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.short_id();
        match self.runtime {
            Some(Runtime::Qemu) => write!(f, "VM {id}"),
            Some(runtime) => write!(f, "{} container {id}", runtime.name()),
            None => write!(f, "container {id}"),
        }
    }
}
