//! Which hooks are worth trying on a kernel: a pure function of its facts.

use super::{At, Candidate, Hook, Probe, Program, remedy, remedy::kernel_with};
use crate::{
    kernel::facts::{BtfFunction, Fact, KernelFacts, ModuleState, ProgramType, Symbol, TypedReads},
    model::{Missing, ProbeReport},
};

/// A probe with the candidates that this kernel should take, in order.
#[derive(Clone, Debug)]
pub struct PlannedProbe {
    /// The probe.
    pub probe: &'static Probe,
    /// What to try.
    pub candidates: Vec<PlannedCandidate>,
    /// Why other candidates are not tried, each with its hook.
    pub missing: Vec<(Hook, Missing)>,
    /// The kernel's lockdown, which tells why it refuses a candidate.
    pub lockdown: Fact<String>,
    /// By what its programs can read memory where the kernel refuses them its helpers.
    pub typed_reads: Fact<TypedReads>,
    /// How its programs hold a module: as of [`KernelFacts`].
    pub programs_hold_modules: Fact<bool>,
}

/// A candidate with what its programs attach to.
#[derive(Clone, Debug)]
pub struct PlannedCandidate {
    /// Kind of hook.
    pub hook: Hook,
    /// Each program, with what it attaches to.
    pub programs: Vec<(Program, Target)>,
}

/// What a program attaches to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The function, or the tracepoint, by its name.
    Name,
    /// The function by its type, for fentry and fexit.
    Btf(BtfFunction),
    /// The function by the name that the compiler has given it.
    Symbol(String),
}

impl PlannedProbe {
    /// A probe that cannot be hooked in any way, for one reason.
    pub fn impossible(probe: &'static Probe, missing: &Missing) -> Self {
        let hooks = probe.candidates.iter().map(|candidate| candidate.hook);
        let missing = hooks.map(|hook| (hook, missing.clone())).collect();
        Self {
            probe,
            candidates: Vec::new(),
            missing,
            lockdown: Fact::Unknown("not asked for".to_owned()),
            typed_reads: Fact::Unknown("not asked for".to_owned()),
            programs_hold_modules: Fact::Unknown("not asked for".to_owned()),
        }
    }

    /// A row of the table of probes: the hook in use, why no cheaper one is, or why
    /// none is at all, and what the kernel refused when it was tried.
    pub fn report(&self, used: Option<Hook>, refused: Vec<Missing>) -> ProbeReport {
        let mut missing = Vec::new();
        for (hook, reason) in &self.missing {
            let matters = used.is_none_or(|used| *hook < used);
            if matters && !missing.contains(reason) {
                missing.push(reason.clone());
            }
        }
        missing.extend(refused);
        ProbeReport {
            name: self.probe.name.to_owned(),
            hook: used.map(|hook| hook.name().to_owned()),
            missing,
        }
    }

    /// Keeps the candidates whose hooks the operator wants, in the operator's order.
    #[must_use]
    pub fn with_hooks(mut self, wanted: &[Hook]) -> Self {
        let place = |hook| wanted.iter().position(|wanted| *wanted == hook);
        let possible = !self.candidates.is_empty();
        self.candidates
            .retain(|candidate| place(candidate.hook).is_some());
        self.candidates
            .sort_by_key(|candidate| place(candidate.hook));
        if possible && self.candidates.is_empty() {
            let missing = Missing {
                what: format!("a hook for {}", self.probe.name),
                why: "the configuration's `hooks` leave none that this kernel has".to_owned(),
                remedy: "add one to `hooks`".to_owned(),
            };
            self.missing.push((Hook::Kprobe, missing));
        }
        self
    }
}

/// Sorts a probe's candidates into those to try and those that cannot work here.
pub fn plan(probe: &'static Probe, facts: &KernelFacts) -> PlannedProbe {
    let mut planned = PlannedProbe {
        probe,
        candidates: Vec::new(),
        missing: Vec::new(),
        lockdown: facts.lockdown.clone(),
        typed_reads: facts.typed_reads.clone(),
        programs_hold_modules: facts.programs_hold_modules.clone(),
    };
    for candidate in probe.candidates {
        match plan_candidate(candidate, facts) {
            Ok(candidate) => planned.candidates.push(candidate),
            Err(missing) => planned.missing.push((candidate.hook, missing)),
        }
    }
    planned
}

fn plan_candidate(candidate: &Candidate, facts: &KernelFacts) -> Result<PlannedCandidate, Missing> {
    accepts(candidate.hook, facts)?;
    let programs = candidate
        .programs
        .iter()
        .map(|program| Ok((*program, target(candidate.hook, program, facts)?)))
        .collect::<Result<_, _>>()?;
    Ok(PlannedCandidate {
        hook: candidate.hook,
        programs,
    })
}

/// Whether the kernel takes programs of the hook's type from this process.
fn accepts(hook: Hook, facts: &KernelFacts) -> Result<(), Missing> {
    let hindrance = remedy::not_the_first_user_namespace(facts);
    if let Some(missing) = hindrance.or_else(|| capabilities_missing(facts)) {
        return Err(missing);
    }
    let program_type = match hook {
        Hook::Fentry => ProgramType::Tracing,
        Hook::RawTracepoint => ProgramType::RawTracepoint,
        Hook::Kprobe if facts.kprobes == Fact::Known(false) => return Err(no_kprobes(facts)),
        Hook::Kprobe => {
            let paranoid = facts.perf_event_paranoid.known().copied().unwrap_or(0);
            if paranoid > PARANOID_OF_MAINLINE && lacks(facts, "CAP_SYS_ADMIN") {
                return Err(too_paranoid(paranoid));
            }
            ProgramType::Kprobe
        }
    };
    match facts.program_types.get(&program_type) {
        Some(Fact::Known(false)) => Err(Missing {
            what: format!("BPF programs for {}", hook.name()),
            why: remedy::refusal(facts, program_type),
            remedy: if remedy::is_confidential(&facts.lockdown) {
                remedy::UNLOCK.to_owned()
            } else {
                kernel_with(facts, switches_for(hook))
            },
        }),
        // Unknown is not no: the attempt itself will tell.
        Some(Fact::Known(true) | Fact::Unknown(_)) | None => Ok(()),
    }
}

/// The highest level that mainline knows (kernel/events/core.c). Debian's and Ubuntu's
/// kernels refuse perf events above it to whom has CAP_PERFMON alone.
const PARANOID_OF_MAINLINE: i32 = 2;

fn too_paranoid(level: i32) -> Missing {
    Missing {
        what: "kprobes without CAP_SYS_ADMIN".to_owned(),
        why: format!("kernel.perf_event_paranoid is {level}, above what CAP_PERFMON overrules"),
        remedy: "run as root or with CAP_SYS_ADMIN, or set kernel.perf_event_paranoid to 2"
            .to_owned(),
    }
}

/// What the kernel has to be built with for programs of a hook.
const fn switches_for(hook: Hook) -> &'static [&'static str] {
    match hook {
        Hook::Fentry => &[
            "BPF_SYSCALL",
            "BPF_JIT",
            "BPF_EVENTS",
            "DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
        ],
        Hook::RawTracepoint | Hook::Kprobe => &["BPF_SYSCALL", "BPF_EVENTS"],
    }
}

fn no_kprobes(facts: &KernelFacts) -> Missing {
    Missing {
        what: "kprobes".to_owned(),
        why: "the kernel has no perf event source for them".to_owned(),
        remedy: kernel_with(facts, &["KPROBES", "KPROBE_EVENTS"]),
    }
}

/// Loading a tracing program needs CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN
/// (kernel/bpf/syscall.c; before 5.8 CAP_SYS_ADMIN alone).
fn capabilities_missing(facts: &KernelFacts) -> Option<Missing> {
    if !lacks(facts, "CAP_SYS_ADMIN") {
        return None;
    }
    let absent: Vec<_> = ["CAP_BPF", "CAP_PERFMON"]
        .into_iter()
        .filter(|name| lacks(facts, name))
        .collect();
    (!absent.is_empty()).then(|| Missing {
        what: absent.join(" and "),
        why: "this process may not load BPF programs".to_owned(),
        remedy: "run as root, or give the binary or container CAP_BPF and CAP_PERFMON".to_owned(),
    })
}

/// Whether this process is known to be without a capability.
fn lacks(facts: &KernelFacts, capability: &str) -> bool {
    let held = facts.capabilities.known();
    held.is_some_and(|held| held.get(capability) != Some(&true))
}

/// `BPF_BTF_GET_FD_BY_ID`, without which a module's BTF cannot be named to the
/// verifier, wants CAP_SYS_ADMIN (`bpf_btf_get_fd_by_id`, kernel/bpf/syscall.c).
fn no_module_btf(program: &Program) -> Missing {
    Missing {
        what: format!("fentry on {}", program.function),
        why: format!(
            "it is in module {}, and the kernel gives the BTF of modules only to CAP_SYS_ADMIN",
            program.module
        ),
        remedy:
            "run as root or with CAP_SYS_ADMIN for the cheapest hook; until then nodemedic uses \
                 another"
                .to_owned(),
    }
}

fn target(hook: Hook, program: &Program, facts: &KernelFacts) -> Result<Target, Missing> {
    let function = facts.functions.get(program.function);
    let symbol = function.and_then(|function| function.symbol.known());
    if symbol == Some(&Symbol::Split) {
        return Err(split(program));
    }
    if let Some(Symbol::Renamed(name)) = symbol {
        // The arguments of a return's probe do not matter, and a name alone moves none.
        let in_place = program.at == At::Return || name.contains(".llvm.");
        return match hook {
            Hook::Kprobe | Hook::RawTracepoint if in_place => Ok(Target::Symbol(name.clone())),
            Hook::Fentry | Hook::Kprobe | Hook::RawTracepoint => Err(renamed(program, name)),
        };
    }
    match hook {
        Hook::Fentry => match function.map(|function| &function.btf) {
            Some(Fact::Known(btf)) if btf.is_of_module() && lacks(facts, "CAP_SYS_ADMIN") => {
                Err(no_module_btf(program))
            }
            Some(Fact::Known(btf)) => Ok(Target::Btf(btf.clone())),
            Some(Fact::Unknown(why)) => Err(no_btf(program, why, facts)),
            None => Err(no_btf(program, "it was not looked up", facts)),
        },
        Hook::Kprobe if symbol == Some(&Symbol::Absent) => Err(no_symbol(program)),
        // Unknown is not no: the attempt itself will tell.
        Hook::Kprobe | Hook::RawTracepoint => Ok(Target::Name),
    }
}

fn split(program: &Program) -> Missing {
    Missing {
        what: format!("function {}", program.function),
        why: "the compiler has split it, so that a probe would miss some of its callers".to_owned(),
        remedy: "none needed where another hook works; otherwise report this kernel".to_owned(),
    }
}

fn renamed(program: &Program, name: &str) -> Missing {
    Missing {
        what: format!("function {}", program.function),
        why: format!(
            "it is there under another name, {name}: the compiler has changed it, and its \
             arguments may be elsewhere"
        ),
        remedy: "none needed where another hook works; otherwise report this kernel".to_owned(),
    }
}

fn no_symbol(program: &Program) -> Missing {
    Missing {
        what: format!("function {}", program.function),
        why: format!(
            "{} has no such symbol: inlined, or not in this kernel",
            program.module
        ),
        remedy: "none needed where another hook works; otherwise report this kernel".to_owned(),
    }
}

fn no_btf(program: &Program, why: &str, facts: &KernelFacts) -> Missing {
    let at = match program.at {
        At::Entry => "fentry",
        At::Return => "fexit",
    };
    let module = facts.modules.get(program.module);
    let switches: &[_] = match module.map(|module| &module.state) {
        Some(ModuleState::Loaded) => &["DEBUG_INFO_BTF", "DEBUG_INFO_BTF_MODULES"],
        _ => &["DEBUG_INFO_BTF"],
    };
    Missing {
        what: format!("{at} on {}", program.function),
        why: why.to_owned(),
        remedy: kernel_with(facts, switches),
    }
}
