//! The status page: the verdicts at a glance, and where the rest is. It loads
//! nothing, so it works on a node that reaches nothing.

use maud::{DOCTYPE, Markup, html};

use super::{names, number};

use crate::{
    model::{AilmentReport, Coverage, Evidence, Finding, NodeReport, Verdict},
    text::lines,
};

const STYLE: &str = "body{font:16px/1.5 sans-serif;margin:2rem auto;max-width:50rem;padding:0 1rem}\
    h1,h2{font-weight:600}.healthy{color:#176b2c}.unknown{color:#555}.warning{color:#8a5a00}\
    .critical{color:#b00020}small{color:#555}";

/// The pages that it leads to.
const PAGES: [&str; 4] = ["metrics", "report", "healthz", "readyz"];

/// The page `/`; without a report it says that there is none yet.
pub fn status_page(report: Option<&NodeReport>) -> String {
    let title = match report {
        Some(report) => format!("nodemedic on {}", report.node),
        None => "nodemedic".to_owned(),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { (title) }
                style { (STYLE) }
            }
            body {
                h1 { (title) }
                @match report {
                    Some(report) => (node(report)),
                    None => p { "The first reading is not complete yet." },
                }
                p {
                    @for (i, page) in PAGES.into_iter().enumerate() {
                        @if i > 0 { " · " }
                        a href=(page) { (page) }
                    }
                }
            }
        }
    };
    lines(&page.into_string()).into_owned()
}

fn node(report: &NodeReport) -> Markup {
    html! {
        p {
            (verdict(report.verdict())) " "
            small { "kernel " (report.kernel) ", nodemedic " (report.agent) }
        }
        @if let Some(names) = names::of(report) {
            p { small { (names) } }
        }
        @if let Some(trouble) = &report.treatment_trouble {
            p class=(Verdict::Warning.name()) { "No treatment can begin: " (trouble) }
        }
        @for it in &report.ailments { (ailment(it)) }
    }
}

fn ailment(ailment: &AilmentReport) -> Markup {
    html! {
        h2 { (ailment.name) ": " (verdict(ailment.verdict)) }
        p { small { (state(&ailment.coverage)) } }
        @for it in &ailment.findings { (finding(it)) }
        @for note in &ailment.notes { p { (note) } }
    }
}

fn state(coverage: &Coverage) -> String {
    match coverage {
        Coverage::Starting => "its probes are being attached".to_owned(),
        Coverage::Full => "all probes are attached".to_owned(),
        Coverage::Partial => "partial: nodemedic probes lists what is missing".to_owned(),
        Coverage::Waiting { module } => {
            format!("waiting for module {module} to be loaded and used")
        }
        Coverage::Unsupported { why } | Coverage::Failed { why } => {
            format!("not measured: {why}")
        }
        Coverage::Off => "switched off in the configuration".to_owned(),
    }
}

fn finding(finding: &Finding) -> Markup {
    html! {
        p class=(Verdict::from(finding.severity).name()) {
            b { (finding.kind) } ": " (finding.summary)
        }
        ul {
            @for Evidence { metric, value, limit } in &finding.evidence {
                li {
                    (metric) " " (number(*value))
                    @if let Some(limit) = limit { ", limit " (number(*limit)) }
                }
            }
            @for party in &finding.culprits { li { "Caused by " (party.who) ": " (party.share) } }
            @for party in &finding.victims { li { "Hurts " (party.who) ": " (party.share) } }
            @for remedy in &finding.remedies { li { "What helps: " (remedy) } }
        }
    }
}

fn verdict(verdict: Verdict) -> Markup {
    html! { b class=(verdict.name()) { (verdict.name()) } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{collector::fake, identity::Identity};

    fn page() -> String {
        status_page(Some(&Identity::fake().report(vec![fake::report(120)], 0)))
    }

    #[test]
    fn the_verdict_and_the_finding_are_on_the_page() {
        let page = page();
        for text in [
            "node-7",
            "<b class=\"critical\">critical</b>",
            "<b>rate_high</b>",
            "the source: all of it",
        ] {
            assert!(page.contains(text), "{text} is not in {page}");
        }
    }

    #[test]
    fn trouble_with_the_journal_is_on_the_page() {
        let mut report = Identity::fake().report(vec![fake::report(120)], 0);
        assert!(!page().contains("No treatment can begin"));
        report.treatment_trouble = Some("the disk is full".to_owned());
        let page = status_page(Some(&report));
        assert!(
            page.contains("No treatment can begin: the disk is full"),
            "{page}"
        );
    }

    #[test]
    fn text_from_outside_is_no_markup() {
        assert!(page().contains("is high &lt;so it seems&gt;."));
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        for loader in [
            "src=", "http:", "https:", "url(", "@import", "<script", "<link",
        ] {
            assert!(!page().contains(loader), "{loader}");
        }
    }

    #[test]
    fn before_the_first_report_there_is_a_page() {
        assert!(status_page(None).contains("not complete"));
    }
}
