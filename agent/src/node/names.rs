//! What pods and containers are called: made of what a runtime or a kubelet tells, and
//! asked by cgroup, address and network namespace.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{Owner, PodLabels};
use crate::text::is_hidden;

/// The longest that Kubernetes allows for a name of a pod or a namespace.
const LONGEST_NAME: usize = 253;

/// Containers that are known at the most, for each pod that may be known.
const CONTAINERS_A_POD: usize = 20;

/// Addresses that a pod has at the most: one a family, and some more by other networks.
const ADDRESSES_A_POD: usize = 8;

/// What Kubernetes calls a pod, or a container of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name {
    /// Namespace of the pod.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container; empty for what is of the pod as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// Those of the pod's labels that are carried, as far as it has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it is within the container: of a cluster, a guest or a systemd in there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub inside: String,
}

/// For a sentence, as `kubectl` takes it.
impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "pod {}/{}", self.namespace, self.pod)?;
        if !self.container.is_empty() {
            write!(f, " container {}", self.container)?;
        }
        if !self.inside.is_empty() {
            write!(f, ", in it {}", self.inside)?;
        }
        Ok(())
    }
}

/// A pod, as its source tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PodRecord {
    pub(super) uid: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// All that it has.
    pub(super) labels: HashMap<String, String>,
    /// Its own addresses; none where it has those of the node.
    pub(super) addresses: Vec<IpAddr>,
    /// Inode number of its own network namespace, where that is known.
    pub(super) netns: Option<u32>,
    /// Id of the sandbox that holds its namespaces, a container too.
    pub(super) sandbox: Option<String>,
    pub(super) containers: Vec<ContainerRecord>,
}

/// A container, as its source tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerRecord {
    pub(super) id: String,
    pub(super) name: String,
}

/// All that is known of the node's pods at one time.
#[derive(Debug, Default)]
pub struct Names {
    pods: HashMap<String, Arc<PodName>>,
    containers: HashMap<String, (Arc<PodName>, Box<str>)>,
    addresses: HashMap<IpAddr, Option<Arc<PodName>>>,
    namespaces: HashMap<u32, Option<Arc<PodName>>>,
    /// The labels that are carried.
    carried: PodLabels,
    /// What there was no room for.
    cut: Cut,
}

#[derive(Debug, PartialEq, Eq)]
struct PodName {
    namespace: Box<str>,
    name: Box<str>,
    /// In the order of those that are carried.
    labels: Box<[Option<Box<str>>]>,
}

/// What there was no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Pods.
    pub pods: usize,
    /// Containers.
    pub containers: usize,
}

/// What somebody asks about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Unknown {
    /// A pod, by its UID.
    Pod(String),
    /// A container, by its id.
    Container(String),
}

impl Names {
    /// Of these pods, the first so many of them, with these of their labels.
    pub(super) fn of(pods: Vec<PodRecord>, max_pods: usize, carried: &PodLabels) -> Self {
        let mut names = Self {
            carried: carried.clone(),
            ..Self::default()
        };
        let max_containers = max_pods * CONTAINERS_A_POD;
        for (i, pod) in pods.into_iter().enumerate() {
            if i >= max_pods {
                names.cut.pods += 1;
                names.cut.containers += pod.containers.len();
                continue;
            }
            names.add(pod, max_containers);
        }
        names
    }

    fn add(&mut self, record: PodRecord, max_containers: usize) {
        let label = |key| record.labels.get(key).map(|value| clean(value).into());
        let pod = Arc::new(PodName {
            namespace: clean(&record.namespace).into(),
            name: clean(&record.name).into(),
            labels: self.carried.keys().map(label).collect(),
        });
        for address in record.addresses.into_iter().take(ADDRESSES_A_POD) {
            unless_disputed(&mut self.addresses, address, &pod);
        }
        if let Some(netns) = record.netns {
            unless_disputed(&mut self.namespaces, netns, &pod);
        }
        let sandbox = record.sandbox.map(|id| (id, String::new()));
        let containers = record.containers.into_iter().map(|it| (it.id, it.name));
        for (id, name) in sandbox.into_iter().chain(containers) {
            if self.containers.len() >= max_containers {
                self.cut.containers += 1;
            } else {
                let name = clean(&name).into();
                self.containers.insert(id, (Arc::clone(&pod), name));
            }
        }
        self.pods.insert(record.uid, pod);
    }

    /// Pods that are known.
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    /// Containers that are known, the sandboxes of pods among them.
    pub fn containers(&self) -> usize {
        self.containers.len()
    }

    /// What there was no room for.
    pub const fn cut(&self) -> Cut {
        self.cut
    }

    /// What the owner of a cgroup is called, and what of it is not known though it is a
    /// pod's. Of a pod within a pod the outer one is named, with what is in it.
    pub(super) fn of_owner(&self, owner: &Owner) -> (Option<Name>, Option<Unknown>) {
        let mut unknown = None;
        let mut is_asked = false;
        for level in owner.levels() {
            let (name, missing) = self.of_level(level);
            // Of a cluster within, nobody here has names.
            if !is_asked {
                unknown = missing;
                is_asked = level.pod.is_some();
            }
            if let Some(name) = name {
                let inside = level.inside.as_deref().map(|inside| self.inside(inside));
                let inside = inside.unwrap_or_default();
                return (Some(Name { inside, ..name }), unknown);
            }
        }
        (None, unknown)
    }

    /// What is within a container, from the outside in.
    fn inside(&self, owner: &Owner) -> String {
        let called = |level: &Owner| match self.of_level(level).0 {
            Some(name) => name.to_string(),
            None => level.outer(),
        };
        owner
            .levels()
            .map(called)
            .collect::<Vec<_>>()
            .join(", in it ")
    }

    fn of_level(&self, owner: &Owner) -> (Option<Name>, Option<Unknown>) {
        let container = owner.container.as_ref();
        if let Some((pod, name)) = container.and_then(|it| self.containers.get(&it.id)) {
            return (Some(self.name(pod, name)), None);
        }
        let Some(pod) = &owner.pod else {
            // Another's container, of Docker or Podman, is nothing to ask for.
            return (None, None);
        };
        let known = self.pods.get(&pod.uid);
        let unknown = match (known, container) {
            (None, _) => Some(Unknown::Pod(pod.uid.clone())),
            (Some(_), Some(container)) => Some(Unknown::Container(container.id.clone())),
            (Some(_), None) => None,
        };
        (known.map(|pod| self.name(pod, "")), unknown)
    }

    /// The pod that has an address of its own; none where two claim it.
    pub(super) fn of_address(&self, address: IpAddr) -> Option<Name> {
        let pod = self.addresses.get(&address)?.as_ref()?;
        Some(self.name(pod, ""))
    }

    /// The pod that has a network namespace of its own; none where two claim it.
    pub(super) fn of_netns(&self, netns: u32) -> Option<Name> {
        let pod = self.namespaces.get(&netns)?.as_ref()?;
        Some(self.name(pod, ""))
    }

    pub(super) fn knows(&self, unknown: &Unknown) -> bool {
        match unknown {
            Unknown::Pod(uid) => self.pods.contains_key(uid),
            Unknown::Container(id) => self.containers.contains_key(id),
        }
    }

    fn name(&self, pod: &PodName, container: &str) -> Name {
        let labels = self.carried.keys().zip(&pod.labels);
        let known = |(key, value): (&str, &Option<Box<str>>)| {
            let value = value.as_deref()?;
            Some((key.to_owned(), value.to_owned()))
        };
        Name {
            namespace: pod.namespace.as_ref().to_owned(),
            pod: pod.name.as_ref().to_owned(),
            container: container.to_owned(),
            labels: labels.filter_map(known).collect(),
            inside: String::new(),
        }
    }
}

/// A wrong name is worse than none: what two pods claim is of neither.
fn unless_disputed<K: Eq + std::hash::Hash>(
    map: &mut HashMap<K, Option<Arc<PodName>>>,
    key: K,
    pod: &Arc<PodName>,
) {
    match map.entry(key) {
        Entry::Vacant(free) => {
            free.insert(Some(Arc::clone(pod)));
        }
        Entry::Occupied(mut taken) => {
            taken.insert(None);
        }
    }
}

/// Names go into logs, labels and terminals, and a runtime that lies may send anything.
/// Kubernetes allows batches, digits, dashes and dots.
fn clean(name: &str) -> String {
    let allowed = |c| match is_hidden(c) {
        true => char::REPLACEMENT_CHARACTER,
        false => c,
    };
    name.chars().take(LONGEST_NAME).map(allowed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "1858680e-b044-4fd5-9dd4-f137e30e2180";
    const OTHER: &str = "2858680e-b044-4fd5-9dd4-f137e30e2181";

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn pod(uid: &str, namespace: &str, name: &str) -> PodRecord {
        PodRecord {
            uid: uid.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..PodRecord::default()
        }
    }

    fn with_container(pod: PodRecord, digit: char, name: &str) -> PodRecord {
        let mut containers = pod.containers;
        containers.push(ContainerRecord {
            id: id(digit),
            name: name.to_owned(),
        });
        PodRecord { containers, ..pod }
    }

    fn owner(uid: &str, digit: char) -> Owner {
        Owner::of(&format!("/kubepods/pod{uid}/{}", id(digit)))
    }

    fn described(names: &Names, owner: &Owner) -> String {
        let (name, _) = names.of_owner(owner);
        name.map_or_else(String::new, |name| name.to_string())
    }

    #[test]
    fn the_same_name_in_two_namespaces_is_two_pods() {
        let pods = vec![
            with_container(pod(UID, "blue", "web"), 'a', "app"),
            with_container(pod(OTHER, "green", "web"), 'b', "app"),
        ];
        let names = Names::of(pods, 10, &PodLabels::default());
        assert_eq!(
            described(&names, &owner(UID, 'a')),
            "pod blue/web container app"
        );
        assert_eq!(
            described(&names, &owner(OTHER, 'b')),
            "pod green/web container app"
        );
        let whole = Owner::of(&format!("/kubepods/pod{OTHER}"));
        assert_eq!(names.of_owner(&whole).1, None);
        assert_eq!(described(&names, &whole), "pod green/web");
    }

    #[test]
    fn what_is_not_known_is_told_apart_from_what_is_nobodys() {
        let names = Names::of(
            vec![with_container(pod(UID, "blue", "web"), 'a', "app")],
            10,
            &PodLabels::default(),
        );
        let new_container = names.of_owner(&owner(UID, 'c'));
        assert_eq!(new_container.1, Some(Unknown::Container(id('c'))));
        assert_eq!(new_container.0.unwrap().to_string(), "pod blue/web");
        let (name, unknown) = names.of_owner(&owner(OTHER, 'b'));
        assert_eq!(
            (name, unknown),
            (None, Some(Unknown::Pod(OTHER.to_owned())))
        );
        for nobody in [
            "/system.slice/ssh.service".to_owned(),
            format!("/docker/{}", id('d')),
        ] {
            assert_eq!(names.of_owner(&Owner::of(&nobody)), (None, None));
        }
    }

    /// A cluster inside a pod: whichever of the two the runtime knows, both are named, and the
    /// outer one is the owner.
    #[test]
    fn a_pod_in_a_pod_is_named_with_the_outer_one_first() {
        let outer = with_container(pod(UID, "ci", "kind"), 'a', "node");
        let names = Names::of(vec![outer], 10, &PodLabels::default());
        let (a, b) = (id('a'), id('b'));
        let path = format!("/kubepods/pod{UID}/{a}/kubelet/kubepods/burstable/pod{OTHER}/{b}");
        let (name, unknown) = names.of_owner(&Owner::of(&path));
        assert_eq!(
            name.unwrap().to_string(),
            format!("pod ci/kind container node, in it container bbbbbbbbbbbb of pod {OTHER}")
        );
        assert_eq!(unknown, None, "the node's runtime has no name for it");
        let nobody = Names::of(Vec::new(), 10, &PodLabels::default());
        let unknown = nobody.of_owner(&Owner::of(&path)).1;
        assert_eq!(unknown, Some(Unknown::Pod(UID.to_owned())));
        // Docker's container around a node of kind, which this agent runs in.
        let inner = with_container(pod(OTHER, "shop", "web"), 'b', "app");
        let names = Names::of(vec![inner], 10, &PodLabels::default());
        let path = format!("/docker/{a}/kubelet/kubepods/pod{OTHER}/{b}/system.slice/a.service");
        let (name, _) = names.of_owner(&Owner::of(&path));
        let name = name.unwrap().to_string();
        assert_eq!(name, "pod shop/web container app, in it a.service");
    }

    #[test]
    fn an_address_that_two_pods_claim_is_of_neither() {
        let shared: IpAddr = "10.0.0.7".parse().unwrap();
        let own: IpAddr = "fd00::7".parse().unwrap();
        let pods = vec![
            PodRecord {
                addresses: vec![shared, own],
                netns: Some(7),
                ..pod(UID, "blue", "web")
            },
            PodRecord {
                addresses: vec![shared],
                netns: Some(7),
                ..pod(OTHER, "green", "web")
            },
        ];
        let names = Names::of(pods, 10, &PodLabels::default());
        assert_eq!(names.of_address(shared), None);
        assert_eq!(names.of_netns(7), None);
        assert_eq!(names.of_address(own).unwrap().to_string(), "pod blue/web");
    }

    #[test]
    fn what_is_beyond_the_bounds_is_counted() {
        let many = (0..30).map(|i| {
            let pod = pod(&i.to_string(), "blue", "web");
            (0..30).fold(pod, |pod, i| {
                let mut pod = with_container(pod, 'a', "app");
                let last = pod.containers.last_mut().unwrap();
                last.id = format!("{}-{i}", pod.uid);
                pod
            })
        });
        let names = Names::of(many.collect(), 10, &PodLabels::default());
        assert_eq!((names.pods(), names.containers()), (10, 200));
        let cut = Cut {
            pods: 20,
            containers: 700,
        };
        assert_eq!(names.cut(), cut);
    }

    #[test]
    fn of_all_labels_those_that_were_chosen_are_kept() {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let labels = [
            label("app", "web"),
            label("k8s-app", &format!("a\n{}", "b".repeat(1_000))),
            label("pod-template-hash", "5d4f8c7b9"),
        ];
        let record = PodRecord {
            labels: labels.into(),
            netns: Some(7),
            ..pod(UID, "blue", "web")
        };
        let pods = vec![with_container(record, 'a', "app")];
        let names = Names::of(pods, 10, &PodLabels::usual());
        let cut = format!("a\u{fffd}{}", "b".repeat(LONGEST_NAME - 2));
        let kept = BTreeMap::from([label("app", "web"), label("k8s-app", &cut)]);
        let by_owner = names.of_owner(&owner(UID, 'a')).0.unwrap();
        assert_eq!(by_owner.labels, kept);
        assert_eq!(names.of_netns(7).unwrap().labels, kept);
    }

    #[test]
    fn odd_characters_do_no_harm() {
        assert_eq!(clean("web-1.a"), "web-1.a");
        assert_eq!(
            clean("a\u{1b}[31m\nb\u{202e}"),
            "a\u{fffd}[31m\u{fffd}b\u{fffd}"
        );
        assert_eq!(clean(&"ä".repeat(1_000)).chars().count(), LONGEST_NAME);
    }
}
