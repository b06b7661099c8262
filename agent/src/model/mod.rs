//! The data that all parts of the agent share: what it knows of its node at one tick, and what
//! its parts are before there is a node. Plain data and pure functions; nothing of the agent is
//! imported here.

mod about;
mod counts;
mod finding;
mod health;
mod metric;
mod names;
mod needs;
mod probe;
mod report;
mod run;
mod treatment;

pub use about::About;
pub use counts::TreatmentCounts;
pub use finding::{Evidence, Finding, FindingKind, Party, Severity, Verdict};
pub use health::HealthSnapshot;
pub(crate) use metric::metrics;
pub use metric::{MetricDef, MetricKind, MetricValue, Sample, Section};
pub use names::DirectoryReport;
pub use needs::{Function, KernelObject, MemberPath, Needs};
pub use probe::{Missing, ProbeReport, ProgramStats, missing_by_probe};
pub use report::{
    AilmentReport, Coverage, Errors, NodeReport, Reports, Routing, Snapshot, VERSION,
};
pub use run::{Change, Ending, Resolution, Run, RunState, Trigger};
pub use treatment::{Bound, LONGEST, Proposal, Registry, Switch, Treatment};
