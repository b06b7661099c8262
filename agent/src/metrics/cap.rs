//! The cap on the number of series, so that no node can flood a Prometheus.

use super::{agent, process, treatment};

use crate::model::{About, MetricValue, NodeReport, Sample};

/// Cuts the samples of a report so that its scrape has at most so many series,
/// and says how many went.
///
/// What the agent says of itself always stays. Ailments share the rest: one that
/// takes less than its part leaves what it does not need to the others. Within an
/// ailment the last samples go first.
pub fn cap(report: &mut NodeReport, ailments: &[About], max_series: usize) -> u64 {
    let mut room = max_series.saturating_sub(own(report, ailments));
    let mut smallest_first: Vec<_> = report.ailments.iter_mut().collect();
    smallest_first.sort_by_key(|ailment| series(&ailment.samples));
    let mut cut = 0;
    let mut sharers = smallest_first.len();
    for ailment in smallest_first {
        let (kept, gone) = trim(&mut ailment.samples, room / sharers);
        room -= kept;
        sharers -= 1;
        cut += gone;
    }
    cut as u64
}

/// The series that are not an ailment's: the agent's, the one with its version among
/// them, and the process's.
fn own(report: &NodeReport, ailments: &[About]) -> usize {
    agent::samples(report, ailments).len()
        + treatment::samples(report, ailments).len()
        + 1
        + process::METRICS.len()
}

/// Leaves at most so many series; says how many are left and how many went.
fn trim(samples: &mut Vec<Sample>, room: usize) -> (usize, usize) {
    let before = series(samples);
    let mut kept = 0;
    let fits = samples.iter().take_while(|sample| {
        let fits = kept + width(sample) <= room;
        kept += if fits { width(sample) } else { 0 };
        fits
    });
    let fits = fits.count();
    samples.truncate(fits);
    (kept, before - kept)
}

fn series(samples: &[Sample]) -> usize {
    samples.iter().map(width).sum()
}

/// A histogram is a series for each bucket, `+Inf`, `_sum` and `_count`.
fn width(sample: &Sample) -> usize {
    match &sample.value {
        MetricValue::Number(_) => 1,
        MetricValue::Histogram { buckets, .. } => buckets.len() + 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AilmentReport, Coverage};
    use crate::{
        collector::fake::{EVENTS, PAUSE},
        identity::Identity,
    };

    fn report(sizes: &[usize]) -> NodeReport {
        let ailments = sizes.iter().map(|size| {
            let mut ailment = AilmentReport::unmeasured("fake", Coverage::Full, Vec::new());
            ailment.samples = (0..*size)
                .map(|i| Sample::number(&EVENTS, [i.to_string()], 1.0))
                .collect();
            ailment
        });
        Identity::fake().report(ailments.collect(), 0)
    }

    fn sizes(report: &NodeReport) -> Vec<usize> {
        report
            .ailments
            .iter()
            .map(|ailment| ailment.samples.len())
            .collect()
    }

    #[test]
    fn what_fits_stays() {
        let mut report = report(&[10, 20]);
        let room = own(&report, &[]) + 30;
        assert_eq!(cap(&mut report, &[], room), 0);
        assert_eq!(sizes(&report), [10, 20]);
    }

    #[test]
    fn the_large_leave_room_to_the_small() {
        let mut report = report(&[1_000, 10, 500]);
        let room = own(&report, &[]) + 110;
        assert_eq!(cap(&mut report, &[], room), 1_510 - 110);
        assert_eq!(sizes(&report), [50, 10, 50]);
    }

    #[test]
    fn without_room_nothing_is_left() {
        let mut report = report(&[3]);
        assert_eq!(cap(&mut report, &[], 1), 3);
        assert_eq!(sizes(&report), [0]);
    }

    #[test]
    fn a_histogram_counts_as_all_its_series() {
        let histogram = MetricValue::Histogram {
            buckets: vec![(1.0, 0), (2.0, 0)],
            count: 0,
            sum: 0.0,
        };
        let sample = Sample::plain(&PAUSE, histogram);
        let mut samples = vec![sample.clone(), sample];
        assert_eq!(trim(&mut samples, 9), (5, 5));
        assert_eq!(samples.len(), 1);
    }
}
