//! The pods behind the addresses and network namespaces of a reading, kept with it so that
//! it replays with their names.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use super::{Directory, Name, PodLabels};

use crate::model::{MetricDef, Sample};

/// What all are called that have no series of their own.
const OTHER: &str = "other";

/// What pods some addresses and network namespaces are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Neighbours {
    /// The labels of pods that go along with their names.
    labels: PodLabels,
    addresses: BTreeMap<IpAddr, Name>,
    namespaces: BTreeMap<u32, Name>,
}

impl Neighbours {
    /// As far as they are pods with a network of their own, and known. Of a namespace that
    /// nobody tells of, the process that is given with it tells whose it is.
    pub fn find(
        directory: &Directory,
        addresses: impl IntoIterator<Item = IpAddr>,
        namespaces: impl IntoIterator<Item = (u32, Option<u32>)>,
    ) -> Self {
        let addresses: BTreeSet<_> = addresses.into_iter().collect();
        let mut known = BTreeMap::new();
        for (netns, process) in namespaces {
            let entry = known.entry(netns).or_insert(process);
            *entry = entry.or(process);
        }
        Self {
            labels: directory.labels().clone(),
            addresses: addresses
                .into_iter()
                .filter_map(|it| Some((it, directory.of_address(it)?)))
                .collect(),
            namespaces: known
                .into_iter()
                .filter_map(|(it, process)| Some((it, directory.of_netns(it, process)?)))
                .collect(),
        }
    }

    /// An address for a sentence, with the pod that has it.
    pub fn address(&self, address: IpAddr) -> String {
        with_name(address, self.addresses.get(&address))
    }

    /// An address with a port for a sentence, with the pod that has it.
    pub fn endpoint(&self, endpoint: SocketAddr) -> String {
        with_name(endpoint, self.addresses.get(&endpoint.ip()))
    }

    /// A network namespace for a sentence, with the pod that has it.
    pub fn netns(&self, netns: u32) -> String {
        with_name(netns, self.namespaces.get(&netns))
    }

    /// Series that tell the pods of these addresses, with empty labels for those that are of
    /// none that is known, and for what is counted as other: a query that joins with them
    /// then loses nobody.
    pub fn address_infos(
        &self,
        metric: &'static MetricDef,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> impl Iterator<Item = Sample> {
        let addresses: BTreeSet<_> = addresses.into_iter().collect();
        let named = addresses.into_iter().map(move |address| {
            let name = self.addresses.get(&address);
            self.info(metric, address.to_string(), name)
        });
        named.chain([self.info(metric, OTHER.to_owned(), None)])
    }

    /// The same of network namespaces.
    pub fn netns_infos(
        &self,
        metric: &'static MetricDef,
        namespaces: impl IntoIterator<Item = u32>,
    ) -> impl Iterator<Item = Sample> {
        let namespaces: BTreeSet<_> = namespaces.into_iter().collect();
        let named = namespaces.into_iter().map(move |netns| {
            let name = self.namespaces.get(&netns);
            self.info(metric, netns.to_string(), name)
        });
        named.chain([self.info(metric, OTHER.to_owned(), None)])
    }

    fn info(&self, metric: &'static MetricDef, key: String, name: Option<&Name>) -> Sample {
        let part = |part: fn(&Name) -> &String| name.map(part).cloned().unwrap_or_default();
        let labels = [key, part(|name| &name.namespace), part(|name| &name.pod)];
        Sample::number(metric, labels, 1.0).with(self.labels.of(name))
    }
}

fn with_name(what: impl std::fmt::Display, name: Option<&Name>) -> String {
    match name {
        Some(name) => format!("{what} ({name})"),
        None => what.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MetricKind;

    const INFO: MetricDef = MetricDef {
        name: "nodemedic_fake_info",
        kind: MetricKind::Gauge,
        help: "Always 1.",
        labels: &["netns", "namespace", "pod"],
    };

    #[test]
    fn a_known_pod_is_named_and_anybody_else_is_not() {
        let name = Name {
            namespace: "shop".to_owned(),
            pod: "web-0".to_owned(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            ..Name::default()
        };
        let directory = Directory::fake(&[("uid", name, "10.0.0.7", 7)]);
        let [known, other]: [IpAddr; 2] = ["10.0.0.7", "10.0.0.8"].map(|it| it.parse().unwrap());
        let neighbours = Neighbours::find(&directory, [known, other], [(7, None), (8, None)]);
        assert_eq!(neighbours.address(known), "10.0.0.7 (pod shop/web-0)");
        assert_eq!(neighbours.address(other), "10.0.0.8");
        assert_eq!(neighbours.netns(7), "7 (pod shop/web-0)");
        assert_eq!(neighbours.netns(8), "8");
        let saved = serde_json::to_string(&neighbours).unwrap();
        assert_eq!(
            serde_json::from_str::<Neighbours>(&saved).unwrap(),
            neighbours
        );
        // The series of all have the same labels.
        let apps = neighbours.netns_infos(&INFO, [7, 8]).map(|sample| {
            let (label, app) = sample.more[1].clone();
            assert_eq!((sample.more.len(), label.as_str()), (3, "label_app"));
            (sample.labels[0].clone(), app)
        });
        let apps: Vec<_> = apps.collect();
        let wanted = [("7", "web"), ("8", ""), ("other", "")];
        assert_eq!(
            apps,
            wanted.map(|(netns, app)| (netns.to_owned(), app.to_owned()))
        );
        let nobody = Neighbours::find(&Directory::default(), [known], [(7, None)]);
        assert_eq!(nobody, Neighbours::default());
    }
}
