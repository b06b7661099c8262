//! The labels of pods that go along with their names: which, and what metrics call them.

use serde::{Deserialize, Serialize};

use super::Name;
use crate::keys::{Allowed, Value};

/// The most that may be chosen, as [`Value::ALLOWED`] says: each is a label more on every series that names a pod.
const MOST: usize = 10;

/// The longest that Kubernetes allows for the name in a key, and for the prefix before it.
const LONGEST_NAME: usize = 63;
const LONGEST_PREFIX: usize = 253;

/// The keys of the labels that are carried, in the order of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodLabels(Vec<String>);

impl Value for PodLabels {
    const ALLOWED: Option<Allowed> = Some(Allowed::Checked {
        check: PodLabels::check,
        shown: "a list of up to 10 keys of labels, such as \"app.kubernetes.io/name\", each with a \
                name of its own in metrics",
    });
}

impl PodLabels {
    /// Those by which most pods say what they are an instance of: the one that Kubernetes
    /// recommends, the one of its own tutorials, and the one of its own parts.
    pub fn usual() -> Self {
        Self(
            ["app.kubernetes.io/name", "app", "k8s-app"]
                .map(str::to_owned)
                .into(),
        )
    }

    /// Whether these keys could be chosen together.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn check(keys: &[&str]) -> Result<(), String> {
        if keys.len() > MOST {
            return Err(format!("{} keys are too many", keys.len()));
        }
        for (i, key) in keys.iter().enumerate() {
            if !is_key(key) {
                return Err(format!("{key:?} is no key of a label"));
            }
            let name = in_metrics(key);
            if let Some(same) = keys[..i].iter().find(|other| in_metrics(other) == name) {
                return Err(format!(
                    "{same:?} and {key:?} would both be {name} in metrics"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// What a pod has of them, by their names in metrics. All are there, whatever the pod has
    /// and whether it is known, since the labels of a metric must stay the same.
    pub fn of(&self, name: Option<&Name>) -> Vec<(String, String)> {
        let value = |key| name.and_then(|name| name.labels.get(key)).cloned();
        let label = |key| (in_metrics(key), value(key).unwrap_or_default());
        self.keys().map(label).collect()
    }
}

/// Like kube-state-metrics (internal/store/utils.go), so that both join: what Prometheus
/// allows in no label becomes an underscore, and camel case becomes snake case.
fn in_metrics(key: &str) -> String {
    let mut name = "label_".to_owned();
    let mut after_small = false;
    for c in key.chars() {
        if after_small && c.is_ascii_uppercase() {
            name.push('_');
        }
        after_small = c.is_ascii_lowercase() || c.is_ascii_digit();
        name.push(if c.is_ascii_alphanumeric() {
            c.to_ascii_lowercase()
        } else {
            '_'
        });
    }
    name
}

/// As apimachinery has it (`IsQualifiedName` of pkg/util/validation): a name, with the name
/// of a domain and a slash before it where it is not private to somebody.
fn is_key(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.len() <= LONGEST_NAME && is_word(name, fits) && prefix.is_none_or(is_domain)
}

fn is_domain(prefix: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let mut parts = prefix.split('.');
    prefix.len() <= LONGEST_PREFIX && parts.all(|part| is_word(part, fits))
}

/// Neither begins nor ends with a sign.
fn is_word(text: &str, fits: impl Fn(char) -> bool) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(text.chars().next()) && edge(text.chars().next_back()) && text.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_call_a_label_what_kube_state_metrics_does() {
        for (key, called) in [
            ("app", "label_app"),
            ("app.kubernetes.io/name", "label_app_kubernetes_io_name"),
            ("k8s-app", "label_k8s_app"),
            ("costCenter", "label_cost_center"),
            ("v1Beta2API", "label_v1_beta2_api"),
            ("APIServer", "label_apiserver"),
        ] {
            assert_eq!(in_metrics(key), called, "{key}");
        }
    }

    #[test]
    fn a_key_is_what_kubernetes_takes_for_one() {
        let longest = format!("{}/{}", ["a"; 127].join("."), "N".repeat(63));
        for key in ["a", "A_b-c.9", "example.com/MyName", &longest] {
            assert!(is_key(key), "{key}");
        }
        let long = "n".repeat(64);
        let long_prefix = format!("{}/n", "a".repeat(254));
        for key in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "-a",
            "a-",
            "a b",
            "ä",
            "A.com/a",
            "a..b/a",
            "a.-b/a",
            "a_b/a",
            "a\n",
            &long,
            &long_prefix,
        ] {
            assert!(!is_key(key), "{key:?}");
        }
    }

    #[test]
    fn what_cannot_be_told_apart_is_not_chosen_together() {
        let usual = PodLabels::usual();
        assert_eq!(PodLabels::check(&usual.keys().collect::<Vec<_>>()), Ok(()));
        assert_eq!(PodLabels::check(&[]), Ok(()));
        let twins = ["appName", "team", "app-name"];
        assert_eq!(
            PodLabels::check(&twins).unwrap_err(),
            "\"appName\" and \"app-name\" would both be label_app_name in metrics"
        );
        assert!(PodLabels::check(&["team", "team"]).is_err());
        let many: Vec<_> = (0..=MOST).map(|i| format!("a{i}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(PodLabels::check(&many[1..]), Ok(()));
        assert_eq!(PodLabels::check(&many).unwrap_err(), "11 keys are too many");
    }

    #[test]
    fn all_labels_are_there_whatever_is_known() {
        let labels = PodLabels::usual();
        let name = Name {
            labels: [("app".to_owned(), "web".to_owned())].into(),
            ..Name::default()
        };
        for (name, app) in [(Some(&name), "web"), (None, "")] {
            let of = [
                ("label_app_kubernetes_io_name", ""),
                ("label_app", app),
                ("label_k8s_app", ""),
            ];
            let of = of.map(|(label, value)| (label.to_owned(), value.to_owned()));
            assert_eq!(labels.of(name), of);
        }
    }
}
