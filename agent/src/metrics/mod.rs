//! Metrics: their definitions, and how a report becomes a page.

mod definition;

pub use definition::{Kind, MetricDef, Sample, Value};
