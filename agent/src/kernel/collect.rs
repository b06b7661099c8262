//! Collecting the facts. What cannot be found out is noted with its reason and
//! stops nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io, panic,
    path::Path,
    thread::{self, Scope, ScopedJoinHandle},
};

use super::{
    bpf::{self, SymbolIterator},
    btf::Types,
    cgroup::Hierarchies,
    config,
    facts::{Fact, FunctionFacts, KernelFacts, Module, ModuleState, ProgramType, Symbol, VMLINUX},
    machine,
    modules::{self, Stage},
    symbols::{self, SymbolScope},
    sysctl,
};

use crate::model::Needs;

/// Capabilities that decide what the agent can do (include/uapi/linux/capability.h).
const CAPABILITIES: [(&str, u32); 6] = [
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYS_RESOURCE", 24),
    ("CAP_PERFMON", 38),
    ("CAP_BPF", 39),
];

/// The structure of a BPF program (include/linux/bpf.h).
const PROGRAM: &str = "bpf_prog_aux";

/// A function that is there to be traced (net/bpf/test_run.c).
const TRACED: &str = "bpf_fentry_test1";

/// Collects what all the given needs ask for.
pub fn collect(needs: &[Needs]) -> KernelFacts {
    let facts = collect_all(needs);
    // The kernel's types took megabytes.
    super::return_free_memory();
    facts
}

/// The kernel formats its symbols for as long as all else takes together, so they are read on
/// a thread of their own: from the start where the types cannot tell of a faster way.
fn collect_all(needs: &[Needs]) -> KernelFacts {
    let functions = needs.iter().flat_map(|needs| needs.functions);
    let wanted: BTreeSet<_> = functions.map(|function| function.name).collect();
    let modules = needs.iter().flat_map(|needs| needs.modules);
    let stages: Stages = modules.map(|it| (*it, modules::stage(it))).collect();
    let loaded = stages.iter();
    let loaded = loaded.filter(|(_, stage)| **stage == Some(Stage::Live));
    let loaded: BTreeSet<_> = loaded.map(|(module, _)| *module).collect();
    let places = if loaded.is_empty() {
        SymbolScope::KernelImage
    } else {
        SymbolScope::All
    };
    let members = needs.iter().flat_map(|needs| needs.members);
    let structures = members.map(|member| member.structure());
    let names = wanted.iter().copied().chain(structures);
    let names = names
        .chain([TRACED, Types::CAST, PROGRAM])
        .chain(SymbolIterator::NAMES);
    thread::scope(|scope| {
        let find = |iterator| {
            let (wanted, places) = (&wanted, places);
            Background::start(scope, move || symbols::find(wanted, places, iterator))
        };
        let is_traceable = !bpf::tracing_is_forbidden();
        let has_hooks = is_traceable || kprobes() != Fact::Known(false);
        let read = (has_hooks && !is_traceable).then(|| find(None));
        let types = Types::open(loaded.iter().copied(), &names.collect());
        let traced = types.function(TRACED, VMLINUX);
        let (program_types, refusals) =
            bpf::program_types(traced.known().map(|function| function.type_id));
        let iterator = symbol_iterator(&types, &program_types);
        // Where no function can be hooked, types of all of them tell what is left to know. Before
        // 5.11 modules have none.
        let have_types = types.has_vmlinux() == Fact::Known(true)
            && (loaded.iter()).all(|module| types.has_module(module) == Fact::Known(true));
        let are_needed = has_hooks || !have_types;
        let symbols = read.or_else(|| are_needed.then(|| find(iterator)));
        let mut facts = facts(needs, &stages, &types, program_types, symbols);
        facts.refusals = refusals;
        if !facts.are_complete() {
            facts.config = config::switches(&facts.release);
        }
        facts
    })
}

/// How the kernel goes through its symbols, where it takes programs for that.
fn symbol_iterator(
    types: &Types,
    program_types: &BTreeMap<ProgramType, Fact<bool>>,
) -> Option<SymbolIterator> {
    let tracing = program_types.get(&ProgramType::Tracing);
    if tracing != Some(&Fact::Known(true)) {
        return None;
    }
    let member = |path| types.member(path, VMLINUX).known().copied();
    SymbolIterator::of(
        types.function(SymbolIterator::FUNCTION, VMLINUX).known()?,
        member,
    )
}

/// How far each module was before anything was read of it.
type Stages = BTreeMap<&'static str, Option<Stage>>;

/// Facts of these types, and of these symbols once they are there, if they are looked for.
fn facts(
    needs: &[Needs],
    stages: &Stages,
    types: &Types,
    program_types: BTreeMap<ProgramType, Fact<bool>>,
    symbols: Option<Background<'_, BTreeMap<String, Fact<Symbol>>>>,
) -> KernelFacts {
    let lockdown = lockdown();
    let without_symbols = KernelFacts {
        release: rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned(),
        machine: std::env::consts::ARCH.to_owned(),
        boot_id: kernel("random.boot_id"),
        possible_cpus: cpus("possible"),
        online_cpus: cpus("online"),
        hz: jiffies_per_second(),
        typed_reads: match &lockdown {
            Fact::Known(mode) if mode != "confidentiality" => {
                Fact::Unknown("not looked for: the kernel refuses no reads".to_owned())
            }
            Fact::Known(_) | Fact::Unknown(_) => types.typed_reads(),
        },
        programs_hold_modules: match types.member(&format!("{PROGRAM}.id"), VMLINUX) {
            Fact::Known(_) => {
                let holds = types.member(&format!("{PROGRAM}.mod"), VMLINUX);
                Fact::Known(holds.known().is_some())
            }
            Fact::Unknown(why) => Fact::Unknown(why),
        },
        lockdown,
        first_user_namespace: first_user_namespace(),
        seccomp_filter: status("Seccomp:").map(|mode| mode == "2").into(),
        config: Fact::Unknown("not looked for: nothing is missing".to_owned()),
        refusals: BTreeMap::new(),
        capabilities: capabilities().into(),
        psi: psi(),
        cgroups: Hierarchies::find().into(),
        bpffs: mounted("bpf", &["/sys/fs/bpf"]),
        tracefs: mounted(
            "tracefs",
            &["/sys/kernel/tracing", "/sys/kernel/debug/tracing"],
        ),
        kprobes: kprobes(),
        perf_event_paranoid: perf_event_paranoid(),
        btf: types.has_vmlinux(),
        program_types,
        members: needs
            .iter()
            .flat_map(|needs| needs.members)
            .map(|member| {
                (
                    member.path.to_owned(),
                    types.member(member.path, member.module),
                )
            })
            .collect(),
        sysctls: needs
            .iter()
            .flat_map(|needs| needs.sysctls)
            .map(|key| ((*key).to_owned(), sysctl::read(key).into()))
            .collect(),
        functions: BTreeMap::new(),
        modules: BTreeMap::new(),
    };
    let symbols = symbols.map(Background::result);
    let symbol = |function: &str| match &symbols {
        Some(symbols) => symbols[function].clone(),
        None => Fact::Unknown("not looked up: no function can be hooked here".to_owned()),
    };
    let functions = needs.iter().flat_map(|needs| needs.functions);
    let functions = functions.map(|function| {
        let facts = FunctionFacts {
            symbol: symbol(function.name),
            btf: types.function(function.name, function.module),
        };
        (function.name.to_owned(), facts)
    });
    let functions: BTreeMap<_, _> = functions.collect();
    KernelFacts {
        modules: module_states(needs, stages, &functions)
            .into_iter()
            .map(|(module, state)| {
                let btf = types.has_module(&module);
                let users = modules::users(&module);
                (module, Module { state, users, btf })
            })
            .collect(),
        functions,
        ..without_symbols
    }
}

/// Work that a thread does meanwhile; where there can be no more threads, it is done when its
/// result is wanted.
enum Background<'s, T> {
    Running(ScopedJoinHandle<'s, T>),
    Later(Box<dyn FnOnce() -> T + 's>),
}

impl<'s, T: Send + 's> Background<'s, T> {
    fn start<'e>(scope: &'s Scope<'s, 'e>, work: impl FnOnce() -> T + Clone + Send + 's) -> Self {
        let thread = thread::Builder::new().name("symbols".to_owned());
        match thread.spawn_scoped(scope, work.clone()) {
            Ok(handle) => Self::Running(handle),
            Err(_) => Self::Later(Box::new(work)),
        }
    }

    fn result(self) -> T {
        match self {
            Self::Running(handle) => handle
                .join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic)),
            Self::Later(work) => work(),
        }
    }
}

fn module_states(
    needs: &[Needs],
    stages: &Stages,
    functions: &BTreeMap<String, FunctionFacts>,
) -> BTreeMap<String, ModuleState> {
    needs
        .iter()
        .flat_map(|needs| needs.modules.iter().map(move |module| (needs, *module)))
        .map(|(needs, module)| {
            let own = needs.functions.iter().filter(|it| it.module == module);
            let mut own = own.filter_map(|it| functions.get(it.name));
            let has_function = own.any(|it| it.exists() == Some(true));
            (
                module.to_owned(),
                modules::state(module, stages[module], has_function),
            )
        })
        .collect()
}

/// A key below `kernel.` that every kernel has.
fn kernel(key: &str) -> Fact<String> {
    let key = format!("kernel.{key}");
    match sysctl::read(&key) {
        Ok(Some(value)) => Fact::Known(value),
        Ok(None) => Fact::Unknown(format!("the kernel has no sysctl {key}")),
        Err(error) => Fact::Unknown(error.to_string()),
    }
}

/// The coarse clocks advance once a jiffy, and say so (`hrtimer_resolution` does not
/// matter to them; kernel/time/posix-timers.c, `posix_get_coarse_res`).
fn jiffies_per_second() -> Fact<u32> {
    let jiffy = rustix::time::clock_getres(rustix::time::ClockId::MonotonicCoarse);
    match u32::try_from(jiffy.tv_nsec) {
        Ok(nanoseconds) if nanoseconds > 0 => {
            Fact::Known((1e9 / f64::from(nanoseconds)).round() as u32)
        }
        _ => Fact::Unknown(format!("the coarse clock claims a resolution of {jiffy:?}")),
    }
}

/// Counts the CPUs of a list such as `0-3,8`.
fn cpus(list: &str) -> Fact<u32> {
    let path = format!("/sys/devices/system/cpu/{list}");
    match trimmed(&path) {
        Ok(text) => match count_list(&text) {
            Some(count) => Fact::Known(count),
            None => Fact::Unknown(format!("read {path}: {text:?} is no list of CPUs")),
        },
        Err(why) => Fact::Unknown(why),
    }
}

fn count_list(list: &str) -> Option<u32> {
    let cpus = machine::cpu_list(list).filter(|cpus| !cpus.is_empty())?;
    Some(machine::count(&cpus))
}

/// The word in brackets of `none [integrity] confidentiality`.
fn lockdown() -> Fact<String> {
    const PATH: &str = "/sys/kernel/security/lockdown";
    match fs::read_to_string(PATH) {
        Ok(text) => match text
            .split_once('[')
            .and_then(|(_, rest)| rest.split_once(']'))
        {
            Some((mode, _)) => Fact::Known(mode.to_owned()),
            None => Fact::Unknown(format!("read {PATH}: {:?} names no mode", text.trim())),
        },
        // A kernel with securityfs and no lockdown has no such file.
        Err(error) if error.kind() == io::ErrorKind::NotFound && securityfs() => {
            Fact::Known("none".to_owned())
        }
        Err(error) => Fact::Unknown(format!("read {PATH}: {error}")),
    }
}

fn securityfs() -> bool {
    Path::new("/sys/kernel/security/lsm").exists()
}

/// The first user namespace has a fixed inode number (`PROC_USER_INIT_INO`,
/// include/linux/proc_ns.h).
fn first_user_namespace() -> Fact<bool> {
    const PATH: &str = "/proc/self/ns/user";
    const FIRST: &str = "user:[4026531837]";
    match fs::read_link(PATH) {
        Ok(namespace) => Fact::Known(namespace.as_os_str() == FIRST),
        // Without CONFIG_USER_NS there is one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Fact::Known(true),
        Err(error) => Fact::Unknown(format!("read {PATH}: {error}")),
    }
}

/// A line of what the kernel tells of this process.
fn status(name: &str) -> Result<String, String> {
    const PATH: &str = "/proc/self/status";
    let status = fs::read_to_string(PATH).map_err(|error| format!("read {PATH}: {error}"))?;
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(name));
    let value = value.ok_or_else(|| format!("read {PATH}: it has no line {name}"))?;
    Ok(value.trim().to_owned())
}

fn capabilities() -> Result<BTreeMap<String, bool>, String> {
    let mask = status("CapEff:")?;
    let effective = u64::from_str_radix(&mask, 16)
        .map_err(|error| format!("the effective capabilities are {mask:?}: {error}"))?;
    Ok(CAPABILITIES
        .into_iter()
        .map(|(name, bit)| (name.to_owned(), effective & (1 << bit) != 0))
        .collect())
}

/// Reading is the test: with PSI switched off the files may be there and fail.
fn psi() -> Fact<bool> {
    match fs::read_to_string("/proc/pressure/cpu") {
        Ok(_) => Fact::Known(true),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::EOPNOTSUPP) => Fact::Known(false),
            _ => Fact::Unknown(format!("read /proc/pressure/cpu: {error}")),
        },
    }
}

fn perf_event_paranoid() -> Fact<i32> {
    match kernel("perf_event_paranoid") {
        Fact::Known(level) => level.parse::<i32>().into(),
        Fact::Unknown(why) => Fact::Unknown(why),
    }
}

/// Whether perf events offer kprobes (`CONFIG_KPROBE_EVENTS`).
fn kprobes() -> Fact<bool> {
    const SOURCES: &str = "/sys/bus/event_source/devices";
    match Path::new(SOURCES).try_exists() {
        Ok(true) => Fact::Known(Path::new(SOURCES).join("kprobe/type").exists()),
        Ok(false) => Fact::Unknown(format!("{SOURCES} does not exist: is sysfs mounted?")),
        Err(error) => Fact::Unknown(format!("look for {SOURCES}: {error}")),
    }
}

/// Whether a file system of a type is mounted at one of the places.
fn mounted(kind: &str, places: &[&str]) -> Fact<bool> {
    const PATH: &str = "/proc/self/mounts";
    match fs::read_to_string(PATH) {
        Ok(mounts) => Fact::Known(mounts.lines().any(|line| {
            let mut fields = line.split(' ').skip(1);
            let (place, found) = (fields.next(), fields.next());
            found == Some(kind) && place.is_some_and(|place| places.contains(&place))
        })),
        Err(error) => Fact::Unknown(format!("read {PATH}: {error}")),
    }
}

fn trimmed(path: &str) -> Result<String, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(format!("read {path}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted_in_ranges_and_alone() {
        assert_eq!(count_list("0"), Some(1));
        assert_eq!(count_list("0-127"), Some(128));
        assert_eq!(count_list("0-3,8,10-11"), Some(7));
        assert_eq!(count_list(""), None);
        assert_eq!(count_list("3-1"), None);
    }

    #[test]
    fn this_machine_has_facts_and_no_panic() {
        let facts = collect(&[Needs::default()]);
        assert!(
            facts
                .release
                .starts_with(|first: char| first.is_ascii_digit())
        );
        assert!(
            matches!(facts.hz, Fact::Known(24..=1_200)),
            "{:?}",
            facts.hz
        );
        assert!(facts.online_cpus.known() <= facts.possible_cpus.known());
    }
}
