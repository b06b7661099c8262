//! Who is who on the node: what an operator calls the thing that a path, later an
//! address or a namespace, belongs to.

mod owner;

pub use owner::{Container, Owner, Pod, Qos, Runtime};
