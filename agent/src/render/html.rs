//! The status page: the verdicts at a glance, and where the rest is. It loads
//! nothing, so it works on a node that reaches nothing.

use super::{names, number};

use crate::model::{AilmentReport, Coverage, Finding, NodeReport, Verdict};

const STYLE: &str = "body{font:16px/1.5 sans-serif;margin:2rem auto;max-width:50rem;padding:0 1rem}\
    h1,h2{font-weight:600}.healthy{color:#176b2c}.unknown{color:#555}.warning{color:#8a5a00}\
    .critical{color:#b00020}small{color:#555}";

/// The page `/`; without a report it says that there is none yet.
pub fn status_page(report: Option<&NodeReport>) -> String {
    let (title, body) = match report {
        Some(report) => (
            format!("nodemedic on {}", escape(&report.node)),
            node(report),
        ),
        None => (
            "nodemedic".to_owned(),
            "<p>The first reading is under way.</p>".to_owned(),
        ),
    };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style></head>\n<body><h1>{title}</h1>\n{body}\n<p>\
         <a href=\"metrics\">metrics</a> · <a href=\"report\">report</a> · \
         <a href=\"healthz\">healthz</a> · <a href=\"readyz\">readyz</a></p></body></html>\n"
    )
}

fn node(report: &NodeReport) -> String {
    let mut body = format!(
        "<p>{} <small>kernel {}, nodemedic {}</small></p>\n",
        verdict(report.verdict()),
        escape(&report.kernel),
        escape(&report.agent)
    );
    if let Some(names) = names::of(report) {
        body.push_str(&format!("<p><small>{}</small></p>\n", escape(&names)));
    }
    report
        .ailments
        .iter()
        .for_each(|it| body.push_str(&ailment(it)));
    body
}

fn ailment(ailment: &AilmentReport) -> String {
    let (name, state) = (escape(&ailment.name), escape(&state(&ailment.coverage)));
    let mut html = format!(
        "<h2>{name}: {}</h2>\n<p><small>{state}</small></p>\n",
        verdict(ailment.verdict)
    );
    ailment
        .findings
        .iter()
        .for_each(|it| html.push_str(&finding(it)));
    for note in &ailment.notes {
        html.push_str(&format!("<p>{}</p>\n", escape(note)));
    }
    html
}

fn state(coverage: &Coverage) -> String {
    match coverage {
        Coverage::Starting => "its probes are being attached".to_owned(),
        Coverage::Full => "all probes are attached".to_owned(),
        Coverage::Partial => "measured in part: nodemedic probes tells what is missing".to_owned(),
        Coverage::Waiting { module } => {
            format!("waiting for module {module} to be loaded and used")
        }
        Coverage::Unsupported { why } | Coverage::Failed { why } => {
            format!("not measured: {why}")
        }
        Coverage::Off => "switched off in the configuration".to_owned(),
    }
}

fn finding(finding: &Finding) -> String {
    let mut html = format!(
        "<p class=\"{}\"><b>{}</b>: {}</p>\n<ul>",
        Verdict::from(finding.severity).name(),
        escape(&finding.kind),
        escape(&finding.summary)
    );
    for evidence in &finding.evidence {
        let limit = evidence
            .limit
            .map(|limit| format!(", limit {}", number(limit)));
        let (metric, value) = (escape(&evidence.metric), number(evidence.value));
        html.push_str(&format!(
            "<li>{metric} {value}{}</li>",
            limit.unwrap_or_default()
        ));
    }
    for (part, parties) in [
        ("Caused by", &finding.culprits),
        ("Hurts", &finding.victims),
    ] {
        for party in parties {
            let (who, share) = (escape(&party.who), escape(&party.share));
            html.push_str(&format!("<li>{part} {who}: {share}</li>"));
        }
    }
    for remedy in &finding.remedies {
        html.push_str(&format!("<li>What helps: {}</li>", escape(remedy)));
    }
    html.push_str("</ul>\n");
    html
}

fn verdict(verdict: Verdict) -> String {
    format!("<b class=\"{0}\">{0}</b>", verdict.name())
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
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
        assert!(status_page(None).contains("under way"));
    }
}
