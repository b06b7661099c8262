//! What procfs says: works on every kernel and without privileges for BPF.

use std::time::Duration;

use super::{NamespaceReading, Neighbours, Reading, VsSettings, udp::Watch};
use crate::{
    ailments::ipvs_conn_reuse::{Settings, dead::Sweepers},
    kernel::{
        conntrack,
        ipvs::{Namespace, Scanner},
        netns::{self, Namespaces},
        sysctl,
    },
};

/// Counts services, reads the settings that decide about SYNs, and looks for UDP flows on drained
/// and removed destinations.
#[derive(Debug)]
pub(super) struct Baseline {
    namespaces: Namespaces,
    scanner: Scanner,
    udp: Watch,
    sweepers: Sweepers,
}

impl Baseline {
    pub(super) fn new(settings: &Settings, sweepers: Sweepers) -> Self {
        Self {
            namespaces: Namespaces::default(),
            scanner: Scanner::new(settings.scan_interval, settings.scan_timeout),
            udp: Watch::new(settings),
            sweepers,
        }
    }

    pub(super) fn read(&mut self, window: Duration) -> anyhow::Result<Reading> {
        let own = netns::own()?;
        let scanned = self.scanner.scan(self.namespaces.living());
        let namespaces = scanned
            .iter()
            .map(|namespace| NamespaceReading {
                netns: namespace.netns,
                pid: namespace.pid,
                scan: namespace.scan,
                settings: settings(namespace, own),
            })
            .collect::<Vec<_>>();
        Ok(Reading {
            window_seconds: window.as_secs_f64(),
            udp: self.udp.read(&namespaces),
            namespaces,
            netns: Some(own),
            close_timeout: sysctl::read_number("net.netfilter.nf_conntrack_tcp_timeout_close")?,
            has_ctnetlink: Some(conntrack::netlink_is_there()),
            sweep: self.sweepers.reading(),
            probed: None,
            neighbours: Neighbours::default(),
        })
    }
}

/// The settings of a namespace; all unknown where it cannot be entered.
fn settings(namespace: &Namespace, own: u32) -> VsSettings {
    if namespace.netns == own {
        return read_settings();
    }
    netns::within(namespace.pid, read_settings).unwrap_or_default()
}

/// The settings of the namespace of the calling thread.
fn read_settings() -> VsSettings {
    let read = |key| sysctl::read_number(key).ok().flatten();
    VsSettings {
        conn_reuse_mode: read("net.ipv4.vs.conn_reuse_mode"),
        expire_nodest_conn: read("net.ipv4.vs.expire_nodest_conn"),
        conntrack: read("net.ipv4.vs.conntrack"),
        expire_quiescent_template: read("net.ipv4.vs.expire_quiescent_template"),
    }
}
