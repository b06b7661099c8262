//! Treatments: the list of those that there are, and how those that were begun stand.

use std::time::{Duration, UNIX_EPOCH};

use humantime::format_rfc3339_seconds;

use super::{Terminal, fill};
use crate::{
    model::{Run, RunState, Treatment},
    text::one_line,
};

const WIDTH: usize = 80;

/// A treatment with the name of its ailment.
type Listed = (&'static str, &'static Treatment);

/// The treatments for a terminal.
pub fn treatments_as_text(treatments: &[Listed]) -> String {
    let mut text = String::new();
    for (ailment, treatment) in treatments {
        text.push_str(&format!("{} (against {ailment})\n", treatment.name));
        for (name, what) in parts(treatment) {
            push_part(&mut text, WIDTH, name, &what);
        }
        text.push('\n');
    }
    text.pop();
    text
}

/// The treatments as the page of the documentation.
pub fn treatments_as_markdown(treatments: &[Listed]) -> String {
    let mut text = String::new();
    let mut last = "";
    for (ailment, treatment) in treatments {
        if last != *ailment {
            text.push_str(&format!("## Against {ailment}\n\n"));
            last = ailment;
        }
        text.push_str(&format!("### {}\n\n", treatment.name));
        for (name, what) in parts(treatment) {
            text.push_str(&format!("- **{name}:** {what}\n"));
        }
        text.push('\n');
    }
    text.pop();
    text
}

fn parts(treatment: &Treatment) -> [(&'static str, String); 6] {
    let keys = treatment.keys.iter().map(|bound| {
        let (least, most) = (bound.allowed.start(), bound.allowed.end());
        if least == most {
            format!("{} to {least}", bound.key)
        } else {
            format!("{} to {least} to {most}", bound.key)
        }
    });
    [
        ("sets", keys.collect::<Vec<_>>().join(", ")),
        ("effect", treatment.effect.to_owned()),
        ("costs", treatment.cost.to_owned()),
        ("acts", treatment.acts.to_owned()),
        ("applies", treatment.applies.to_owned()),
        ("for good", treatment.durable.to_owned()),
    ]
}

/// Those that are active first, then those that were, the last first.
pub fn runs_as_text(runs: &[Run], known: &[Listed], terminal: Terminal) -> String {
    if runs.is_empty() {
        return "nothing was treated\n".to_owned();
    }
    let mut runs: Vec<_> = runs.iter().collect();
    runs.sort_by_key(|run| (!run.is_active(), std::cmp::Reverse(run.id)));
    let texts = runs.iter().map(|run| run_as_text(run, known, terminal));
    texts.collect::<Vec<_>>().join("\n")
}

/// How a treatment stands; its cost is that of the known one.
pub fn run_as_text(run: &Run, known: &[Listed], terminal: Terminal) -> String {
    let Run {
        id,
        treatment,
        ailment,
        state,
        ..
    } = run;
    let mut text = format!(
        "{id}: {} against {}: {}\n",
        one_line(treatment),
        one_line(ailment),
        state.name().replace('_', " ")
    );
    let width = terminal.width();
    push_part(&mut text, width, "why", &run.why);
    for (i, change) in run.changes.iter().enumerate() {
        let name = if i == 0 { "sets" } else { "" };
        push_part(&mut text, width, name, &change.to_string());
    }
    if let Some((_, known)) = known.iter().find(|(_, it)| it.name == *treatment) {
        push_part(&mut text, width, "costs", known.cost);
    }
    for (i, writer) in run.writers.iter().enumerate() {
        let name = if i == 0 { "also sets" } else { "" };
        push_part(&mut text, width, name, writer);
    }
    let asked = format!(
        "by {}, {}",
        run.trigger.name(),
        time(run.began_unix_seconds)
    );
    push_part(&mut text, width, "asked for", &asked);
    if run.is_active() {
        let mut ends = time(run.ends_unix_seconds);
        if run.state != RunState::Intended {
            ends.push_str(&format!("; `nodemedic undo {id}` puts it back now"));
        }
        push_part(&mut text, width, "ends", &ends);
    }
    text
}

/// A part behind its name, its further lines below the first.
fn push_part(text: &mut String, width: usize, name: &str, what: &str) {
    const NAME: usize = 11;
    let (first, further) = (format!("  {name:NAME$}"), " ".repeat(NAME + 2));
    text.push_str(&fill(what, width, &first, &further));
}

fn time(unix_seconds: f64) -> String {
    let time = UNIX_EPOCH + Duration::from_secs_f64(unix_seconds.clamp(0.0, 1e11));
    format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ailments;

    #[test]
    fn every_treatment_is_in_both_forms_with_its_cost_and_its_keys() {
        let treatments = ailments::treatments();
        let (text, page) = (
            treatments_as_text(&treatments),
            treatments_as_markdown(&treatments),
        );
        for (_, treatment) in treatments {
            assert!(text.contains(treatment.name), "{text}");
            assert!(page.contains(&format!("### {}", treatment.name)), "{page}");
            assert!(page.contains(treatment.cost), "{page}");
            for bound in treatment.keys {
                assert!(page.contains(bound.key), "{page}");
            }
        }
    }
}
