//! What the agent can do with the capabilities that it is deployed with.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::faults::dns::Site;
use nodemedic_tests::faults::ipvs::{self, Services};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;
use serde_json::Value;

const TRIGGER: &str = "psi_stall trigger";
const DAEMONSET: &str = include_str!("../../deploy/daemonset.yaml");

/// Each probe has the hook that it has for root with all capabilities.
pub(crate) fn those_of_the_daemonset_attach_every_probe(guest: &Guest) -> Result<Verdict> {
    let site = Site::build(guest)?;
    guest.modprobe("nf_conntrack_netlink")?;
    Services::new(1).add(guest)?;
    let mut all = hooks(guest, "")?;
    let added = added()?;
    let mut few = hooks(
        guest,
        &format!("setpriv --bounding-set=-all,{} --", added.join(",")),
    )?;
    // On 5.10 nobody may write these files but by CAP_DAC_OVERRIDE, which would let the agent write
    // every other file as well.
    let mode = fs::metadata("/proc/pressure/cpu")
        .context("look at /proc/pressure/cpu")?
        .mode();
    if mode & 0o222 == 0 {
        let trigger = few.remove(TRIGGER);
        ensure!(trigger == Some(Value::Null), "{trigger:?}");
        all.remove(TRIGGER);
    }
    ensure!(few == all, "with {added:?}: {few:?}; with all: {all:?}");
    let attached = all.values().filter(|hook| !hook.is_null()).count();
    ensure!(attached > 10, "{all:?}");
    // The same question to a process without any is answered otherwise.
    let none = hooks(guest, "setpriv --bounding-set=-all --")?;
    ensure!(none != all, "nothing is missing without capabilities");
    ipvs::clear(guest)?;
    drop(site);
    Ok(Verdict::Passed)
}

/// The capabilities that the agent's container gets, as `setpriv` has them.
fn added() -> Result<Vec<String>> {
    let (_, list) = DAEMONSET
        .split_once("capabilities:")
        .and_then(|(_, rest)| rest.split_once("add:\n"))
        .context("deploy/daemonset.yaml adds capabilities")?;
    let lines = list.lines().map(str::trim_start);
    let lines = lines.take_while(|line| line.starts_with(['-', '#']));
    let names = lines.filter_map(|line| line.strip_prefix("- "));
    Ok(names.map(|it| format!("+{}", it.to_lowercase())).collect())
}

/// The hook of each probe of each ailment, as `nodemedic probes` tells when it is run by this command.
fn hooks(guest: &Guest, by: &str) -> Result<BTreeMap<String, Value>> {
    let told: Value = serde_json::from_str(&guest.sh(&format!("{by} nodemedic probes --json"))?)?;
    let ailments = told.as_array().context("ailments")?;
    let of = |ailment: &Value| {
        let probes = ailment["probes"].as_array().cloned().unwrap_or_default();
        let name = |of: &Value| of.as_str().unwrap_or_default().to_owned();
        let ailment = name(&ailment["ailment"]);
        probes.into_iter().map(move |probe| {
            let probe_name = format!("{ailment} {}", name(&probe["name"]));
            (probe_name, probe["hook"].clone())
        })
    };
    Ok(ailments.iter().flat_map(of).collect())
}
