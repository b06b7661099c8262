//! Which node an alert is of.

use std::{collections::BTreeMap, net::IpAddr};

/// How alerts name nodes, and what they call this one.
#[derive(Clone, Debug)]
pub struct Names {
    /// The labels that may name a node, in this order.
    pub labels: Vec<String>,
    /// What they call this node: its names and its addresses. Empty until
    /// [`Self::or_called`] where the configuration does not say.
    pub own: Vec<String>,
    /// Whether an alert that names no node is of this one.
    pub accept_unnamed: bool,
}

/// A label that names a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLabel<'a> {
    /// Its name.
    pub label: &'a str,
    /// Its value.
    pub value: &'a str,
}

/// Which node an alert is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertTarget<'a> {
    /// This one.
    ThisNode,
    /// Another, by this label.
    OtherNode(NodeLabel<'a>),
    /// It does not say.
    Unknown,
}

/// How well a label fits a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// It means another node.
    No,
    /// The first part of the name is the same, and one of the two has no domain.
    Unqualified,
    /// It is the address, or the whole name.
    Whole,
}

impl Names {
    /// With these names and addresses of this node where there are none yet.
    pub fn or_called(&self, called: impl FnOnce() -> Vec<String>) -> Self {
        let mut names = self.clone();
        if names.own.is_empty() {
            names.own = called();
        }
        names
    }

    /// Which node an alert with these labels is of.
    pub fn target<'a>(&'a self, labels: &'a BTreeMap<String, String>) -> AlertTarget<'a> {
        match node(&self.labels, labels) {
            None if self.accept_unnamed => AlertTarget::ThisNode,
            None => AlertTarget::Unknown,
            Some(node) => match fit(node.value, &self.own) {
                Fit::Whole | Fit::Unqualified => AlertTarget::ThisNode,
                Fit::No => AlertTarget::OtherNode(node),
            },
        }
    }
}

/// The node that an alert names, as it names it.
pub fn node<'a>(by: &'a [String], labels: &'a BTreeMap<String, String>) -> Option<NodeLabel<'a>> {
    let mut found = by.iter().filter_map(|label| {
        let value = labels.get(label)?;
        Some(NodeLabel { label, value })
    });
    found.find(|node| !node.value.is_empty())
}

/// How well a label fits a node of these names and addresses.
pub fn fit<S: AsRef<str>>(label: &str, own: &[S]) -> Fit {
    let own: Vec<_> = own.iter().map(|own| Host::of(own.as_ref())).collect();
    Host::of(label).fit(&own)
}

/// What names a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// `10.0.0.7` and `::ffff:10.0.0.7` are the same.
    Address(IpAddr),
    /// In lower case, without the dot of the root.
    Name(String),
}

impl Host {
    /// Of a label or a name. A port, and a URL around a host, say nothing about the node.
    pub fn of(label: &str) -> Self {
        let host = label.split_once("://").map_or(label, |(_, rest)| rest);
        let host = host.split(['/', '?']).next().unwrap_or(host);
        // An IPv6 address alone looks like a name with a port.
        let host = match address(host) {
            Some(address) => return Self::Address(address),
            None => without_port(host),
        };
        match address(host) {
            Some(address) => Self::Address(address),
            None => Self::Name(host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()),
        }
    }

    /// The part of a name before its domain.
    pub fn first(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(first(name)),
            Self::Address(_) => None,
        }
    }

    /// How well it fits a node that is called so. Names are compared without case (RFC 4343; the
    /// kubelet makes the host name lower case), addresses as what they mean.
    pub fn fit(&self, own: &[Self]) -> Fit {
        if own.contains(self) {
            return Fit::Whole;
        }
        let Self::Name(given) = self else {
            return Fit::No;
        };
        let names = own.iter().filter_map(|host| match host {
            Self::Name(name) if first(name) == first(given) => Some(name),
            Self::Name(_) | Self::Address(_) => None,
        });
        let (mut is_there, mut has_other) = (false, false);
        for name in names {
            is_there = true;
            has_other |= has_domain(name);
        }
        // Another domain is another node, though the first part is the same.
        match is_there && !(has_domain(given) && has_other) {
            true => Fit::Unqualified,
            false => Fit::No,
        }
    }
}

fn first(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

fn has_domain(name: &str) -> bool {
    name.contains('.')
}

/// Without the zone that only the node itself knows.
fn address(host: &str) -> Option<IpAddr> {
    let host = host.split('%').next().unwrap_or(host);
    let address: IpAddr = host.parse().ok()?;
    Some(address.to_canonical())
}

fn without_port(host: &str) -> &str {
    let host = match host.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        Some(_) | None => host,
    };
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    bare.unwrap_or(host)
}

/// For fuzzing: labels that name a node.
#[cfg(any(test, fuzzing))]
pub const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "names",
    read: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let own = ["node-7", "10.0.0.7", "fd00::7", "node-7.example.org"];
        let _ = fit(&text, &own);
    },
    seeds: &[b"node-7.example.org:9100", b"[fd00::7]:9100"],
};

#[cfg(test)]
mod tests {
    use super::*;

    fn names(accept_unnamed: bool) -> Names {
        Names {
            labels: vec!["node".to_owned(), "instance".to_owned()],
            own: ["node-7", "fe80::1", "10.0.0.7", "2001:db8::7"]
                .map(str::to_owned)
                .to_vec(),
            accept_unnamed,
        }
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn other<'a>(label: &'a str, value: &'a str) -> AlertTarget<'a> {
        AlertTarget::OtherNode(NodeLabel { label, value })
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
                other("node", "node-8"),
            ),
            (&[("node", "node-70")], other("node", "node-70")),
            (&[("node", "node-7:http")], other("node", "node-7:http")),
            (&[("host", "node-7")], AlertTarget::Unknown),
            (&[], AlertTarget::Unknown),
        ] {
            assert_eq!(names(false).target(&labels(given)), target, "{given:?}");
        }
    }

    #[test]
    fn an_alert_without_a_node_is_ours_if_so_configured() {
        assert_eq!(names(true).target(&labels(&[])), AlertTarget::ThisNode);
        let of_other = labels(&[("node", "node-8")]);
        assert_eq!(names(true).target(&of_other), other("node", "node-8"));
    }

    #[test]
    fn a_label_fits_as_one_reads_it() {
        use Fit::{No, Unqualified, Whole};
        const SHORT: &[&str] = &["WORKER-01", "10.0.0.7", "2001:db8::7"];
        const LONG: &[&str] = &["worker-01.example.com", "worker-01"];
        for (label, own, is) in [
            ("worker-01", SHORT, Whole),
            ("Worker-01.", SHORT, Whole),
            ("WORKER-01:9100", SHORT, Whole),
            ("https://worker-01:6443/livez?verbose", SHORT, Whole),
            ("WORKER-01.example.com:19110", SHORT, Unqualified),
            ("worker-01.example.com.", LONG, Whole),
            ("WORKER-01.Example.com:9100", LONG, Whole),
            ("worker-01:9100", LONG, Whole),
            ("worker-01", &["worker-01.example.com"], Unqualified),
            ("10.0.0.7:9100", SHORT, Whole),
            ("::ffff:10.0.0.7", SHORT, Whole),
            ("[2001:DB8:0::7]:9100", SHORT, Whole),
            ("[2001:db8::7]", SHORT, Whole),
            ("2001:db8::7%eth0", SHORT, Whole),
            // Of another node.
            ("worker-01.other.net", LONG, No),
            ("worker-010", SHORT, No),
            ("worker", SHORT, No),
            ("10.0.0.70:9100", SHORT, No),
            ("10.0.0.8", SHORT, No),
            ("10", SHORT, No),
            ("10.0.0.7.example.com", &["10"], Unqualified),
            ("[2001:db8::70]:9100", SHORT, No),
            (":9100", SHORT, No),
            ("é:1", SHORT, No),
            ("[", SHORT, No),
            ("[]:1", SHORT, No),
        ] {
            assert_eq!(fit(label, own), is, "{label} of {own:?}");
        }
    }
}
