//! The ailment's metrics: the only definition of each, and how a reading fills them.

use super::Reading;
use crate::model::{Sample, metrics};

metrics! {
    pub(super) ALL:
    /// Connection requests that full listeners dropped, by network namespace and port.
    DROPS: Counter = "nodemedic_listen_overflow_drops_total" ["netns", "port"];
    /// Connections that full listeners dropped in the agent's network namespace since boot
    /// (ListenOverflows of /proc/net/netstat).
    OVERFLOWS: Counter = "nodemedic_listen_overflow_overflows_total" [];
    /// net.core.somaxconn, the highest length of an accept queue.
    SOMAXCONN: Gauge = "nodemedic_listen_overflow_somaxconn" [];
}

/// The reading as series.
pub(super) fn samples(reading: &Reading) -> Vec<Sample> {
    let mut samples = vec![Sample::plain(&OVERFLOWS, reading.overflows as f64)];
    let somaxconn = reading.somaxconn.iter();
    samples.extend(somaxconn.map(|somaxconn| Sample::plain(&SOMAXCONN, *somaxconn as f64)));
    if let Some(probed) = &reading.probed {
        samples.extend(probed.shown.iter().map(|listener| {
            let labels = [listener.netns.to_string(), listener.port.to_string()];
            Sample::number(&DROPS, labels, listener.drops as f64)
        }));
        samples.push(Sample::number(&DROPS, ["other"; 2], probed.other as f64));
    }
    samples
}
