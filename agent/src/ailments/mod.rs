//! The ailments: ways in which the kernel stalls a node.
//!
//! Each is a folder with the same files in the order of the flow: `mod` (what it is), `support`
//! (what this kernel offers), `measure`, `judge`, `metrics`, `treat`, and `settings` (its table of
//! the configuration).

mod address;
mod counters;
mod durations;
pub mod ipvs_conn_reuse;
pub mod ipvs_estimation;
mod poll_thread;
pub mod psi_stall;
mod ranking;
pub mod udp_conntrack;

use crate::{
    collector::{self, Collector},
    model::{Registry, Treatment},
};

/// All ailments there are, in the order of reports.
pub fn all() -> Vec<Box<dyn Collector>> {
    vec![
        collector::of::<udp_conntrack::UdpConntrack>(),
        collector::of::<ipvs_conn_reuse::IpvsConnReuse>(),
        collector::of::<ipvs_estimation::IpvsEstimation>(),
        collector::of::<psi_stall::PsiStall>(),
    ]
}

/// All treatments there are, each with its ailment, in the order of reports.
pub fn treatments() -> Vec<(&'static str, &'static Treatment)> {
    let collectors = all().into_iter().map(|collector| collector.about());
    collectors
        .flat_map(|about| about.treatments.iter().map(move |it| (about.name, *it)))
        .collect()
}

/// All treatments, and what they can switch on and off in the agent itself.
pub fn registry() -> Registry {
    Registry {
        treatments: treatments(),
        switches: vec![&ipvs_conn_reuse::SWEEP_DEAD],
    }
}
