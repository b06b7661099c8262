//! Reads a page of metrics in Prometheus' text format, and asks it for values.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// One scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    samples: Vec<Sample>,
}

impl Metrics {
    pub fn parse(page: &str) -> Result<Self> {
        let lines = page.lines().filter(|line| !is_comment(line));
        let samples = lines
            .map(|line| sample(line).with_context(|| format!("metrics line {line:?}")))
            .collect::<Result<_>>()?;
        Ok(Self { samples })
    }

    /// The samples of this name that carry at least these labels.
    pub fn select(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| {
            let carries = |(key, value): &(&str, &str)| {
                sample.labels.get(*key).is_some_and(|label| label == value)
            };
            sample.name == name && labels.iter().all(carries)
        })
    }

    /// The value of the one sample that fits; none or several are an error that lists what is
    /// there under this name.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        let found = self.select(name, labels).collect::<Vec<_>>();
        ensure!(
            found.len() == 1,
            "{} samples fit {name}{labels:?}; of this name there are {:?}",
            found.len(),
            self.select(name, &[]).collect::<Vec<_>>()
        );
        Ok(found[0].value)
    }

    /// The sum of what fits, 0 if nothing does.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.select(name, labels).map(|sample| sample.value).sum()
    }
}

fn is_comment(line: &str) -> bool {
    line.starts_with('#') || line.trim().is_empty()
}

/// `name{label="value",…} value [timestamp]`
fn sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next().context("no value")?;
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value: number(value)?,
    })
}

/// The labels after the opening brace, and what follows the closing one.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (key, after) = rest.split_once("=\"").context("no value for a label")?;
        let (value, after) = quoted(after)?;
        labels.insert(key.trim().to_owned(), value);
        rest = after;
    }
}

/// The text up to the closing quote, and what follows that.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((i, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[i + 1..])),
            '\\' => match characters
                .next()
                .context("an escape without its character")?
                .1
            {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            _ => value.push(character),
        }
    }
    anyhow::bail!("a label's value has no end")
}

fn number(text: &str) -> Result<f64> {
    match text {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        _ => text
            .parse()
            .with_context(|| format!("{text:?} is no number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP created_total Entries made.
# TYPE created_total counter
created_total{port="53",source="10.0.0.1"} 5000
created_total{port="53",source="10.0.0.2"} 2 1700000000
created_total{port="other",source="a \"b\", c}"} 1
life_seconds_bucket{le="+Inf"} 7
entries 12.5
to_full_seconds +Inf
"#;

    fn metrics() -> Metrics {
        Metrics::parse(PAGE).unwrap()
    }

    #[test]
    fn one_sample_is_found_by_some_of_its_labels() {
        let value = metrics().value("created_total", &[("source", "10.0.0.2")]);
        assert_eq!(value.unwrap(), 2.0);
        assert_eq!(metrics().value("entries", &[]).unwrap(), 12.5);
        assert_eq!(
            metrics().value("to_full_seconds", &[]).unwrap(),
            f64::INFINITY
        );
    }

    #[test]
    fn quotes_commas_and_braces_in_a_label_are_its_value() {
        let value = metrics().value("created_total", &[("source", "a \"b\", c}")]);
        assert_eq!(value.unwrap(), 1.0);
    }

    #[test]
    fn several_or_no_samples_are_an_error_that_lists_them() {
        let error = metrics().value("created_total", &[("port", "53")]);
        assert!(error.unwrap_err().to_string().contains("10.0.0.2"));
        assert!(metrics().value("absent", &[]).is_err());
    }

    #[test]
    fn sums_take_what_fits() {
        assert_eq!(metrics().sum("created_total", &[("port", "53")]), 5002.0);
        assert_eq!(metrics().sum("created_total", &[("port", "80")]), 0.0);
    }

    #[test]
    fn a_broken_line_is_an_error() {
        for line in ["name", "name{a=\"b} 1", "name{a} 1", "name x"] {
            assert!(Metrics::parse(line).is_err(), "{line}");
        }
    }
}
