//! The unit of deploy/, run by a real systemd.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nodemedic_tests::eventually::eventually;
use nodemedic_tests::guest::{Guest, Process};
use nodemedic_tests::scenario::Verdict;
use serde_json::Value;

use crate::agent::{SOON, verb};

const UNIT: &str = include_str!("../../deploy/nodemedic.service");
const UNITS: &str = "/etc/systemd/system";
/// What the unit's comment says is to be set for treatments.
const TREATING: &str = "[Service]\nReadOnlyPaths=\nReadOnlyPaths=/sys\n";
const SWITCH: &str = "/proc/sys/net/ipv4/vs/run_estimation";
const TREAT: [&str; 6] = [
    "treat",
    "ipvs_estimation",
    "--treatment",
    "run_estimation",
    "--apply",
    "--force",
];

/// systemd with the unit and a service in another network namespace.
struct Manager<'g> {
    guest: &'g Guest,
    process: Process,
}

impl<'g> Manager<'g> {
    fn start(guest: &'g Guest) -> Result<Self> {
        guest.sh("set -e
            mkdir -p /usr/local/bin
            ln -sf /usr/bin/nodemedic /usr/local/bin/nodemedic
            ip netns add other
            ip netns exec other ipvsadm -A -t 10.1.1.1:80 -s rr")?;
        let write = |file: &str, text: &str| {
            let path = Path::new(UNITS).join(file);
            let folder = path.parent().context("a unit is in a folder")?;
            fs::create_dir_all(folder).context("make a folder for units")?;
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))
        };
        write("nodemedic.service", UNIT)?;
        let asks = UNIT
            .replace(
                "ExecStart=/usr/local/bin/nodemedic run",
                "ExecStart=/usr/local/bin/nodemedic probes --json",
            )
            .replace(
                "Type=exec",
                "Type=oneshot\nStandardOutput=file:/run/probes.json",
            )
            .replace("Restart=on-failure", "Restart=no");
        ensure!(
            asks.contains("probes --json") && asks.contains("/run/probes.json"),
            "{asks}"
        );
        write("probes.service", &asks)?;
        let other = "[Service]\nExecStart=/bin/sleep 1000\nNetworkNamespacePath=/run/netns/other\n";
        write("other.service", other)?;
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc"]);
        command.args(["/usr/lib/systemd/systemd", "--system"]);
        command.env("container", "other");
        let process = guest.start("systemd", &mut command)?;
        let manager = Self { guest, process };
        eventually(SOON, "systemd is up", || {
            manager.systemctl("is-active multi-user.target")
        })?;
        Ok(manager)
    }

    /// systemd listens only to processes of its own PID namespace.
    fn systemctl(&self, what: &str) -> Result<String> {
        let children = format!("/proc/{0}/task/{0}/children", self.process.id());
        let init = fs::read_to_string(&children).with_context(|| format!("read {children}"))?;
        let init = init.trim();
        ensure!(!init.is_empty(), "systemd does not run");
        self.guest
            .sh(&format!("nsenter -t {init} -p -m systemctl {what}"))
    }
}

/// Which probes have which hook.
fn hooks(probes: &str) -> Result<Vec<String>> {
    let probes: Value = serde_json::from_str(probes).context("read the table of probes")?;
    let mut hooks = Vec::new();
    for ailment in probes.as_array().context("ailments")? {
        for probe in ailment["probes"].as_array().into_iter().flatten() {
            hooks.push(format!(
                "{} {}: {}",
                ailment["ailment"], probe["name"], probe["hook"]
            ));
        }
    }
    Ok(hooks)
}

fn is_set_there(guest: &Guest, value: &str) -> Result<()> {
    let now = guest.sh(&format!("ip netns exec other cat {SWITCH}"))?;
    ensure!(now.trim() == value, "run_estimation is {now}, not {value}");
    Ok(())
}

/// Under the unit the agent has the probes that root has without it. With the lines for treatments
/// it treats in another network namespace, and the agent that systemd starts after one was killed knows
/// what that one has set.
pub(crate) fn the_unit_lets_the_agent_see_treat_and_recover(guest: &Guest) -> Result<Verdict> {
    for module in ["ip_vs_rr", "nf_conntrack_netlink"] {
        guest.modprobe(module)?;
    }
    let manager = Manager::start(guest)?;
    manager.systemctl("start other.service probes.service")?;
    let confined = fs::read_to_string("/run/probes.json").context("read what the unit printed")?;
    let (confined, root) = (
        hooks(&confined)?,
        hooks(&verb(guest, &["probes", "--json"])?.ok()?)?,
    );
    ensure!(
        !root.is_empty() && confined == root,
        "{confined:#?} is not {root:#?}"
    );

    manager.systemctl("start nodemedic.service")?;
    let treat = || verb(guest, &TREAT);
    eventually(SOON, "a treatment is refused", || {
        let refused = treat()?;
        ensure!(refused.status.code() == Some(2), "{refused:?}");
        let why = format!("{}{}", refused.stdout, refused.stderr);
        ensure!(why.contains("ReadOnlyPaths="), "{why}");
        Ok(())
    })?;
    is_set_there(guest, "1")?;

    let folder = Path::new(UNITS).join("nodemedic.service.d");
    fs::create_dir_all(&folder).context("make a folder for the unit")?;
    fs::write(folder.join("treat.conf"), TREATING).context("allow treatments")?;
    manager.systemctl("daemon-reload")?;
    manager.systemctl("restart nodemedic.service")?;
    eventually(SOON, "it is treated", || treat()?.ok())?;
    is_set_there(guest, "0")?;
    manager.systemctl("kill --signal=SIGKILL nodemedic.service")?;
    eventually(2 * SOON, "the next agent knows of it", || {
        manager.systemctl("is-active nodemedic.service")?;
        let status = verb(guest, &["status"])?.ok()?;
        ensure!(
            status.contains("run_estimation against ipvs_estimation: applied"),
            "{status}"
        );
        Ok(())
    })?;
    verb(guest, &["undo"])?.ok()?;
    is_set_there(guest, "1")?;
    Ok(Verdict::Passed)
}
