//! All that crosses from the kernel to the agent: keys, values, offsets and
//! histograms, one module an ailment.
//!
//! The types here are laid out by C rules, and every unit stands in the
//! documentation of its field. The programs themselves are binaries of this
//! package (`src/<ailment>/probes.rs`), built for the BPF target alone.

#![cfg_attr(target_arch = "bpf", no_std, feature(asm_experimental_arch))]

pub mod ipvs_conn_reuse;
pub mod ipvs_estimation;
pub mod psi_stall;
pub mod shared;
pub mod symbols;
pub mod udp_conntrack;
