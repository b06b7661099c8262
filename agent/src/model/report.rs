//! What the agent knows of its node at one tick: all that the front ends
//! (text, JSON, metrics, status page) may see.

use std::{sync::Arc, time::Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    DirectoryReport, Finding, ProbeReport, ProgramStats, Proposal, Run, Sample, TreatmentCounts,
    Verdict,
};

/// Version of the format of a saved report. A reader refuses any other.
pub const VERSION: u32 = 2;

/// One tick's findings on one node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeReport {
    /// [`VERSION`] of the writer.
    pub version: u32,
    /// The agent's version.
    pub agent: String,
    /// Host name of the node, or what the configuration calls it.
    pub node: String,
    /// Its host name, where that is another, and its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_called: Vec<String>,
    /// When the tick ended, seconds since the epoch.
    pub unix_seconds: f64,
    /// Release of the running kernel, as `uname -r` has it.
    pub kernel: String,
    /// Which process this is: another one has another, though it may have the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Who routes alerts to the node; absent where the agent takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing: Option<Routing>,
    /// One entry an ailment, in the order of the list of ailments.
    pub ailments: Vec<AilmentReport>,
    /// How well the names of pods are known; absent where nobody is asked.
    #[serde(default)]
    pub names: Option<DirectoryReport>,
    /// The treatments that are active, and the last that have ended, oldest first.
    #[serde(default)]
    pub treatments: Vec<Run>,
    /// Why no treatment can be recorded, and so none is begun, if so; what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub treatment_trouble: Option<String>,
    /// What was decided about treatments since the agent started.
    #[serde(default)]
    pub treatment_counts: TreatmentCounts,
    /// Series that the cap on a scrape has cut since the agent started, each
    /// counted once a tick.
    pub series_dropped: u64,
}

/// Who routes alerts to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// The number of the dispatcher that may have something begun: the time at which it started,
    /// microseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dispatcher: Option<u64>,
    /// Since it last said so.
    #[serde(default)]
    pub claim_age_seconds: u64,
    /// Payloads that are being decided on.
    #[serde(default)]
    pub deciding: usize,
}

/// What one ailment's tick gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AilmentReport {
    /// Its folder, label, config table and argument.
    pub name: String,
    /// How far it is measured on this kernel.
    pub coverage: Coverage,
    /// Each probe, with the hook in use or the reason for none.
    pub probes: Vec<ProbeReport>,
    /// What came out.
    pub verdict: Verdict,
    /// Why, in the order of severity; empty when healthy.
    pub findings: Vec<Finding>,
    /// What a user should know although nothing is wrong.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What each treatment would be now, safest first.
    #[serde(default)]
    pub proposals: Vec<Proposal>,
    /// Wall time that the measuring took, seconds.
    pub measure_seconds: f64,
    /// When the reading was taken, seconds since the epoch; absent before the first.
    pub reading_unix_seconds: Option<f64>,
    /// Events that the probes lost since they were attached, by reason.
    pub lost_events: Vec<(String, u64)>,
    /// What went wrong since the agent started.
    pub errors: Errors,
    /// Run count and run time of each BPF program, while they are asked for.
    pub programs: Vec<ProgramStats>,
    /// The ailment's own reading; replays to the same verdict.
    pub reading: serde_json::Value,
    /// The metrics of the ailment. Made again from the reading where needed.
    #[serde(skip)]
    pub samples: Vec<Sample>,
}

/// How far an ailment is measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Coverage {
    /// The probes are being attached for the first time.
    Starting,
    /// All probes are attached.
    Full,
    /// The baseline works, some or all probes do not.
    Partial,
    /// A kernel module is not loaded, so there is nothing to measure yet.
    Waiting {
        /// Its name.
        module: String,
    },
    /// The kernel lacks, or was told to leave out, what even the baseline needs. That is
    /// a fact about the node, which stays until it boots anew.
    Unsupported {
        /// As [`Self::Failed`] has it.
        why: String,
    },
    /// Not even the baseline can be read.
    Failed {
        /// The error, whole.
        why: String,
    },
    /// Switched off in the configuration.
    Off,
}

impl Coverage {
    /// What labels call those that an ailment can have that is not switched off.
    pub const NAMES: [&'static str; 6] = [
        "starting",
        "full",
        "partial",
        "waiting",
        "unsupported",
        "failed",
    ];

    /// What labels call it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Full => "full",
            Self::Partial => "partial",
            Self::Waiting { .. } => "waiting",
            Self::Unsupported { .. } => "unsupported",
            Self::Failed { .. } => "failed",
            Self::Off => "off",
        }
    }

    /// Whether there is, or soon will be, a reading.
    pub fn is_attached(&self) -> bool {
        match self {
            Self::Full | Self::Partial => true,
            Self::Starting
            | Self::Waiting { .. }
            | Self::Unsupported { .. }
            | Self::Failed { .. }
            | Self::Off => false,
        }
    }

    /// Whether the node can have the ailment at all, as far as anybody wants to know:
    /// without its module there is nothing that could be sick.
    fn can_be_sick(&self) -> bool {
        match self {
            Self::Starting
            | Self::Full
            | Self::Partial
            | Self::Unsupported { .. }
            | Self::Failed { .. } => true,
            Self::Waiting { .. } | Self::Off => false,
        }
    }
}

/// How often an ailment could not be observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    /// Attaching failed.
    pub attach: u64,
    /// A reading failed.
    pub measure: u64,
    /// The tick was over before the reading was there.
    pub late: u64,
}

impl AilmentReport {
    /// A report without a reading.
    pub fn unmeasured(name: &str, coverage: Coverage, probes: Vec<ProbeReport>) -> Self {
        Self {
            name: name.to_owned(),
            coverage,
            probes,
            verdict: Verdict::Unknown,
            findings: Vec::new(),
            notes: Vec::new(),
            proposals: Vec::new(),
            measure_seconds: 0.0,
            reading_unix_seconds: None,
            lost_events: Vec::new(),
            errors: Errors::default(),
            programs: Vec::new(),
            reading: serde_json::Value::Null,
            samples: Vec::new(),
        }
    }

    /// Whether there is no reading, and one is to come.
    pub fn is_about_to_be_measured(&self) -> bool {
        let starts = self.coverage == Coverage::Starting || self.coverage.is_attached();
        starts && self.reading.is_null()
    }
}

impl NodeReport {
    /// The worst verdict of all ailments that the node can have; healthy where there is
    /// none.
    pub fn verdict(&self) -> Verdict {
        self.ailments
            .iter()
            .filter(|ailment| ailment.coverage.can_be_sick())
            .map(|ailment| ailment.verdict)
            .max()
            .unwrap_or(Verdict::Healthy)
    }
}

/// The last report; none before the first.
pub type Reports = watch::Receiver<Option<Snapshot>>;

/// A report and when it was published.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What is known.
    pub report: Arc<NodeReport>,
    /// When the tick ended.
    pub taken: Instant,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ailments: &[(Coverage, Verdict)]) -> NodeReport {
        let ailment = |(coverage, verdict): &(Coverage, Verdict)| AilmentReport {
            verdict: *verdict,
            ..AilmentReport::unmeasured("other", coverage.clone(), Vec::new())
        };
        NodeReport {
            version: VERSION,
            agent: String::new(),
            node: String::new(),
            also_called: Vec::new(),
            unix_seconds: 0.0,
            kernel: String::new(),
            instance: None,
            routing: None,
            ailments: ailments.iter().map(ailment).collect(),
            treatments: Vec::new(),
            treatment_trouble: None,
            treatment_counts: TreatmentCounts::default(),
            names: None,
            series_dropped: 0,
        }
    }

    fn waiting() -> (Coverage, Verdict) {
        let module = "ip_vs".to_owned();
        (Coverage::Waiting { module }, Verdict::Unknown)
    }

    #[test]
    fn the_worst_ailment_is_the_verdict() {
        let healthy = (Coverage::Full, Verdict::Healthy);
        let sick = (Coverage::Partial, Verdict::Critical);
        assert_eq!(node(&[healthy, sick]).verdict(), Verdict::Critical);
    }

    #[test]
    fn what_the_node_cannot_have_does_not_count_and_what_failed_does() {
        let healthy = (Coverage::Full, Verdict::Healthy);
        let off = (Coverage::Off, Verdict::Unknown);
        let why = "no BTF".to_owned();
        let failed = (Coverage::Failed { why }, Verdict::Unknown);
        assert_eq!(
            node(&[healthy.clone(), waiting(), off]).verdict(),
            Verdict::Healthy
        );
        assert_eq!(node(&[waiting()]).verdict(), Verdict::Healthy);
        assert_eq!(node(&[healthy, failed]).verdict(), Verdict::Unknown);
    }
}
