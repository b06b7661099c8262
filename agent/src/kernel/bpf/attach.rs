//! Loading an object and attaching its programs.

use std::{
    collections::HashSet,
    marker::PhantomData,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
};

use anyhow::{Context as _, anyhow};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Map, MapData},
    programs::{ProgramError, ProgramFd, RawTracePoint, raw_trace_point::RawTracePointLink},
};
use aya_log::EbpfLogger;
use aya_obj::generated::bpf_attach_type;

use super::{
    At, Hook, PlannedProbe,
    plan::PlannedCandidate,
    probe::Program,
    sys::{self, TracingProgram},
};
use crate::{
    kernel::facts::BtfFunction,
    report::{Missing, ProbeReport, ProgramStats},
};

/// Reader of the log records that BPF programs write.
pub type ProbeLog = EbpfLogger<&'static dyn log::Log>;

/// An object whose maps exist; its programs are loaded when they are attached.
#[derive(Debug)]
pub struct Object {
    maps: Ebpf,
    code: aya_obj::Object,
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

/// A hash map of an object, read as a whole.
#[derive(Debug)]
pub struct HashMap<K, V> {
    map: Map,
    types: PhantomData<(K, V)>,
}

impl<K: Pod, V: Pod> HashMap<K, V> {
    /// All its entries, each once, as far as it holds still.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub fn read(&self) -> anyhow::Result<Vec<(K, V)>> {
        let map = data(&self.map)?.fd().as_fd();
        sys::read_map(map).context("read a map of the probes")
    }

    /// Takes an entry out; whether it was still there.
    ///
    /// # Errors
    ///
    /// The kernel's error.
    pub fn remove(&self, key: &K) -> anyhow::Result<bool> {
        let map = data(&self.map)?.fd().as_fd();
        sys::delete_entry(map, key).context("delete from a map of the probes")
    }
}

/// What holds a program in its place.
#[derive(Debug)]
enum Link {
    Tracing {
        _link: OwnedFd,
    },
    Kprobe {
        _link: aya::programs::kprobe::KProbeLink,
        /// The same link once more, to be asked what it has missed.
        info: Option<OwnedFd>,
    },
    RawTracepoint {
        _link: RawTracePointLink,
    },
}

impl Object {
    /// Creates the maps of an object. The loader brings the values of its read-only
    /// globals and the sizes of its maps.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses a map, or the object lacks one that is named.
    pub fn load(name: &str, bytes: &[u8], loader: &mut EbpfLoader<'_>) -> anyhow::Result<Self> {
        // Nothing here is relocated by BTF; reading vmlinux's would cost megabytes.
        let maps = loader
            .btf(None)
            .load(bytes)
            .with_context(|| format!("load BPF object {name}"))?;
        let code =
            relocated(bytes, &maps).with_context(|| format!("relocate BPF object {name}"))?;
        Ok(Self { maps, code })
    }

    /// Takes a map out, to be read by its type.
    ///
    /// # Errors
    ///
    /// Where the object has no map of that name.
    pub fn take_map(&mut self, name: &str) -> anyhow::Result<Map> {
        self.maps
            .take_map(name)
            .ok_or_else(|| anyhow!("the BPF object has no map {name}"))
    }

    /// Takes a hash map out, whose keys and values are of these types.
    ///
    /// # Errors
    ///
    /// Where the object has no map of that name.
    pub fn take_hash_map<K: Pod, V: Pod>(&mut self, name: &str) -> anyhow::Result<HashMap<K, V>> {
        Ok(HashMap {
            map: self.take_map(name)?,
            types: PhantomData,
        })
    }

    /// The log records of the probes; each flush brings them into the agent's log. `None`
    /// where the object has no log or its buffer cannot be mapped, which is said.
    pub fn logger(&mut self) -> Option<ProbeLog> {
        EbpfLogger::init(&mut self.maps)
            .context("map the log of the probes")
            .inspect_err(|error| tracing::warn!("the probes' own log is not read: {error:#}"))
            .ok()
    }

    /// Attaches a probe by the first of its candidates that the kernel takes.
    pub fn attach(&mut self, planned: &PlannedProbe) -> (Attached, ProbeReport) {
        let mut refused = Vec::new();
        for candidate in &planned.candidates {
            match self.attach_candidate(candidate) {
                Ok(attached) => {
                    let report = planned.report(Some(candidate.hook), refused);
                    return (attached, report);
                }
                Err(error) => refused.push(Missing {
                    what: format!("{} for {}", candidate.hook.name(), planned.probe.name),
                    why: format!("{error:#}"),
                    remedy: "the next hook is tried; with none left, the baseline stands in"
                        .to_owned(),
                }),
            }
        }
        (Attached::default(), planned.report(None, refused))
    }

    fn attach_candidate(&mut self, candidate: &PlannedCandidate) -> anyhow::Result<Attached> {
        let mut attached = Attached::default();
        for (program, btf) in &candidate.programs {
            let (fd, link) = match (candidate.hook, btf) {
                (Hook::Fentry, Some(btf)) => self.attach_tracing(program, btf)?,
                (Hook::Fentry, None) => {
                    return Err(anyhow!("no BTF is known of function {}", program.function));
                }
                (Hook::RawTracepoint, _) => self.attach_raw_tracepoint(program)?,
                (Hook::Kprobe, _) => self.attach_kprobe(program)?,
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
        &self,
        program: &Program,
        function: &BtfFunction,
    ) -> anyhow::Result<(OwnedFd, Link)> {
        let code = self
            .code
            .programs
            .get(program.name)
            .ok_or_else(|| anyhow!("the BPF object has no program {}", program.name))?;
        let instructions = &self.code.functions[&code.function_key()].instructions;
        let btf = function
            .is_of_module()
            .then(|| {
                let module = &function.object;
                sys::kernel_btf(module).with_context(|| format!("find the BTF of module {module}"))
            })
            .transpose()?;
        let tracing = TracingProgram {
            name: program.name,
            license: &code.license,
            instructions,
            attach: match program.at {
                At::Entry => bpf_attach_type::BPF_TRACE_FENTRY,
                At::Return => bpf_attach_type::BPF_TRACE_FEXIT,
            },
            type_id: function.type_id,
            btf: btf.as_ref().map(|btf| btf.as_fd()),
        };
        let fd = sys::load_tracing(&tracing, None).or_else(|error| {
            let mut log = Vec::new();
            sys::load_tracing(&tracing, Some(&mut log)).with_context(|| {
                format!(
                    "load program {} ({error}){}",
                    program.name,
                    last_words(&log)
                )
            })
        })?;
        let link = sys::attach_tracing(fd.as_fd())
            .with_context(|| format!("attach program {} to {}", program.name, program.function))?;
        Ok((fd, Link::Tracing { _link: link }))
    }

    fn attach_kprobe(&mut self, program: &Program) -> anyhow::Result<(OwnedFd, Link)> {
        let kprobe: &mut aya::programs::KProbe = self
            .maps
            .program_mut(program.name)
            .ok_or_else(|| anyhow!("the BPF object has no program {}", program.name))?
            .try_into()
            .with_context(|| format!("program {} is no kprobe", program.name))?;
        if kprobe.fd().is_err() {
            kprobe.load().map_err(|error| refusal(program, &error))?;
        }
        let id = kprobe
            .attach(program.function, 0)
            .with_context(|| format!("attach program {} to {}", program.name, program.function))?;
        let link = kprobe
            .take_link(id)
            .with_context(|| format!("keep program {}", program.name))?;
        let fd = descriptor(program, kprobe.fd())?;
        let info = sys::kprobe_link(fd.as_fd());
        Ok((fd, Link::Kprobe { _link: link, info }))
    }

    /// The program stays loaded when it is detached, and can be attached again.
    fn attach_raw_tracepoint(&mut self, program: &Program) -> anyhow::Result<(OwnedFd, Link)> {
        let tracepoint: &mut RawTracePoint = self
            .maps
            .program_mut(program.name)
            .ok_or_else(|| anyhow!("the BPF object has no program {}", program.name))?
            .try_into()
            .with_context(|| format!("program {} is for no raw tracepoint", program.name))?;
        if tracepoint.fd().is_err() {
            tracepoint
                .load()
                .map_err(|error| refusal(program, &error))?;
        }
        let id = tracepoint.attach(program.function).with_context(|| {
            format!(
                "attach program {} to tracepoint {}",
                program.name, program.function
            )
        })?;
        let link = tracepoint
            .take_link(id)
            .with_context(|| format!("keep program {}", program.name))?;
        Ok((
            descriptor(program, tracepoint.fd())?,
            Link::RawTracepoint { _link: link },
        ))
    }
}

impl AttachedProgram {
    /// Runs that the kernel left out: while the program ran already, or, of a kprobe,
    /// while the CPU was in any other.
    fn missed(&self, recursion: u64) -> u64 {
        match &self.link {
            Link::Kprobe {
                info: Some(info), ..
            } => recursion + sys::kprobe_missed(info.as_fd()),
            Link::Kprobe { info: None, .. } | Link::Tracing { .. } | Link::RawTracepoint { .. } => {
                recursion
            }
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

/// The object's code with the addresses of the maps in it, for programs that aya
/// does not load.
fn relocated(bytes: &[u8], maps: &Ebpf) -> anyhow::Result<aya_obj::Object> {
    let mut code = aya_obj::Object::parse(bytes)?;
    let text: HashSet<usize> = code.functions.keys().map(|(section, _)| *section).collect();
    let definitions = std::mem::take(&mut code.maps);
    let fds = definitions
        .iter()
        .map(|(name, definition)| {
            let map = maps
                .map(name)
                .ok_or_else(|| anyhow!("map {name} was not created"))?;
            Ok((name.as_str(), map_fd(map)?, definition))
        })
        .collect::<anyhow::Result<Vec<(&str, RawFd, &aya_obj::Map)>>>()?;
    code.relocate_maps(fds.into_iter(), &text)?;
    code.relocate_calls(&text)?;
    Ok(code)
}

fn map_fd(map: &Map) -> anyhow::Result<RawFd> {
    Ok(data(map)?.fd().as_fd().as_raw_fd())
}

fn data(map: &Map) -> anyhow::Result<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::RingBuf(data)
        | Map::StackTraceMap(data) => Ok(data),
        other => Err(anyhow!("no probe uses maps like {other:?}")),
    }
}

/// The descriptor of a program that aya has loaded, once more.
fn descriptor(program: &Program, fd: Result<&ProgramFd, ProgramError>) -> anyhow::Result<OwnedFd> {
    let context = || format!("descriptor of program {}", program.name);
    let fd = fd.with_context(context)?;
    fd.as_fd().try_clone_to_owned().with_context(context)
}

/// Why aya could not load a program, without the whole of the verifier's log.
fn refusal(program: &Program, error: &ProgramError) -> anyhow::Error {
    match error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            anyhow!(
                "load program {}: {io_error}{}",
                program.name,
                last_words(log.as_bytes())
            )
        }
        other => anyhow!("load program {}: {other}", program.name),
    }
}

/// What the verifier prints after its complaint.
const STATISTICS: [&str; 3] = ["verification time", "stack depth", "processed"];

/// The verifier's complaint: the last lines of its log before the statistics.
fn last_words(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines = text.trim_end_matches('\0').trim().lines();
    let statistics = |line: &&str| STATISTICS.iter().any(|begin| line.starts_with(begin));
    let mut last: Vec<_> = lines.rev().skip_while(statistics).take(3).collect();
    if last.is_empty() {
        return String::new();
    }
    last.reverse();
    format!("; the verifier: {}", last.join(" / "))
}
