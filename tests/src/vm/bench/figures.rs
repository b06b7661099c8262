//! What the scenarios of the benchmark measure.

use serde::Serialize;

/// What is attached where entries are made and where they go: our probes, by the hook of their
/// choice.
pub const NODEMEDIC: &str = "nodemedic, fentry";
/// The least.
pub const BPFTRACE_COUNTER: &str = "bpftrace, kprobe: two counters";
/// What finds out the same.
pub const BPFTRACE_ALIKE: &str = "bpftrace, kprobe: the same facts";

/// The hooks on the beginning and the end of an entry.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hooks {
    /// One-shot exchanges of each round.
    pub exchanges: u32,
    /// The first has nothing attached.
    pub rounds: Vec<Rounds>,
    pub programs: Vec<Program>,
}

/// How long each round took, seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rounds {
    /// What was attached.
    pub attached: String,
    /// The exchanges, each of which makes an entry.
    pub made: Vec<f64>,
    /// The removal of all these entries, which have expired.
    pub expired: Vec<f64>,
}

impl Rounds {
    /// Before the first round.
    pub fn of(attached: &str) -> Self {
        Self {
            attached: attached.to_owned(),
            made: Vec::new(),
            expired: Vec::new(),
        }
    }
}

/// How often the kernel ran a BPF program, and for how long, as itself counts it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Program {
    /// Which program of whom.
    pub name: String,
    pub runs: u64,
    pub nanoseconds: u64,
}

/// Queries a second that dnsperf got answered, each from a port of its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Dns {
    pub queries: u32,
    pub without: Vec<f64>,
    pub with: Vec<f64>,
}

/// Scrapes of a page that is small, and of one as large as it gets.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scrape {
    pub pages: Vec<Page>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page {
    pub series: u64,
    pub bytes: u64,
    /// From the request to the last byte, each time.
    pub seconds: Vec<f64>,
    /// CPU time of the agent a scrape.
    pub cpu_seconds: f64,
}

/// What the agent's process takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Footprint {
    pub attached: Memory,
    pub loaded: Memory,
    /// Memory of the kernel that its maps have taken at once, bytes.
    pub map_bytes: u64,
    /// CPU time by wall time, with nothing going on.
    pub idle_cpu: f64,
    /// The same under the load.
    pub loaded_cpu: f64,
    pub load_per_second: u32,
}

/// Of one process, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub resident: u64,
    /// Of these, what is not the program's own file.
    pub anonymous: u64,
    /// The most there has been.
    pub peak: u64,
}

/// Scans of a large table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scan {
    pub entries: u64,
    /// That `conntrack -L` takes, seconds.
    pub listing: f64,
    pub scans: Vec<OneScan>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OneScan {
    /// `scan_timeout`, seconds.
    pub limit: f64,
    pub seconds: f64,
    pub seen: u64,
    pub complete: bool,
}

/// What the kernel counts of programs on the IPVS estimator, and on what it holds up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Passes {
    pub services: u32,
    /// What is called for each.
    pub function: String,
    pub programs: Vec<Program>,
}

/// The agent beside few of what it looks at, and beside very many.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sizes {
    /// For how long each, seconds.
    pub watched: f64,
    pub at: Vec<AtSize>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AtSize {
    /// How many there are.
    pub size: u32,
    /// How long the readings of the ailments that look at them took, seconds.
    pub readings: Vec<f64>,
    /// CPU time by wall time.
    pub cpu: f64,
    pub memory: Memory,
    /// Of the page of metrics.
    pub series: usize,
}

/// Connections through IPVS.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Connections {
    /// Of each round.
    pub connections: u32,
    /// The first has nothing attached.
    pub rounds: Vec<SetUps>,
    pub programs: Vec<Program>,
}

/// How long all connections of a round took, seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SetUps {
    /// What was attached.
    pub attached: String,
    /// From ports that were not used before.
    pub new: Vec<f64>,
    /// From the same ports again: each old connection is let go.
    pub reused: Vec<f64>,
}

impl SetUps {
    /// Before the first round.
    pub fn of(attached: &str) -> Self {
        Self {
            attached: attached.to_owned(),
            new: Vec::new(),
            reused: Vec::new(),
        }
    }
}

/// A byte that goes between two threads, which have to be switched each time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Switches {
    /// Of each round: two switches each.
    pub round_trips: u32,
    /// The first has no agent.
    pub rounds: Vec<SwitchRounds>,
}

/// How long each round took, seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SwitchRounds {
    /// What was attached.
    pub attached: String,
    pub seconds: Vec<f64>,
}

impl SwitchRounds {
    /// Before the first round.
    pub fn of(attached: &str) -> Self {
        Self {
            attached: attached.to_owned(),
            seconds: Vec::new(),
        }
    }
}
