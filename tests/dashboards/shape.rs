//! What the result of an expression carries.

use std::collections::BTreeSet;

pub(crate) type Labels = BTreeSet<String>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A number or a text: no labels at all.
    Scalar,
    /// Series with these labels, besides the metric's name.
    Series(Labels),
    /// Of something that is a fault already.
    Unknown,
}

impl Shape {
    /// Applies to the labels, where there are any.
    pub(crate) fn map(self, change: impl FnOnce(Labels) -> Labels) -> Self {
        match self {
            Self::Series(labels) => Self::Series(change(labels)),
            Self::Scalar | Self::Unknown => self,
        }
    }

    /// Whether a label can be asked for. What is unknown already is not a fault twice.
    pub(crate) fn carries(&self, label: &str) -> bool {
        match self {
            Self::Scalar => false,
            Self::Series(labels) => labels.contains(label),
            Self::Unknown => true,
        }
    }
}

/// The labels for a person.
pub(crate) fn listed(labels: &Labels) -> String {
    let names = labels.iter().map(String::as_str).collect::<Vec<_>>();
    if names.is_empty() {
        "no labels".to_owned()
    } else {
        names.join(", ")
    }
}
