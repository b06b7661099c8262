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
pub enum AlertTarget<'a> {
    /// This one.
    ThisNode,
    /// Another, of this name.
    OtherNode(&'a str),
    /// It does not say.
    Unknown,
}

impl Names {
    /// Which node an alert with these labels is of.
    pub fn target<'a>(&self, labels: &'a BTreeMap<String, String>) -> AlertTarget<'a> {
        match node(&self.labels, labels) {
            None if self.accept_unnamed => AlertTarget::ThisNode,
            None => AlertTarget::Unknown,
            Some(node) if self.own.iter().any(|own| is_called(node, own)) => AlertTarget::ThisNode,
            Some(node) => AlertTarget::OtherNode(node),
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
            own: vec!["node-7".to_owned(), "fe80::1".to_owned()],
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
        for (given, target) in [
            (&[("node", "node-7")][..], AlertTarget::ThisNode),
            (&[("instance", "node-7")], AlertTarget::ThisNode),
            (&[("instance", "node-7:19110")], AlertTarget::ThisNode),
            (&[("instance", "[fe80::1]:19110")], AlertTarget::ThisNode),
            (&[("instance", "fe80::1")], AlertTarget::ThisNode),
            (
                &[("node", ""), ("instance", "node-7")],
                AlertTarget::ThisNode,
            ),
            (
                &[("node", "node-8"), ("instance", "node-7")],
                AlertTarget::OtherNode("node-8"),
            ),
            (&[("node", "node-70")], AlertTarget::OtherNode("node-70")),
            (
                &[("node", "Collector-7")],
                AlertTarget::OtherNode("Collector-7"),
            ),
            (
                &[("node", "node-7:http")],
                AlertTarget::OtherNode("node-7:http"),
            ),
            (&[("host", "node-7")], AlertTarget::Unknown),
            (&[], AlertTarget::Unknown),
        ] {
            assert_eq!(names(false).target(&labels(given)), target, "{given:?}");
        }
    }

    #[test]
    fn an_alert_without_a_node_is_ours_if_so_configured() {
        assert_eq!(names(true).target(&labels(&[])), AlertTarget::ThisNode);
        let other = labels(&[("node", "node-8")]);
        assert_eq!(names(true).target(&other), AlertTarget::OtherNode("node-8"));
    }
}
