//! Makers of real, bounded faults. Each leaves traces only in the guest that it works in.

pub mod cgroup;
pub mod dns;
pub mod dnsperf;
pub mod ipvs;
pub mod ping;
pub mod reuse;
