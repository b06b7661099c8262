//! What a person can do against it, beside the treatments.

use ebpf::ipvs_estimation::Context;

use super::{measure::Reading, support::EST_CPULIST};
use crate::ailments::durations::seconds_as_text;

/// What this kernel lets a person do, safest first.
pub(super) fn advice(reading: &Reading) -> Vec<String> {
    let mut advice = Vec::new();
    match reading.context {
        Some(Context::Kthread) => advice.extend(other_cpus(reading)),
        Some(Context::Softirq | Context::Workqueue) | None => {}
    }
    advice.extend(fewer_cpus(reading));
    advice.push(
        "use fewer services: a NodePort takes one for each address of the node, an external IP \
         one for each port"
            .to_owned(),
    );
    if reading.holds_up_packets() {
        advice.push(
            "use Linux 6.2 or later, where kernel threads estimate in short pieces and no packet \
             waits"
                .to_owned(),
        );
    }
    advice
}

/// Which CPUs have time is for people to know.
fn other_cpus(reading: &Reading) -> Option<String> {
    let undo = match reading.switches.est_cpulist.as_deref()? {
        "" => "an empty list".to_owned(),
        list => list.to_owned(),
    };
    Some(format!(
        "sysctl -w {EST_CPULIST}=LIST: the threads run on idle CPUs, out of those that the writer \
         may use itself; undo: set {undo}"
    ))
}

/// A pass visits CPUs that will never come.
fn fewer_cpus(reading: &Reading) -> Option<String> {
    let (possible, online) = (reading.possible_cpus?, reading.online_cpus?);
    let (worst, now) = reading.longest_predicted()?;
    (possible > online).then(|| {
        format!(
            "boot with possible_cpus={online}: a pass visits each of {possible} possible CPUs, of \
             which {online} are online, so it would take about {} instead of {}; costs: further \
             CPUs need a reboot; undo: remove it from the command line",
            seconds_as_text(reading.predicted(worst, online)),
            seconds_as_text(now)
        )
    })
}
