//! Loading an object and attaching its programs.

use std::{
    collections::{BTreeMap, HashMap as StdHashMap, HashSet},
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use anyhow::{Context as _, anyhow};
use aya::{Pod, maps::Map};
use aya_log::EbpfLogger;
use aya_obj::{ProgramSection, generated::bpf_attach_type};

use super::{
    At, Hook, PlannedProbe,
    maps::{self, HashMap, Parameters},
    plan::{PlannedCandidate, Target},
    probe::Program,
    remedy,
    sys::{self, Kind, KprobeLink},
    typed_reads,
};
use crate::{
    kernel::facts::{BtfFunction, TypedReads},
    model::{ProbeReport, ProgramStats},
};

/// Reader of the log records that BPF programs write.
pub type ProbeLog = EbpfLogger<&'static dyn log::Log>;

/// An object whose maps exist; its programs are loaded when they are attached.
#[derive(Debug)]
pub struct Object {
    maps: BTreeMap<String, Map>,
    code: Code,
    /// Programs that are loaded for no one function, and so can be attached again.
    loaded: BTreeMap<&'static str, OwnedFd>,
}

/// Programs with the addresses of the maps in them.
#[derive(Debug)]
struct Code {
    programs: StdHashMap<String, aya_obj::Program>,
    functions: BTreeMap<(usize, u64), aya_obj::Function>,
    /// By what programs read memory where the kernel refuses them its helpers.
    typed_reads: Option<TypedReads>,
    /// Whether the kernel has refused a program those helpers. It refuses them to all then.
    helpers_are_refused: bool,
}

/// A probe's programs, attached. Dropping it detaches them.
#[derive(Debug, Default)]
pub struct Attached {
    programs: Vec<AttachedProgram>,
}

#[derive(Debug)]
struct AttachedProgram {
    name: &'static str,
    function: &'static str,
    program: OwnedFd,
    link: Link,
}

/// What holds a program in its place.
#[derive(Debug)]
enum Link {
    Tracing { _link: OwnedFd },
    Kprobe { link: KprobeLink },
    RawTracepoint { _link: OwnedFd },
}

impl Object {
    /// Parses an object, sets its parameters and creates its maps.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses a map, or the object lacks one that is named.
    pub fn load(name: &str, bytes: &[u8], parameters: &Parameters<'_>) -> anyhow::Result<Self> {
        let load = || {
            let mut code = aya_obj::Object::parse(bytes)?;
            parameters.apply(&mut code)?;
            let maps = maps::create(&code.maps)?;
            relocate(&mut code, &maps)?;
            let (programs, functions) = (code.programs, code.functions);
            anyhow::Ok(Self {
                maps,
                code: Code {
                    programs,
                    functions,
                    typed_reads: None,
                    helpers_are_refused: false,
                },
                loaded: BTreeMap::new(),
            })
        };
        load().with_context(|| format!("load BPF object {name}"))
    }

    /// Takes a map out, to be read by its type.
    ///
    /// # Errors
    ///
    /// Where the object has no map of that name.
    pub fn take_map(&mut self, name: &str) -> anyhow::Result<Map> {
        self.maps
            .remove(name)
            .ok_or_else(|| anyhow!("the BPF object has no map {name}"))
    }

    /// Takes a hash map out, whose keys and values are of these types.
    ///
    /// # Errors
    ///
    /// Where the object has no map of that name.
    pub fn take_hash_map<K: Pod, V: Pod>(&mut self, name: &str) -> anyhow::Result<HashMap<K, V>> {
        Ok(HashMap::of(self.take_map(name)?))
    }

    /// Opens an iterator: the kernel calls the program with each of some things while the file
    /// is read, and in the file is what the program writes.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses it.
    pub(super) fn iterate(&mut self, program: &str, type_id: u32) -> anyhow::Result<File> {
        let kind = Kind::Tracing {
            attach: bpf_attach_type::BPF_TRACE_ITER,
            type_id,
            btf: None,
        };
        let fd = self.code.load(program, kind)?;
        let iterator = sys::open_iterator(fd.as_fd());
        let iterator = iterator.with_context(|| format!("open iterator {program}"))?;
        Ok(File::from(iterator))
    }

    /// Attaches a probe by the first of its candidates that the kernel takes.
    pub fn attach(&mut self, planned: &PlannedProbe) -> (Attached, ProbeReport) {
        let mut refused = Vec::new();
        self.code.typed_reads = planned.typed_reads.known().copied();
        for candidate in &planned.candidates {
            match self.attach_candidate(candidate) {
                Ok(attached) => {
                    let report = planned.report(Some(candidate.hook), refused);
                    return (attached, report);
                }
                Err(error) => {
                    let what = format!("{} for {}", candidate.hook.name(), planned.probe.name);
                    refused.push(remedy::refused(what, &format!("{error:#}"), planned));
                }
            }
        }
        (Attached::default(), planned.report(None, refused))
    }

    fn attach_candidate(&mut self, candidate: &PlannedCandidate) -> anyhow::Result<Attached> {
        let mut attached = Attached::default();
        for (program, target) in &candidate.programs {
            let (fd, link) = match (candidate.hook, target) {
                (Hook::Fentry, Target::Btf(btf)) => self.attach_tracing(program, btf)?,
                (Hook::Fentry, Target::Name | Target::Symbol(_)) => {
                    return Err(anyhow!("no BTF is known of function {}", program.function));
                }
                (Hook::RawTracepoint, _) => self.attach_raw_tracepoint(program)?,
                (Hook::Kprobe, Target::Symbol(name)) => self.attach_kprobe(program, name)?,
                (Hook::Kprobe, _) => self.attach_kprobe(program, program.function)?,
            };
            attached.programs.push(AttachedProgram {
                name: program.name,
                function: program.function,
                program: fd,
                link,
            });
        }
        Ok(attached)
    }

    fn attach_tracing(
        &mut self,
        program: &Program,
        function: &BtfFunction,
    ) -> anyhow::Result<(OwnedFd, Link)> {
        let btf = function
            .is_of_module()
            .then(|| {
                let module = &function.object;
                sys::kernel_btf(module).with_context(|| format!("find the BTF of module {module}"))
            })
            .transpose()?;
        let kind = Kind::Tracing {
            attach: match program.at {
                At::Entry => bpf_attach_type::BPF_TRACE_FENTRY,
                At::Return => bpf_attach_type::BPF_TRACE_FEXIT,
            },
            type_id: function.type_id,
            btf: btf.as_ref().map(|btf| btf.as_fd()),
        };
        let fd = self.code.load(program.name, kind)?;
        let link = sys::attach_tracing(fd.as_fd())
            .with_context(|| format!("attach program {} to {}", program.name, program.function))?;
        Ok((fd, Link::Tracing { _link: link }))
    }

    fn attach_kprobe(
        &mut self,
        program: &Program,
        symbol: &str,
    ) -> anyhow::Result<(OwnedFd, Link)> {
        let at_return = match self.code.program(program.name)?.section {
            ProgramSection::KProbe => false,
            ProgramSection::KRetProbe => true,
            _ => return Err(anyhow!("program {} is no kprobe", program.name)),
        };
        let fd = self.loaded(program, Kind::Kprobe)?;
        let link = sys::attach_kprobe(fd.as_fd(), symbol, at_return)
            .with_context(|| format!("attach program {} to {symbol}", program.name))?;
        Ok((fd, Link::Kprobe { link }))
    }

    fn attach_raw_tracepoint(&mut self, program: &Program) -> anyhow::Result<(OwnedFd, Link)> {
        let ProgramSection::RawTracePoint = self.code.program(program.name)?.section else {
            return Err(anyhow!("program {} is for no raw tracepoint", program.name));
        };
        let fd = self.loaded(program, Kind::RawTracepoint)?;
        let link = sys::attach_raw_tracepoint(fd.as_fd(), program.function).with_context(|| {
            format!(
                "attach program {} to tracepoint {}",
                program.name, program.function
            )
        })?;
        Ok((fd, Link::RawTracepoint { _link: link }))
    }

    /// The program, loaded once: it stays so when it is detached, and can be attached
    /// again.
    fn loaded(&mut self, program: &Program, kind: Kind<'_>) -> anyhow::Result<OwnedFd> {
        let fd = match self.loaded.remove(program.name) {
            Some(fd) => fd,
            None => self.code.load(program.name, kind)?,
        };
        let again = fd.try_clone();
        self.loaded.insert(program.name, fd);
        again.with_context(|| format!("descriptor of program {}", program.name))
    }
}

impl Code {
    fn program(&self, name: &str) -> anyhow::Result<&aya_obj::Program> {
        let program = self.programs.get(name);
        program.ok_or_else(|| anyhow!("the BPF object has no program {name}"))
    }

    /// Loads a program. One that the kernel refuses for the helpers by which it reads memory is
    /// loaded with typed loads in their place, where the kernel has what that takes.
    fn load(&mut self, name: &str, kind: Kind<'_>) -> anyhow::Result<OwnedFd> {
        let code = self.program(name)?;
        let function = self.functions.get(&code.function_key());
        let function = function.ok_or_else(|| anyhow!("program {name} has no instructions"))?;
        let program = sys::Program {
            name,
            license: &code.license,
            instructions: &function.instructions,
            kind,
        };
        let with_typed_loads = |reads| {
            let instructions = typed_reads::instead_of_helpers(program.instructions, reads);
            let program = sys::Program {
                instructions: &instructions,
                ..program
            };
            offer(&program).context("with typed loads")
        };
        match &self.typed_reads {
            Some(reads) if self.helpers_are_refused => with_typed_loads(reads),
            None => offer(&program),
            Some(reads) => {
                let refusal = match offer(&program) {
                    Err(error) if remedy::reads_are_refused(&format!("{error:#}")) => error,
                    result => return result,
                };
                let result = with_typed_loads(reads);
                self.helpers_are_refused = true;
                result.map_err(|error| {
                    tracing::debug!("{error:#}");
                    refusal
                })
            }
        }
    }
}

/// Loads a program; the verifier is asked for its reasons once it has refused one.
fn offer(program: &sys::Program<'_>) -> anyhow::Result<OwnedFd> {
    sys::load(program, None).or_else(|error| {
        let mut log = Vec::new();
        let mut again = Err(error);
        for size in LOG_SIZES {
            log = Vec::with_capacity(size);
            again = sys::load(program, Some(&mut log));
            let full = |error: &io::Error| error.raw_os_error() == Some(libc::ENOSPC);
            if !again.as_ref().is_err_and(full) {
                break;
            }
        }
        again.with_context(|| format!("load program {}{}", program.name, last_words(&log)))
    })
}

impl AttachedProgram {
    /// Runs that the kernel left out: while the program ran already, or, of a kprobe,
    /// while the CPU was in any other.
    fn missed(&self, recursion: u64) -> u64 {
        match &self.link {
            Link::Kprobe { link } => recursion + link.missed(),
            Link::Tracing { .. } | Link::RawTracepoint { .. } => recursion,
        }
    }
}

/// The last goes first: a return's probe before its entry's would leave calls that never
/// end.
impl Drop for Attached {
    fn drop(&mut self) {
        while self.programs.pop().is_some() {}
    }
}

impl Attached {
    /// Whether no program is there.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }

    /// The function of each program that is there by fentry or fexit.
    pub fn traced(&self) -> impl Iterator<Item = &'static str> {
        let is_traced = |it: &&AttachedProgram| matches!(it.link, Link::Tracing { .. });
        self.programs.iter().filter(is_traced).map(|it| it.function)
    }

    /// Run statistics of the programs. Zero unless somebody has them switched on.
    pub fn stats(&self) -> Vec<ProgramStats> {
        self.programs
            .iter()
            .filter_map(|attached| {
                let info = sys::program_info(attached.program.as_fd()).ok()?;
                Some(ProgramStats {
                    name: attached.name.to_owned(),
                    runs: info.run_cnt,
                    run_seconds: info.run_time_ns as f64 / 1e9,
                    recursion_misses: attached.missed(info.recursion_misses),
                })
            })
            .collect()
    }
}

/// Whether the programs are to write log records: 1 or 0, as their global `VERBOSE`.
pub fn verbosity() -> u32 {
    u32::from(tracing::enabled!(tracing::Level::DEBUG))
}

/// The log records that programs write; each flush brings them into the agent's log. `None`
/// where they write none, or this process may not look for them, which is said.
pub(super) fn log_of<'a>(attached: impl IntoIterator<Item = &'a Attached>) -> Option<ProbeLog> {
    if verbosity() == 0 {
        return None;
    }
    let mut refused = None;
    for attached in attached.into_iter().flat_map(|it| &it.programs) {
        match reader_of_log(attached.program.as_fd()) {
            Ok(log) => return Some(log),
            Err(error) => refused = Some(error),
        }
    }
    if let Some(error) = refused {
        tracing::warn!("the probes' own log is not read: {error:#}");
    }
    None
}

/// aya-log looks for its map by the id of a program that writes to it, which the kernel
/// allows to CAP_SYS_ADMIN alone.
fn reader_of_log(program: BorrowedFd<'_>) -> anyhow::Result<ProbeLog> {
    let id = sys::program_info(program)?.id;
    EbpfLogger::init_from_id(id).context("map the log of the probes")
}

/// Puts the descriptors of the maps, and the functions that programs call, into the code.
fn relocate(code: &mut aya_obj::Object, maps: &BTreeMap<String, Map>) -> anyhow::Result<()> {
    let text: HashSet<usize> = code.functions.keys().map(|(section, _)| *section).collect();
    let definitions = std::mem::take(&mut code.maps);
    let descriptors = definitions
        .iter()
        .map(|(name, definition)| {
            let map = maps.get(name);
            let map = map.ok_or_else(|| anyhow!("map {name} was not created"))?;
            Ok((
                name.as_str(),
                maps::descriptor(map)?.as_raw_fd(),
                definition,
            ))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    code.relocate_maps(descriptors.into_iter(), &text)?;
    code.relocate_calls(&text)?;
    Ok(())
}

/// Bytes for the verifier's log. It tells every step of a long program; older kernels take no more
/// than the last (`bpf_verifier_log`, include/linux/bpf_verifier.h).
const LOG_SIZES: [usize; 3] = [64 << 10, 1 << 20, (16 << 20) - 1];

/// What the verifier prints after its complaint.
const STATISTICS: [&str; 3] = ["verification time", "stack depth", "processed"];

/// The verifier's complaint: the last lines of its log before the statistics.
fn last_words(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines = text.trim_end_matches('\0').trim().lines();
    let statistics = |line: &&str| STATISTICS.iter().any(|begin| line.starts_with(begin));
    // From 7.x on the verifier draws where in the program an error is.
    if let Some((_, error)) = text.split_once("-- error: ") {
        let error = error.lines().next().unwrap_or_default();
        return format!("; the verifier: {error}");
    }
    let mut last: Vec<_> = lines.rev().skip_while(statistics).take(3).collect();
    if last.is_empty() {
        return String::new();
    }
    last.reverse();
    format!("; the verifier: {}", last.join(" / "))
}
