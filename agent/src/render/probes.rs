//! The table of probes: what is attached on this kernel, and how.

use super::{Terminal, fill};

use crate::model::{AilmentReport, Coverage, Missing, ProbeReport};

/// The table as `probes` shows it: a line a probe, below it why no cheaper hook,
/// or none, is in use. A reason that stands above already is not told again.
pub fn probes_as_text(ailments: &[AilmentReport], terminal: Terminal) -> String {
    let rows = rows(ailments);
    let widths = [0, 1].map(|column| {
        rows.iter()
            .map(|row| row.cells[column].chars().count())
            .max()
            .unwrap_or_default()
    });
    let mut text = String::new();
    let mut shown = Vec::new();
    for Row {
        cells: [ailment, probe, hook],
        missing,
    } in &rows
    {
        let new: Vec<_> = missing
            .iter()
            .filter(|reason| !shown.contains(reason))
            .collect();
        let as_above = if missing.len() > new.len() {
            ", as above"
        } else {
            ""
        };
        let line = format!(
            "{ailment:0$}  {probe:1$}  {hook}{as_above}",
            widths[0], widths[1]
        );
        text.push_str(line.trim_end());
        text.push('\n');
        for reason in new {
            tell(&mut text, reason, terminal.width());
            shown.push(reason);
        }
    }
    text
}

struct Row<'a> {
    cells: [&'a str; 3],
    missing: &'a [Missing],
}

fn rows(ailments: &[AilmentReport]) -> Vec<Row<'_>> {
    let mut rows = vec![Row {
        cells: ["AILMENT", "PROBE", "HOOK"],
        missing: &[],
    }];
    for ailment in ailments {
        if ailment.probes.is_empty() {
            let cells = [ailment.name.as_str(), "-", state(&ailment.coverage)];
            rows.push(Row {
                cells,
                missing: &[],
            });
        }
        for ProbeReport {
            name,
            hook,
            missing,
        } in &ailment.probes
        {
            let hook = hook.as_deref().unwrap_or("none");
            rows.push(Row {
                cells: [&ailment.name, name, hook],
                missing,
            });
        }
    }
    rows
}

/// What to say of an ailment that has no probes to list.
fn state(coverage: &Coverage) -> &str {
    match coverage {
        Coverage::Starting => "still being attached",
        Coverage::Full | Coverage::Partial => "none needed",
        Coverage::Waiting { .. } => "waiting for its module to be loaded and used",
        Coverage::Unsupported { why } | Coverage::Failed { why } => why,
        Coverage::Off => "switched off in the configuration",
    }
}

fn tell(text: &mut String, Missing { what, why, remedy }: &Missing, width: usize) {
    let (missing, fix) = (
        format!("missing: {what}: {why}."),
        format!("fix: {remedy}."),
    );
    text.push_str(&fill(&missing, width, "    ", "    "));
    text.push_str(&fill(&fix, width, "      ", "      "));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(name: &str, hook: Option<&str>, missing: &[Missing]) -> ProbeReport {
        let hook = hook.map(str::to_owned);
        ProbeReport {
            name: name.to_owned(),
            hook,
            missing: missing.to_vec(),
        }
    }

    #[test]
    fn each_probe_has_its_line_and_each_reason_stands_once() {
        let no_btf = Missing {
            what: "fexit".to_owned(),
            why: "module nf_conntrack has no BTF".to_owned(),
            remedy: "use a kernel with CONFIG_DEBUG_INFO_BTF_MODULES".to_owned(),
        };
        let reasons = [no_btf];
        let probes = vec![
            probe("creations", Some("kprobe"), &reasons),
            probe("removals", None, &reasons),
        ];
        let waiting = Coverage::Waiting {
            module: "ip_vs".to_owned(),
        };
        let ailments = [
            AilmentReport::unmeasured("udp_conntrack", Coverage::Partial, probes),
            AilmentReport::unmeasured("ipvs", waiting, Vec::new()),
        ];
        let expected = "\
AILMENT        PROBE      HOOK
udp_conntrack  creations  kprobe
    missing: fexit: module nf_conntrack has no
    BTF.
      fix: use a kernel with
      CONFIG_DEBUG_INFO_BTF_MODULES.
udp_conntrack  removals   none, as above
ipvs           -          waiting for its module to be loaded and used
";
        assert_eq!(probes_as_text(&ailments, Terminal::plain(50)), expected);
    }
}
