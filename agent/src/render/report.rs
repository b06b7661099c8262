//! The report as text, for an SRE at a terminal: the verdict first, then what it
//! rests on, who, and what to do; at the end what was not measured.

use std::time::{Duration, UNIX_EPOCH};

use humantime::format_rfc3339_seconds;

use super::{Terminal, fill, names, number};

use crate::{
    model::{
        AilmentReport, Coverage, Evidence, Finding, Missing, NodeReport, Party, Severity,
        missing_by_probe,
    },
    text::one_line,
};

/// Columns that the names of a finding's parts take.
const PART: usize = 14;

/// The report as `check` shows it.
pub fn report_as_text(report: &NodeReport, terminal: Terminal) -> String {
    let mut text = Text {
        terminal,
        text: String::new(),
    };
    text.head(report);
    for ailment in report
        .ailments
        .iter()
        .filter(|ailment| !ailment.reading.is_null())
    {
        text.ailment(ailment);
    }
    text.not_measured(&report.ailments);
    text.text
}

struct Text {
    terminal: Terminal,
    text: String,
}

impl Text {
    fn head(&mut self, report: &NodeReport) {
        let taken = UNIX_EPOCH + Duration::from_secs_f64(report.unix_seconds.clamp(0.0, 1e11));
        let verdict = self.terminal.verdict(report.verdict());
        self.line(&format!("{}: {verdict}", one_line(&report.node)));
        let taken = format_rfc3339_seconds(taken);
        let about = format!(
            "kernel {}, nodemedic {}, {taken}",
            report.kernel, report.agent
        );
        self.hanging(0, "", 2, &about);
        if let Some(names) = names::of(report) {
            self.hanging(0, "", 2, &names);
        }
        if let Some(trouble) = &report.treatment_trouble {
            self.hanging(0, "no treatment can begin: ", 2, trouble);
        }
    }

    fn ailment(&mut self, ailment: &AilmentReport) {
        let verdict = self.terminal.verdict(ailment.verdict);
        self.line("");
        self.line(&format!("{}: {verdict}", one_line(&ailment.name)));
        for finding in &ailment.findings {
            self.finding(finding);
        }
        for note in &ailment.notes {
            self.line("");
            self.hanging(2, "note: ", 4, note);
        }
    }

    fn finding(&mut self, finding: &Finding) {
        let severity = match finding.severity {
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        };
        self.line("");
        self.hanging(
            2,
            &format!("{} ({severity}): ", finding.kind),
            4,
            &finding.summary,
        );
        self.part("evidence", finding.evidence.iter().map(evidence));
        self.part("caused by", finding.culprits.iter().map(party));
        self.part("hurts", finding.victims.iter().map(party));
        self.part("what helps", finding.remedies.iter().cloned());
    }

    /// One line an item, or more where it is long; the name stands before the first.
    fn part(&mut self, name: &str, items: impl Iterator<Item = String>) {
        let mut name = name;
        for item in items {
            self.hanging(4, &format!("{name:PART$}"), 4 + PART, &item);
            name = "";
        }
    }

    fn not_measured(&mut self, ailments: &[AilmentReport]) {
        let mut title = Some("Not measured");
        for ailment in ailments {
            let name = &ailment.name;
            if let Some(why) = unmeasured(&ailment.coverage) {
                self.title(&mut title);
                self.hanging(2, &format!("{name}: "), 4, &why);
            }
            for (probes, missing) in missing_by_probe(&ailment.probes) {
                self.title(&mut title);
                let probes = probes.join(", ");
                self.missing(&format!("{name}, {probes}: "), missing);
            }
        }
    }

    fn title(&mut self, title: &mut Option<&str>) {
        if let Some(title) = title.take() {
            self.line("");
            self.line(title);
        }
    }

    fn missing(&mut self, of: &str, missing: &[Missing]) {
        let mut of = of;
        for Missing { what, why, remedy } in missing {
            self.hanging(2, of, 4, &format!("missing: {what}: {why}."));
            self.hanging(4, "fix: ", 6, &format!("{remedy}."));
            of = "  ";
        }
    }

    /// A text behind a label, its further lines indented.
    fn hanging(&mut self, indent: usize, label: &str, further: usize, text: &str) {
        let first = format!("{:indent$}{}", "", one_line(label));
        let further = " ".repeat(further);
        let lines = fill(text, self.terminal.width(), &first, &further);
        self.text.push_str(&lines);
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }
}

fn evidence(evidence: &Evidence) -> String {
    let value = number(evidence.value);
    match evidence.limit {
        Some(limit) => format!("{} {value}, limit {}", evidence.metric, number(limit)),
        None => format!("{} {value}", evidence.metric),
    }
}

fn party(party: &Party) -> String {
    format!("{}: {}", party.who, party.share)
}

/// Why there is no reading at all, where that is so.
fn unmeasured(coverage: &Coverage) -> Option<String> {
    match coverage {
        Coverage::Full | Coverage::Partial => None,
        Coverage::Starting => Some("its probes are still being attached.".to_owned()),
        Coverage::Waiting { module } => Some(format!(
            "module {module} is not loaded, or nothing uses it, so there is nothing to measure."
        )),
        Coverage::Unsupported { why } | Coverage::Failed { why } => Some(format!("{why}.")),
        Coverage::Off => Some("it is switched off in the configuration.".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProbeReport;
    use crate::{collector::fake, identity::Identity};

    fn sick() -> NodeReport {
        let mut report = Identity::fake().report(vec![fake::report(1_200)], 0);
        report.unix_seconds = 1_795_552_867.4;
        report
    }

    #[test]
    fn a_finding_is_told_from_the_verdict_to_what_helps() {
        let text = report_as_text(&sick(), Terminal::plain(60));
        let expected = "\
node-7: critical
kernel 6.12.95, nodemedic 0.1.0, 2026-11-24T20:41:07Z

fake: critical

  rate_high (critical): The rate is high <so it seems>.
    evidence      nodemedic_fake_events_total 1,200, limit
                  100
    caused by     the source: all of it
    hurts         the receiver: 120 events
    what helps    Slow the source down.
                  Wait.
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_was_not_measured_comes_last_and_once_for_all_probes_of_a_reason() {
        let mut report = sick();
        let missing = Missing {
            what: "fexit".to_owned(),
            why: "the kernel refuses it".to_owned(),
            remedy: "boot another".to_owned(),
        };
        let probe = |name: &str| ProbeReport {
            name: name.to_owned(),
            hook: None,
            missing: vec![missing.clone()],
        };
        let waiting = Coverage::Waiting {
            module: "ip_vs".to_owned(),
        };
        report.ailments = vec![
            AilmentReport::unmeasured("fake", Coverage::Partial, vec![probe("a"), probe("b")]),
            AilmentReport::unmeasured("other", waiting, Vec::new()),
        ];
        let text = report_as_text(&report, Terminal::plain(60));
        let expected = "
Not measured
  fake, a, b: missing: fexit: the kernel refuses it.
    fix: boot another.
  other: module ip_vs is not loaded, or nothing uses it, so
    there is nothing to measure.
";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [50, 72, 100] {
            let text = report_as_text(&sick(), Terminal::plain(width));
            let widest = text.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width), "{text}");
        }
    }
}
