//! The keys of the configuration as data, and how a part of the agent declares its own. The file
//! is read by [`config`](crate::config).

mod declare;
mod key;

pub use declare::{
    DAY, HOUR, Keyed, MILLISECOND, MINUTE, Named, SECOND, Table, Value, Word, allowed, count, flag,
    form, loopback, time,
};
pub(crate) use declare::{settings, shared_help, words};
pub use key::{Allowed, Key};
