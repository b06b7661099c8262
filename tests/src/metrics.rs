//! Reads a page of metrics in Prometheus' text format, and asks it for values.

use anyhow::{Context as _, Result, bail, ensure};

/// Names and values, in the order of the page.
pub type Labels = Vec<(String, String)>;

#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Labels,
    pub value: f64,
}

impl Sample {
    /// Reads `name{label="value",…} value`, and nothing that differs in the least: it is the agent
    /// that wrote it.
    pub fn parse(line: &str) -> Result<Self> {
        let end = line.find(['{', ' ']).context("no value")?;
        let (name, rest) = line.split_at(end);
        ensure!(is_name(name), "{name:?} is no name");
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(inside) => labels(inside)?,
            None => (Vec::new(), rest),
        };
        let value = rest.strip_prefix(' ').context("no value")?;
        Ok(Self {
            name: name.to_owned(),
            labels,
            value: number(value)?,
        })
    }

    fn carries(&self, (name, value): (&str, &str)) -> bool {
        self.labels.iter().any(|(n, v)| n == name && v == value)
    }
}

/// One scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    samples: Vec<Sample>,
}

impl Metrics {
    pub fn parse(page: &str) -> Result<Self> {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let samples = lines
            .map(|line| Sample::parse(line).with_context(|| format!("metrics line {line:?}")))
            .collect::<Result<_>>()?;
        Ok(Self { samples })
    }

    /// How many samples there are.
    pub fn count(&self) -> usize {
        self.samples.len()
    }

    /// The samples of this name that carry at least these labels.
    pub fn select(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name && labels.iter().all(|label| sample.carries(*label))
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
        let values = self.select(name, labels).map(|sample| sample.value);
        // The sum of no floats is -0.
        values.fold(0.0, |sum, value| sum + value)
    }
}

/// The labels after the opening brace, and what follows the closing one.
fn labels(text: &str) -> Result<(Labels, &str)> {
    let mut labels = Vec::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once("=\"").context("a label without a value")?;
        ensure!(
            is_name(name) && !name.contains(':'),
            "{name:?} is no name of a label"
        );
        let (value, after) = quoted(after)?;
        labels.push((name.to_owned(), value));
        match after.split_at_checked(1) {
            Some((",", after)) => rest = after,
            Some(("}", after)) => return Ok((labels, after)),
            _ => bail!("{after:?} behind a label"),
        }
    }
}

/// The text up to the closing quote, and what follows that.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next().map(|(_, escaped)| escaped) {
                Some('n') => value.push('\n'),
                Some(escaped @ ('"' | '\\')) => value.push(escaped),
                other => bail!("{other:?} is not escaped so"),
            },
            other => value.push(other),
        }
    }
    bail!("a label's value has no end")
}

fn is_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit())
}

/// A sample's value, or the bound of a bucket.
pub fn number(text: &str) -> Result<f64> {
    text.parse()
        .with_context(|| format!("{text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP created_total Entries made.
# TYPE created_total counter
created_total{port="53",source="10.0.0.1"} 5000
created_total{port="53",source="10.0.0.2"} 2
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
        let lines = [
            "name",
            "name x",
            "name  1",
            "name 1 1700000000",
            "0name 1",
            "name{} 1",
            "name{a} 1",
            "name{a=\"b} 1",
            "name{a=\"b\",} 1",
            "name{a=\"b\"}1",
            r#"name{a="\t"} 1"#,
        ];
        for line in lines {
            assert!(Metrics::parse(line).is_err(), "{line}");
        }
    }
}
