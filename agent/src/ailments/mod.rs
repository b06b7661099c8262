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
    model::Treatment,
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
    collector::registry(all().iter().map(AsRef::as_ref)).treatments
}
