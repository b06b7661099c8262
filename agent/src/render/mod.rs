//! Renderings of the report and of what the agent knows of itself.

mod findings;
mod html;
mod metrics;
mod names;
mod number;
mod probes;
mod report;
mod terminal;
mod treatments;
mod wrap;

pub use findings::{findings_as_markdown, findings_as_text};
pub use html::status_page;
pub use metrics::{metrics_as_markdown, metrics_as_text};
pub use names::names_as_text;
pub use number::number;
pub use probes::probes_as_text;
pub use report::report_as_text;
pub use terminal::{Terminal, complain, print};
pub use treatments::{run_as_text, runs_as_text, treatments_as_markdown, treatments_as_text};
pub use wrap::fill;
