//! Which node an alert is of.

use std::collections::BTreeMap;

/// How alerts name nodes, and what they call this one.
#[derive(Clone, Debug)]
pub struct Names {
    /// The labels that may name a node, in this order.
    pub labels: Vec<String>,
    /// What they call this node.
    pub own: Vec<String>,
    /// Whether an alert that names no node is of this one.
    pub accept_unnamed: bool,
}

/// Which node an alert is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose<'a> {
    /// This one.
    Ours,
    /// Another, of this name.
    Others(&'a str),
    /// It does not say.
    Nobodys,
}

impl Names {
    /// Which node an alert with these labels is of.
    pub fn whose<'a>(&self, labels: &'a BTreeMap<String, String>) -> Whose<'a> {
        match node(&self.labels, labels) {
            None if self.accept_unnamed => Whose::Ours,
            None => Whose::Nobodys,
            Some(node) if self.own.iter().any(|own| is_called(node, own)) => Whose::Ours,
            Some(node) => Whose::Others(node),
        }
    }
}

/// The node that an alert names, as it names it.
pub fn node<'a>(by: &[String], labels: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let mut values = by.iter().filter_map(|label| labels.get(label));
    values.find(|value| !value.is_empty()).map(String::as_str)
}

/// Whether a label means this node: by its name, or its name with a port.
pub fn is_called(label: &str, node: &str) -> bool {
    label == node || without_port(label) == Some(node)
}

fn without_port(label: &str) -> Option<&str> {
    let (host, port) = label.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    Some(bare.unwrap_or(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(accept_unnamed: bool) -> Names {
        Names {
            labels: vec!["node".to_owned(), "instance".to_owned()],
            own: vec!["ward-7".to_owned(), "fe80::1".to_owned()],
            accept_unnamed,
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn the_first_label_that_is_there_counts() {
        for (given, whose) in [
            (&[("node", "ward-7")][..], Whose::Ours),
            (&[("instance", "ward-7")], Whose::Ours),
            (&[("instance", "ward-7:19110")], Whose::Ours),
            (&[("instance", "[fe80::1]:19110")], Whose::Ours),
            (&[("instance", "fe80::1")], Whose::Ours),
            (&[("node", ""), ("instance", "ward-7")], Whose::Ours),
            (
                &[("node", "ward-8"), ("instance", "ward-7")],
                Whose::Others("ward-8"),
            ),
            (&[("node", "ward-70")], Whose::Others("ward-70")),
            (&[("node", "Ward-7")], Whose::Others("Ward-7")),
            (&[("node", "ward-7:http")], Whose::Others("ward-7:http")),
            (&[("host", "ward-7")], Whose::Nobodys),
            (&[], Whose::Nobodys),
        ] {
            assert_eq!(names(false).whose(&labels(given)), whose, "{given:?}");
        }
    }

    #[test]
    fn an_alert_without_a_node_is_ours_if_so_configured() {
        assert_eq!(names(true).whose(&labels(&[])), Whose::Ours);
        let other = labels(&[("node", "ward-8")]);
        assert_eq!(names(true).whose(&other), Whose::Others("ward-8"));
    }
}
