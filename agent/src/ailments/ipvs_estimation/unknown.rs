//! What a reading without findings does not rule out.

use ebpf::ipvs_estimation::Context;

use super::measure::Reading;

/// Whole sentences; none where a reading without findings shows a healthy node.
pub(super) fn unknown(reading: &Reading) -> Vec<String> {
    let mut estimated = reading.namespaces.iter();
    let estimated = estimated.any(|it| it.estimators() > 0 && it.estimating != Some(false));
    if !estimated {
        return Vec::new();
    }
    // Passes that are measured need no list.
    let measured = reading.probed.as_ref();
    let measured = measured.is_some_and(|probed| probed.window_passes > 0);
    let incomplete = !measured && reading.namespaces.iter().any(|it| !it.scan.complete);
    let why = match reading.context {
        None => Some(
            "no function of the estimator is known in this kernel, so passes may run in a softirq \
             or in threads",
        ),
        Some(Context::Workqueue) if !measured => {
            Some("passes run on a kworker, and only probes show who waits for it")
        }
        Some(Context::Softirq) if reading.possible_cpus.is_none() => {
            Some("the number of possible CPUs could not be read")
        }
        Some(Context::Softirq) if incomplete => {
            Some("the list of services was not read to its end (scan_timeout)")
        }
        Some(Context::Kthread) if reading.threads.is_none() => {
            Some("the threads of the estimator were not found")
        }
        Some(Context::Softirq | Context::Kthread | Context::Workqueue) => None,
    };
    why.map(|why| {
        format!("cannot tell for how long a pass of the IPVS estimator holds a CPU: {why}")
    })
    .into_iter()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ailments::ipvs_estimation::measure::{Cost, NamespaceReading, Switches},
        kernel::ipvs::Scan,
    };

    fn without_probes(context: Option<Context>) -> Reading {
        Reading {
            window_seconds: 10.0,
            netns: 1,
            context,
            possible_cpus: Some(4),
            online_cpus: Some(4),
            switches: Switches::default(),
            namespaces: vec![NamespaceReading {
                netns: 1,
                pid: 1,
                scan: Scan {
                    services: 3,
                    destinations: 3,
                    complete: true,
                    ..Scan::default()
                },
                counted: None,
                estimating: None,
                est_nice: None,
            }],
            cost: Cost::LITERATURE,
            threads: None,
            probed: None,
        }
    }

    #[test]
    fn a_prediction_from_known_numbers_is_enough() {
        assert_eq!(unknown(&without_probes(Some(Context::Softirq))), [""; 0]);
    }

    #[test]
    fn each_number_that_is_missing_makes_it_unknown() {
        let mut reading = without_probes(None);
        assert_eq!(unknown(&reading).len(), 1, "the context");
        reading.namespaces[0].estimating = Some(false);
        assert_eq!(unknown(&reading), [""; 0], "nothing is estimated");
        let mut reading = without_probes(Some(Context::Softirq));
        reading.possible_cpus = None;
        assert_eq!(unknown(&reading).len(), 1, "the CPUs");
        let mut reading = without_probes(Some(Context::Softirq));
        reading.namespaces[0].scan.complete = false;
        assert_eq!(unknown(&reading).len(), 1, "the services");
        let reading = without_probes(Some(Context::Kthread));
        assert_eq!(unknown(&reading).len(), 1, "the threads");
    }
}
