//! What the agent says of its own work.

use crate::model::{
    About, AilmentReport, Coverage, Errors, FindingKind, MetricDef, NodeReport, ProbeReport,
    Sample, Verdict, metrics,
};

metrics! {
    pub(super) METRICS:
    /// Always 1; the label version is the version of the agent.
    pub(super) BUILD_INFO: Gauge = "nodemedic_build_info" ["version"];
    /// Series beyond metrics.max_series that the page omits, counted at each reading.
    SERIES_DROPPED: Counter = "nodemedic_series_dropped_total" [];
    /// 1 if the last reading of the ailment succeeded, at least on its baseline, else 0.
    UP: Gauge = "nodemedic_ailment_up" ["ailment"];
    /// 1 for the current coverage of the ailment, 0 for the others: starting, full, partial,
    /// waiting for its module, unsupported by the kernel, failed.
    COVERAGE: Gauge = "nodemedic_ailment_coverage" ["ailment", "coverage"];
    /// 1 for the current verdict, 0 for the others.
    VERDICT: Gauge = "nodemedic_ailment_verdict" ["ailment", "verdict"];
    /// Findings of the last reading, by kind.
    FINDINGS: Gauge = "nodemedic_ailment_findings" ["ailment", "kind"];
    /// Always 1; the label hook is how the probe is attached, none if it is not.
    PROBE_INFO: Gauge = "nodemedic_ailment_probe_info" ["ailment", "probe", "hook"];
    /// Duration of the last reading of the ailment.
    MEASURE_SECONDS: Gauge = "nodemedic_ailment_measure_seconds" ["ailment"];
    /// Time of the last successful reading, in seconds since the epoch. Absent before the first.
    READING_TIMESTAMP: Gauge = "nodemedic_ailment_reading_timestamp_seconds" ["ailment"];
    /// Events that the probes lost, in whole or in part, since they were attached, by reason.
    LOST_EVENTS: Counter = "nodemedic_ailment_lost_events_total" ["ailment", "reason"];
    /// Failures to attach the probes, to take a reading, or to finish it within the tick.
    ERRORS: Counter = "nodemedic_ailment_errors_total" ["ailment", "stage"];
    /// Runs of a BPF program, while metrics.bpf_stats is on.
    PROGRAM_RUNS: Counter = "nodemedic_bpf_program_runs_total" ["ailment", "program"];
    /// Run time of a BPF program, while metrics.bpf_stats is on.
    PROGRAM_SECONDS: Counter = "nodemedic_bpf_program_run_seconds_total" ["ailment", "program"];
    /// Runs that the kernel skipped because the program, or another kprobe, already ran on that CPU.
    PROGRAM_MISSES: Counter = "nodemedic_bpf_program_recursion_misses_total" ["ailment", "program"];
}

/// What can be said before there is a report.
pub(super) fn build_info() -> Sample {
    Sample::number(&BUILD_INFO, [env!("CARGO_PKG_VERSION")], 1.0)
}

/// What a report on these ailments says of the agent's work. An ailment that is switched off has no series.
pub(super) fn samples(report: &NodeReport, ailments: &[About]) -> Vec<Sample> {
    let mut samples = vec![Sample::plain(&SERIES_DROPPED, report.series_dropped as f64)];
    for ailment in report
        .ailments
        .iter()
        .filter(|ailment| ailment.coverage != Coverage::Off)
    {
        let about = ailments.iter().find(|about| about.name == ailment.name);
        let kinds = about.map_or(&[][..], |about| about.findings);
        Observer {
            samples: &mut samples,
            ailment,
        }
        .all(kinds);
    }
    samples
}

struct Observer<'a> {
    samples: &'a mut Vec<Sample>,
    ailment: &'a AilmentReport,
}

impl Observer<'_> {
    fn all(&mut self, kinds: &[FindingKind]) {
        let ailment = self.ailment;
        let measured = !ailment.reading.is_null();
        self.put(&UP, [], f64::from(u8::from(measured)));
        self.put(&MEASURE_SECONDS, [], ailment.measure_seconds);
        if let Some(read) = ailment.reading_unix_seconds {
            self.put(&READING_TIMESTAMP, [], read);
        }
        self.coverage();
        self.verdict();
        self.findings(kinds);
        self.errors();
        for ProbeReport { name, hook, .. } in &ailment.probes {
            self.put(&PROBE_INFO, [name, hook.as_deref().unwrap_or("none")], 1.0);
        }
        for (reason, count) in &ailment.lost_events {
            self.put(&LOST_EVENTS, [reason], *count as f64);
        }
        for program in &ailment.programs {
            self.put(&PROGRAM_RUNS, [&program.name], program.runs as f64);
            self.put(&PROGRAM_SECONDS, [&program.name], program.run_seconds);
            self.put(
                &PROGRAM_MISSES,
                [&program.name],
                program.recursion_misses as f64,
            );
        }
    }

    fn coverage(&mut self) {
        for name in Coverage::NAMES {
            let holds = self.ailment.coverage.name() == name;
            self.put(&COVERAGE, [name], f64::from(u8::from(holds)));
        }
    }

    fn verdict(&mut self) {
        for verdict in Verdict::ALL {
            let holds = self.ailment.verdict == verdict;
            self.put(&VERDICT, [verdict.name()], f64::from(u8::from(holds)));
        }
    }

    fn findings(&mut self, kinds: &[FindingKind]) {
        for kind in kinds {
            let found = self
                .ailment
                .findings
                .iter()
                .filter(|finding| finding.kind == kind.kind);
            let count = found.count() as f64;
            self.put(&FINDINGS, [kind.kind], count);
        }
    }

    fn errors(&mut self) {
        let Errors {
            attach,
            measure,
            late,
        } = self.ailment.errors;
        for (stage, count) in [("attach", attach), ("measure", measure), ("late", late)] {
            self.put(&ERRORS, [stage], count as f64);
        }
    }

    /// A sample whose first label is the ailment.
    fn put<const N: usize>(&mut self, metric: &'static MetricDef, rest: [&str; N], value: f64) {
        let labels = [self.ailment.name.as_str()].into_iter().chain(rest);
        self.samples.push(Sample::number(metric, labels, value));
    }
}
