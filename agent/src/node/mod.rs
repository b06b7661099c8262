//! Who is who on the node: what an operator calls the thing that a path, an address or a
//! network namespace belongs to.
//!
//! [`Owner`] reads a cgroup's path alone. [`Directory`] knows the names of pods and
//! containers besides, by the runtime or the kubelet.

mod cri;
mod directory;
mod kubelet;
mod labels;
mod metrics;
mod names;
mod neighbours;
mod on_node;
mod owner;
mod settings;
mod source;

pub use directory::Directory;
pub use labels::PodLabels;
pub use metrics::{METRICS, samples};
pub use names::{Name, Names};
pub use neighbours::Neighbours;
pub use owner::{Container, Owner, Pod, Qos, Runtime};
pub use settings::{Ask, Node};

/// For fuzzing.
#[cfg(any(test, fuzzing))]
pub const FUZZ: [&crate::fuzz::Parser; 3] = [&cri::FUZZ, &kubelet::FUZZ, &owner::FUZZ];
