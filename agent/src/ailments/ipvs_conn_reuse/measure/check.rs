//! Checking a recorded layout against the connections that the running module makes.

use std::collections::BTreeMap;

use ebpf::ipvs_conn_reuse::Specimen;

use super::NamespaceReading;
use crate::{
    ailments::ipvs_conn_reuse::{
        layout::Layout,
        support::{MODULE, Unchecked},
    },
    kernel::{
        bpf::{HashMap, Hook, Object, Probes},
        netns, sysctl,
    },
    model::{Missing, ProbeReport},
};

/// Connections that must agree.
const ENOUGH: usize = 3;

/// The check under way.
pub(super) struct Check {
    unchecked: Unchecked,
    taken: HashMap<u64, Specimen>,
    probe: Probes,
}

/// What has come out.
pub(super) enum Outcome {
    /// Too few connections were seen.
    Unfinished,
    /// The layout is the module's.
    Agrees,
    /// It is not.
    Disagrees(Missing),
}

impl Check {
    /// Attaches the probe that sees new connections; an error of its report where the
    /// kernel takes none.
    pub(super) fn begin(
        object: &mut Object,
        unchecked: Unchecked,
        hooks: &[Hook],
    ) -> anyhow::Result<Result<Self, Vec<ProbeReport>>> {
        let mut probe = Probes::of([&unchecked.probe], hooks).of_module(MODULE);
        probe.attach(object);
        if !probe.is_attached() {
            return Ok(Err(probe.reports().to_vec()));
        }
        Ok(Ok(Self {
            unchecked,
            taken: object.take_hash_map("TAKEN")?,
            probe,
        }))
    }

    /// Whether the probe keeps the module from being unloaded, and nobody else does.
    pub(super) fn alone(&self) -> bool {
        self.probe.alone()
    }

    /// Why nothing else is attached yet.
    pub(super) fn pending(&self) -> Missing {
        Missing {
            what: "types of module ip_vs".to_owned(),
            why: format!(
                "it has none; nodemedic checks the recorded layout of Linux {} against {ENOUGH} \
                 new connections before it uses it",
                self.unchecked.layout.series()
            ),
            remedy: format!("none needed: complete after {ENOUGH} client connections"),
        }
    }

    /// Judges the connections that were seen.
    pub(super) fn judge(&self, namespaces: &[NamespaceReading]) -> anyhow::Result<Outcome> {
        let layout = self.unchecked.layout;
        let mut settings = BTreeMap::new();
        let mut agreeing = 0;
        for (_, specimen) in self.taken.read()? {
            let values = settings
                .entry(specimen.netns)
                .or_insert_with(|| of_namespace(layout, specimen.netns, namespaces));
            // Unless its settings can be read nothing is known of them.
            let Some(values) = values else { continue };
            let wrong = layout.disagreements(&specimen, values, self.unchecked.hz);
            if !wrong.is_empty() {
                return Ok(Outcome::Disagrees(disagrees(layout, &wrong)));
            }
            agreeing += 1;
        }
        Ok(if agreeing < ENOUGH {
            Outcome::Unfinished
        } else {
            Outcome::Agrees
        })
    }
}

fn disagrees(layout: &Layout, wrong: &[String]) -> Missing {
    Missing {
        what: "types of module ip_vs".to_owned(),
        why: format!(
            "it has none, and the recorded layout of Linux {} does not fit the running module: {}",
            layout.series(),
            wrong.join(", ")
        ),
        remedy: "use a kernel with CONFIG_DEBUG_INFO_BTF_MODULES (Linux 5.11 or later); \
                 until then nodemedic uses the baseline"
            .to_owned(),
    }
}

/// The values of a layout's settings where they can be read.
fn of_namespace(
    layout: &Layout,
    netns: u32,
    namespaces: &[NamespaceReading],
) -> Option<Vec<Option<u64>>> {
    let read = || {
        let value = |name: &str| sysctl::read_number(&format!("net.ipv4.vs.{name}")).ok();
        let names = layout.settings.iter();
        names.map(|(name, _)| value(name).flatten()).collect()
    };
    if netns::own().is_ok_and(|own| own == netns) {
        return Some(read());
    }
    let living = namespaces.iter().find(|living| living.netns == netns)?;
    netns::within(living.pid, read).ok()
}
