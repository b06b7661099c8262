//! A key of the configuration as data: what the loader checks a file against,
//! and what the reference page is made from.

use std::{fmt, net::SocketAddr, time::Duration};

use humantime::{format_duration, parse_duration};
use toml::de::DeValue;

/// The only place where a key's name, meaning and allowed values stand.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As written in the file.
    pub name: &'static str,
    /// What may stand to the right of `=`.
    pub allowed: Allowed,
    /// What it does, in a sentence or two.
    pub help: &'static str,
    /// Its flag on the command line with a name for the value, as `--listen ADDR:PORT`.
    pub flag: Option<&'static str>,
}

/// The values that a [`Key`] takes.
#[derive(Clone, Copy, Debug)]
pub enum Allowed {
    /// `true` or `false`.
    Switch,
    /// Any text.
    Text,
    /// An IP address with a port.
    Address,
    /// An IP address with a port, or the empty text for none.
    AddressOrNone,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A list of some of these words, each once at most.
    SomeOf(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// A list of texts that have to pass a check.
    Checked {
        /// What is wrong with the texts, if anything.
        check: fn(&[&str]) -> Result<(), String>,
        /// What is allowed, in words.
        shown: &'static str,
    },
    /// A whole number in a range.
    Count {
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A part of a whole.
    Share,
    /// A time in a range, written as `"5s"` or `"1m 30s"`.
    Time {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
}

impl Allowed {
    /// Whether a value of a file is one of these.
    ///
    /// # Errors
    ///
    /// A sentence that says what the value is, and what is allowed instead.
    pub fn check(&self, value: &DeValue<'_>) -> Result<(), String> {
        let fits = match *self {
            Self::Switch => value.is_bool(),
            Self::Text => value.is_str(),
            Self::Address => text(value).is_some_and(|text| text.parse::<SocketAddr>().is_ok()),
            Self::AddressOrNone => text(value)
                .is_some_and(|text| text.is_empty() || text.parse::<SocketAddr>().is_ok()),
            Self::OneOf(words) => text(value).is_some_and(|text| words.contains(&text)),
            Self::SomeOf(words) => list(value).is_some_and(|list| {
                let known = list.iter().all(|word| words.contains(word));
                known
                    && list
                        .iter()
                        .enumerate()
                        .all(|(i, word)| !list[..i].contains(word))
            }),
            Self::Texts => list(value).is_some(),
            Self::Checked { check, .. } => match list(value).map(|texts| check(&texts)) {
                Some(Err(why)) => return Err(format!("{why}; allowed is {self}")),
                checked => checked.is_some(),
            },
            Self::Count { min, max } => {
                count(value).is_some_and(|count| (min..=max).contains(&count))
            }
            Self::Share => number(value).is_some_and(|share| share > 0.0 && share <= 1.0),
            Self::Time { min, max } => text(value)
                .and_then(|text| parse_duration(text).ok())
                .is_some_and(|time| (min..=max).contains(&time)),
        };
        if fits {
            Ok(())
        } else {
            Err(format!("{} is not {self}", shown(value)))
        }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Switch => f.write_str("true or false"),
            Self::Text => f.write_str("text in quotes"),
            Self::Address => f.write_str("an IP address with a port, such as \"127.0.0.1:80\""),
            Self::AddressOrNone => {
                f.write_str("an IP address with a port, such as \"127.0.0.1:80\", or \"\"")
            }
            Self::OneOf(words) => write!(f, "one of {}", quoted(words)),
            Self::SomeOf(words) => write!(f, "a list of some of {}, each once", quoted(words)),
            Self::Texts => f.write_str("a list of texts, each in quotes"),
            Self::Checked { shown, .. } => f.write_str(shown),
            Self::Count { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Share => f.write_str("a share, above 0 and at most 1"),
            Self::Time { min, max } => write!(
                f,
                "a time from {:?} to {:?}",
                format_duration(min).to_string(),
                format_duration(max).to_string()
            ),
        }
    }
}

fn quoted(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    quoted.join(", ")
}

fn list<'v>(value: &'v DeValue<'_>) -> Option<Vec<&'v str>> {
    value
        .as_array()?
        .iter()
        .map(|word| word.get_ref().as_str())
        .collect()
}

fn text<'v>(value: &'v DeValue<'_>) -> Option<&'v str> {
    value.as_str()
}

fn count(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// Whole numbers are numbers too.
fn number(value: &DeValue<'_>) -> Option<f64> {
    match value.as_float() {
        Some(float) => float.as_str().parse().ok(),
        None => value.as_integer()?.as_str().parse().ok(),
    }
}

/// A value as it stands in the file, or at least what sort of thing it is.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(integer) => integer.as_str().to_owned(),
        DeValue::Float(float) => float.as_str().to_owned(),
        DeValue::Boolean(switch) => switch.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn check(allowed: Allowed, value: &str) -> Result<(), String> {
        allowed.check(DeValue::parse(value).unwrap().get_ref())
    }

    #[test]
    fn what_is_allowed_passes() {
        let cases = [
            (Allowed::Switch, "true"),
            (Allowed::Text, "''"),
            (Allowed::Address, "'[::1]:0'"),
            (Allowed::AddressOrNone, "'[::1]:0'"),
            (Allowed::AddressOrNone, "''"),
            (Allowed::OneOf(&["text", "json"]), "'json'"),
            (Allowed::Count { min: 1, max: 16 }, "0x10"),
            (Allowed::Texts, "[]"),
            (Allowed::Texts, "['a', 'b']"),
            (Allowed::Share, "1"),
            (Allowed::Share, "0.5"),
            (
                Allowed::Time {
                    min: SECOND,
                    max: SECOND * 90,
                },
                "'1m 30s'",
            ),
        ];
        for (allowed, value) in cases {
            assert_eq!(check(allowed, value), Ok(()), "{allowed:?} {value}");
        }
    }

    #[test]
    fn what_is_not_says_what_would_be() {
        let cases = [
            (Allowed::Switch, "'true'", r#""true" is not true or false"#),
            (Allowed::Text, "5", "5 is not text in quotes"),
            (
                Allowed::Address,
                "'localhost:80'",
                r#""localhost:80" is not an IP address with a port, such as "127.0.0.1:80""#,
            ),
            (
                Allowed::Address,
                "''",
                r#""" is not an IP address with a port, such as "127.0.0.1:80""#,
            ),
            (
                Allowed::AddressOrNone,
                "'80'",
                r#""80" is not an IP address with a port, such as "127.0.0.1:80", or """#,
            ),
            (
                Allowed::OneOf(&["text", "json"]),
                "'xml'",
                r#""xml" is not one of "text", "json""#,
            ),
            (
                Allowed::Count { min: 1, max: 9 },
                "0",
                "0 is not a whole number from 1 to 9",
            ),
            (
                Allowed::Count { min: 1, max: 9 },
                "-1",
                "-1 is not a whole number from 1 to 9",
            ),
            (
                Allowed::Count { min: 1, max: 9 },
                "1.5",
                "1.5 is not a whole number from 1 to 9",
            ),
            (
                Allowed::Texts,
                "'a'",
                r#""a" is not a list of texts, each in quotes"#,
            ),
            (
                Allowed::Texts,
                "['a', 1]",
                "an array is not a list of texts, each in quotes",
            ),
            (
                Allowed::Share,
                "0",
                "0 is not a share, above 0 and at most 1",
            ),
            (
                Allowed::Share,
                "nan",
                "nan is not a share, above 0 and at most 1",
            ),
            (
                Allowed::Time {
                    min: SECOND,
                    max: SECOND * 60,
                },
                "'61s'",
                r#""61s" is not a time from "1s" to "1m""#,
            ),
            (
                Allowed::Time {
                    min: SECOND,
                    max: SECOND * 60,
                },
                "5",
                r#"5 is not a time from "1s" to "1m""#,
            ),
        ];
        for (allowed, value, message) in cases {
            assert_eq!(check(allowed, value), Err(message.to_owned()));
        }
    }
}
