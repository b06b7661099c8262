//! The kinds of finding: what leads to each, and what can be mistaken for it.

use super::fill;
use crate::model::FindingKind;

const WIDTH: usize = 80;

/// A kind with the name of its ailment.
type Listed = (&'static str, &'static FindingKind);

/// The kinds for a terminal.
pub fn findings_as_text(findings: &[Listed]) -> String {
    let text = |(ailment, finding): &Listed| {
        let mut text = format!("{} ({ailment})\n", finding.kind);
        for (name, what) in parts(finding) {
            text += &fill(what, WIDTH, &format!("  {name:13}"), &" ".repeat(15));
        }
        text
    };
    findings.iter().map(text).collect::<Vec<_>>().join("\n")
}

/// The kinds as the page of the documentation.
pub fn findings_as_markdown(findings: &[Listed]) -> String {
    let mut text = String::new();
    let mut last = "";
    for (ailment, finding) in findings {
        if last != *ailment {
            text += &format!("## {ailment}\n\n");
            last = ailment;
        }
        let anchor = finding.kind.replace('_', "-");
        text += &format!("### [{}](ailments/{ailment}.md#{anchor})\n\n", finding.kind);
        for (name, what) in parts(finding) {
            text += &format!("- **{name}:** {what}\n");
        }
        text.push('\n');
    }
    text.pop();
    text
}

const fn parts(finding: &FindingKind) -> [(&'static str, &'static str); 3] {
    [
        ("severity", finding.severity),
        ("numbers", finding.numbers),
        ("looks like it", finding.not),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ailments;

    #[test]
    fn every_kind_is_in_both_forms_with_its_numbers_and_what_it_is_not() {
        let findings = ailments::findings();
        let page = findings_as_markdown(&findings);
        let text = findings_as_text(&findings);
        assert!(!findings.is_empty());
        for (_, finding) in findings {
            assert!(text.contains(finding.kind), "{text}");
            for part in [finding.severity, finding.numbers, finding.not] {
                assert!(!part.is_empty() && page.contains(part), "{}", finding.kind);
            }
        }
    }
}
