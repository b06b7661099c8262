//! What the listeners refuse before they read anything.

use crate::{
    http::Refusals,
    model::{Sample, metrics},
};

metrics! {
    /// The definitions.
    pub METRICS:
    /// Connections that a listener closed at once because the client's address has its share of
    /// them already.
    REFUSED: Counter = "nodemedic_http_connections_refused_total" ["listener"];
}

/// Those of each listener.
pub fn samples(listeners: &[(&'static str, Refusals)]) -> Vec<Sample> {
    let sample = |(name, refusals): &(&'static str, Refusals)| {
        Sample::number(&REFUSED, [*name], refusals.count() as f64)
    };
    listeners.iter().map(sample).collect()
}
