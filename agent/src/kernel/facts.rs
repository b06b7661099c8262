//! What the running kernel is and has: facts only, no decisions.
//!
//! Facts are plain data. They can be saved on one machine and replayed on
//! another, and what an ailment makes of them is a pure function.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::cgroup::Hierarchies;

/// Something that was looked up. "Could not find out" is not "no".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact<T> {
    /// It was found out.
    Known(T),
    /// It could not be found out, for this reason.
    Unknown(String),
}

impl<T> Fact<T> {
    /// The value, where it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

impl<T, E: std::fmt::Display> From<Result<T, E>> for Fact<T> {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(value) => Self::Known(value),
            Err(error) => Self::Unknown(format!("{error:#}")),
        }
    }
}

/// Everything that decides what can be measured on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelFacts {
    /// `uname -r`. For people: nothing is decided by it.
    pub release: String,
    /// `uname -m`.
    pub machine: String,
    /// Of `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Fact<String>,
    /// CPUs that could be there: the size of every per-CPU structure.
    pub possible_cpus: Fact<u32>,
    /// CPUs that are.
    pub online_cpus: Fact<u32>,
    /// Jiffies a second (`CONFIG_HZ`).
    pub hz: Fact<u32>,
    /// The mode in force of `/sys/kernel/security/lockdown`.
    pub lockdown: Fact<String>,
    /// Whether this process is in the first user namespace. The kernel takes BPF programs from
    /// that one only.
    #[serde(default = "never_asked")]
    pub first_user_namespace: Fact<bool>,
    /// Whether a seccomp filter may keep system calls from this process.
    #[serde(default = "never_asked")]
    pub seccomp_filter: Fact<bool>,
    /// Whether switches of the kernel's build are set, by their names without `CONFIG_`. Looked
    /// for only where something is missing.
    #[serde(default = "never_asked")]
    pub config: Fact<BTreeMap<String, bool>>,
    /// Capabilities of this process that matter, by name: `CAP_BPF` and the like.
    pub capabilities: Fact<BTreeMap<String, bool>>,
    /// Whether pressure stall information is there and switched on.
    pub psi: Fact<bool>,
    /// Which trees of cgroups are mounted.
    #[serde(default = "never_asked")]
    pub cgroups: Fact<Hierarchies>,
    /// Whether bpffs is mounted at its usual place.
    pub bpffs: Fact<bool>,
    /// Whether tracefs is mounted at one of its usual places.
    pub tracefs: Fact<bool>,
    /// Whether kprobes can be placed through perf events.
    pub kprobes: Fact<bool>,
    /// `kernel.perf_event_paranoid`. Up to 2 in mainline; distributions' kernels take 3
    /// and above as: only for CAP_SYS_ADMIN.
    pub perf_event_paranoid: Fact<i32>,
    /// Whether `/sys/kernel/btf/vmlinux` can be read and parsed.
    pub btf: Fact<bool>,
    /// Whether the kernel takes BPF programs of a type from this process.
    pub program_types: BTreeMap<ProgramType, Fact<bool>>,
    /// By what programs can read memory where the kernel refuses them its helpers. Looked for
    /// only where the kernel may be locked down.
    #[serde(default = "never_asked")]
    pub typed_reads: Fact<TypedReads>,
    /// Whether each program on a module's functions holds the module (`bpf_prog_aux.mod`,
    /// include/linux/bpf.h, since Linux 6.3), and not each function that has programs.
    #[serde(default = "never_asked")]
    pub programs_hold_modules: Fact<bool>,
    /// With which error the kernel refuses programs of a type, where it does.
    #[serde(default)]
    pub refusals: BTreeMap<ProgramType, String>,
    /// The modules that were asked for.
    pub modules: BTreeMap<String, Module>,
    /// The functions that were asked for.
    pub functions: BTreeMap<String, FunctionFacts>,
    /// The members that were asked for, by path. `Unknown` says which part is missing.
    pub members: BTreeMap<String, Fact<Member>>,
    /// The sysctls that were asked for; `None` where the kernel has no such key.
    pub sysctls: BTreeMap<String, Fact<Option<String>>>,
}

/// Of what a recording from before does not hold.
fn never_asked<T>() -> Fact<T> {
    Fact::Unknown("it was not asked for when these facts were recorded".to_owned())
}

impl KernelFacts {
    /// Whether all is there that does not depend on one ailment.
    pub fn are_complete(&self) -> bool {
        let yes = |fact: &Fact<bool>| *fact == Fact::Known(true);
        [&self.psi, &self.kprobes, &self.btf].into_iter().all(yes)
            && self.program_types.values().all(yes)
            && self
                .modules
                .values()
                .all(|module| module.state == ModuleState::Absent || yes(&module.btf))
    }

    /// Whether a module's code is there and somebody uses it: a module that is loaded
    /// and that nobody refers to has nothing to do.
    pub fn is_used(&self, module: &str) -> bool {
        match self.modules.get(module) {
            None => false,
            Some(module) => match module.state {
                ModuleState::Absent => false,
                ModuleState::Loaded => module.users != Some(0),
                ModuleState::BuiltIn => true,
            },
        }
    }
}

/// Types of BPF program whose acceptance differs by kernel and lockdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramType {
    /// kprobe and kretprobe.
    Kprobe,
    /// fentry, fexit and BTF tracepoints.
    Tracing,
    /// Classic tracepoints.
    Tracepoint,
    /// Raw tracepoints.
    RawTracepoint,
}

/// What gives a type to an address, so that programs can read from it by loads alone. All ids are
/// of vmlinux's BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypedReads {
    /// Id of the kernel function `bpf_rdonly_cast` (kernel/bpf/helpers.c, since Linux 6.2).
    pub cast: u32,
    /// Id of a structure that begins with an array of integers. The verifier allows loads of any
    /// size anywhere in such an array (kernel/bpf/btf.c, `btf_struct_walk`).
    pub structure: u32,
    /// Bytes of that array.
    pub bytes: u32,
}

/// A module, loaded or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Where its code is.
    pub state: ModuleState,
    /// How many others use it, where it is loaded.
    pub users: Option<u32>,
    /// Whether it has BTF of its own (vmlinux's where it is built in).
    pub btf: Fact<bool>,
}

/// Where a module's code is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModuleState {
    /// Part of the kernel image.
    BuiltIn,
    /// Loaded.
    Loaded,
    /// Not loaded now.
    Absent,
}

/// What the symbol table has of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Symbol {
    /// No such symbol: inlined everywhere, or not in this kernel.
    Absent,
    /// All callers come through its entry.
    Whole,
    /// The compiler has inlined its beginning into some callers, which jump into the
    /// rest (`.part.0`), or has made a copy for some (`.constprop.0`): no probe on its entry
    /// sees them.
    Split,
    /// All callers come through the entry of the symbol of this name.
    Renamed(String),
}

/// What is known of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionFacts {
    /// What the kernel's symbol table has of it.
    pub symbol: Fact<Symbol>,
    /// Its type in BTF, which is what fentry and fexit need.
    pub btf: Fact<BtfFunction>,
}

impl FunctionFacts {
    /// Whether the kernel has the function, if that is known.
    pub fn exists(&self) -> Option<bool> {
        match (self.symbol.known(), self.btf.known()) {
            (Some(symbol), _) => Some(*symbol != Symbol::Absent),
            (None, Some(_)) => Some(true),
            (None, None) => None,
        }
    }
}

/// A function's type: where to find it, and in which BTF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BtfFunction {
    /// `vmlinux` or the module's name.
    pub object: String,
    /// Id of the type in that BTF.
    pub type_id: u32,
}

impl BtfFunction {
    /// Whether its type is in the BTF of a module, not of the kernel image.
    pub fn is_of_module(&self) -> bool {
        self.object != VMLINUX
    }
}

/// Name of the kernel image's own BTF.
pub const VMLINUX: &str = "vmlinux";

/// A member of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Bytes from the structure's begin.
    pub offset: u32,
    /// Bytes; of the whole array for an array.
    pub size: u32,
}
