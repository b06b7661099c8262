//! The ailment's table of the configuration.

use std::{ops::RangeInclusive, time::Duration};

use serde::{Deserialize, Serialize};

use crate::ailments::Impossible;

/// Sizes of the maps and limits of the verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Flows (namespace, port, source) that are told apart in the kernel at one
    /// time; 0.1 KiB of kernel memory each. Flows beyond it push out the least
    /// used, and what those had since the last tick is counted as `other`.
    pub max_flows: u32,
    /// Entries whose time of creation is remembered, for lifetimes; 0.1 KiB of
    /// kernel memory each.
    pub max_births: u32,
    /// Flows that `/metrics` shows; all others are one series, `other`.
    pub top_flows: u32,
    /// Time between two walks of the whole table through ctnetlink. "0s" switches
    /// them off.
    #[serde(with = "humantime_serde")]
    pub snapshot_interval: Duration,
    /// The longest that one walk may take. After a walk the next waits for at
    /// least 200 times as long as it took.
    #[serde(with = "humantime_serde")]
    pub snapshot_limit: Duration,
    /// `filling` when the table will be full in less than this.
    #[serde(with = "humantime_serde")]
    pub filling_within: Duration,
    /// `filling` when more than this share of the table is in use.
    pub filling_ratio: f64,
    /// `wasteful` when more than this share of the entries stand idle after a flow
    /// that is over.
    pub wasteful_ratio: f64,
    /// `wasteful` only when more than this share of the table is in use.
    pub wasteful_usage_ratio: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_flows: 8_192,
            max_births: 65_536,
            top_flows: 100,
            snapshot_interval: Duration::from_secs(60),
            snapshot_limit: Duration::from_millis(500),
            filling_within: Duration::from_secs(600),
            filling_ratio: 0.9,
            wasteful_ratio: 0.5,
            wasteful_usage_ratio: 0.1,
        }
    }
}

impl Settings {
    /// Whether all values are possible.
    pub fn check(&self) -> Result<(), Impossible> {
        within("max_flows", self.max_flows, 16..=1_048_576)?;
        within("max_births", self.max_births, 16..=4_194_304)?;
        within("top_flows", self.top_flows, 0..=1_000)?;
        within_seconds("snapshot_interval", self.snapshot_interval, 0..=86_400)?;
        within_seconds("snapshot_limit", self.snapshot_limit, 0..=10)?;
        within_seconds("filling_within", self.filling_within, 1..=86_400)?;
        ratio("filling_ratio", self.filling_ratio)?;
        ratio("wasteful_ratio", self.wasteful_ratio)?;
        ratio("wasteful_usage_ratio", self.wasteful_usage_ratio)
    }
}

fn within(key: &'static str, value: u32, range: RangeInclusive<u32>) -> Result<(), Impossible> {
    if range.contains(&value) {
        return Ok(());
    }
    let why = format!("is not within {} to {}", range.start(), range.end());
    Err(Impossible { key, why })
}

fn within_seconds(
    key: &'static str,
    value: Duration,
    range: RangeInclusive<u64>,
) -> Result<(), Impossible> {
    let (shortest, longest) =
        (Duration::from_secs(*range.start()), Duration::from_secs(*range.end()));
    if (shortest..=longest).contains(&value) {
        return Ok(());
    }
    let why = format!("is not within {}s to {}s", range.start(), range.end());
    Err(Impossible { key, why })
}

fn ratio(key: &'static str, value: f64) -> Result<(), Impossible> {
    if value > 0.0 && value <= 1.0 {
        return Ok(());
    }
    Err(Impossible { key, why: "is not a share: above 0, at most 1".to_owned() })
}
