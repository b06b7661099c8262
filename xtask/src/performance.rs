//! The pages about performance: what `cargo xtask bench` measured, put into templates.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use minijinja::{
    Environment, Error, ErrorKind, UndefinedBehavior, syntax::SyntaxConfig, value::Serde,
};
use serde_json::Value;

use crate::paths;

/// By template: the text, and what both of them share.
const TEMPLATES: [(&str, &str); 3] = [
    (
        "performance.md",
        include_str!("../templates/performance.md"),
    ),
    (
        "performance-ipvs.md",
        include_str!("../templates/performance-ipvs.md"),
    ),
    (
        "performance-psi.md",
        include_str!("../templates/performance-psi.md"),
    ),
];
const TABLES: &str = include_str!("../templates/tables.md");
const IMPORT: &str = "{% from \"tables\" import programs, sizes %}\n";

const MARK: &str = "<!-- Made by `cargo xtask docs` from performance.json, which `cargo xtask bench` writes. -->\n";

/// The figures of each benchmark by its name, with the kernel that it ran on.
pub(crate) fn figures() -> PathBuf {
    paths::root().join("docs/performance.json")
}

/// Each page's name in docs/, and its text.
pub(crate) fn pages() -> Result<Vec<(&'static str, String)>> {
    let file = figures();
    let figures = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    let figures: Value =
        serde_json::from_str(&figures).with_context(|| format!("read {}", file.display()))?;
    let environment = environment()?;
    let render = |(name, template): &(&'static str, &str)| {
        let text =
            environment.render_named_str(name, &format!("{IMPORT}{template}"), Serde(&figures));
        let text = text.with_context(|| format!("fill the template of {name}"))?;
        Ok((*name, format!("{MARK}{text}\n")))
    };
    TEMPLATES.iter().map(render).collect()
}

fn environment() -> Result<Environment<'static>> {
    let mut environment = Environment::new();
    let mut syntax = SyntaxConfig::builder();
    environment.set_syntax(syntax.trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("median", median);
    environment.add_filter("least", least);
    environment.add_filter("spread", spread);
    environment.add_filter("fixed", fixed);
    environment.add_filter("signed", signed);
    environment.add_filter("mib", mib);
    environment.add_template("tables", TABLES)?;
    Ok(environment)
}

fn median(mut values: Vec<f64>) -> Result<f64, Error> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values[..] {
        [] => Err(empty()),
        _ if values.len() % 2 == 1 => Ok(values[middle]),
        _ => Ok((values[middle - 1] + values[middle]) / 2.0),
    }
}

fn least(values: Vec<f64>) -> Result<f64, Error> {
    values.into_iter().reduce(f64::min).ok_or_else(empty)
}

/// From the least to the most, by the median.
fn spread(values: Vec<f64>) -> Result<f64, Error> {
    let most = values.iter().copied().reduce(f64::max).ok_or_else(empty)?;
    Ok((most - least(values.clone())?) / median(values)?)
}

fn empty() -> Error {
    Error::new(ErrorKind::InvalidOperation, "there is no measurement")
}

fn fixed(value: f64, digits: Option<usize>) -> String {
    format!("{value:.*}", digits.unwrap_or(0))
}

fn signed(value: f64, digits: Option<usize>) -> String {
    format!("{value:+.*}", digits.unwrap_or(0))
}

fn mib(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / 1_048_576.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(template: &str, figures: Value) -> String {
        let template = format!("{IMPORT}{template}");
        let environment = environment().unwrap();
        environment.render_str(&template, Serde(figures)).unwrap()
    }

    #[test]
    fn every_page_has_its_figures() {
        let pages = pages().unwrap();
        assert_eq!(pages.len(), TEMPLATES.len());
        for (name, page) in pages {
            assert!(!page.contains("{{") && !page.contains("{%"), "{name}");
            assert!(!page.contains("\n\n\n"), "{name}");
            // Each row of a table has a line, and follows the one before.
            assert!(!page.contains("|\n\n|") && !page.contains("||"), "{name}");
        }
    }

    #[test]
    fn statistics_are_those_of_the_rounds() {
        let figures = json!({ "odd": [3.0, 1.0, 2.0], "even": [4, 1, 2, 3] });
        let template = "{{ odd|median }} {{ even|median }} {{ even|least }} {{ odd|spread }}";
        assert_eq!(filled(template, figures), "2.0 2.5 1.0 1.0");
    }

    #[test]
    fn no_measurement_is_an_error_and_not_zero() {
        let environment = environment().unwrap();
        for template in ["{{ rounds|median }}", "{{ other|median }}"] {
            let filled = environment.render_str(template, Serde(json!({ "rounds": [] })));
            assert!(filled.is_err(), "{template}: {filled:?}");
        }
    }

    #[test]
    fn a_missed_goal_is_reported() {
        let footprint = |resident: u64, idle: f64| {
            let memory = json!({ "resident": resident << 20, "anonymous": 1, "peak": 1 });
            let figures = json!({
                "footprint": {
                    "kernel": "", "attached": memory, "loaded": memory, "map_bytes": 1,
                    "idle_cpu": idle, "loaded_cpu": 0.1, "load_per_second": 100,
                },
                "host": { "memory": memory, "idle_cpu": 0.001 },
            });
            let (_, section) = TEMPLATES[0].1.split_once("## Memory and CPU").unwrap();
            let (section, _) = section.split_once("## ").unwrap();
            filled(section, figures)
        };
        assert_eq!(footprint(15, 0.004).matches("not met").count(), 0);
        assert_eq!(footprint(21, 0.004).matches("**not met**").count(), 1);
        assert_eq!(footprint(15, 0.006).matches("**not met**").count(), 1);
    }
}
