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
    model::{About, FindingKind, Treatment},
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

/// All kinds of finding there are, each with its ailment, in the order of reports.
pub fn findings() -> Vec<(&'static str, &'static FindingKind)> {
    let about = all().into_iter().map(|collector| collector.about());
    let of = |about: About| {
        let findings = about.findings.iter();
        findings.map(move |finding| (about.name, finding))
    };
    about.flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        collector::{Ailment, Support},
        kernel::recorded,
    };

    fn waits_for_its_module<A: Ailment>() {
        let module = A::MODULE.expect("it probes one");
        let mut facts = recorded::newest();
        assert!(matches!(A::support(&facts), Support::Yes(_)), "{module}");
        let known = facts.modules.get_mut(module).expect("it is needed");
        known.users = Some(0);
        assert!(matches!(A::support(&facts), Support::Waiting), "{module}");
        facts.modules.remove(module);
        assert!(matches!(A::support(&facts), Support::Waiting), "{module}");
    }

    #[test]
    fn an_absent_or_unused_module_is_waited_for() {
        waits_for_its_module::<udp_conntrack::UdpConntrack>();
        waits_for_its_module::<ipvs_conn_reuse::IpvsConnReuse>();
        waits_for_its_module::<ipvs_estimation::IpvsEstimation>();
    }

    #[test]
    fn no_missing_fact_is_a_panic() {
        let mut tried = 0;
        for facts in recorded::damaged() {
            let _any = udp_conntrack::UdpConntrack::support(&facts);
            let _any = ipvs_conn_reuse::IpvsConnReuse::support(&facts);
            let _any = ipvs_estimation::IpvsEstimation::support(&facts);
            let _any = psi_stall::PsiStall::support(&facts);
            tried += 1;
        }
        assert!(tried > 200, "only {tried} kernels could be made");
    }
}
