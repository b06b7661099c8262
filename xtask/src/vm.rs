//! Runs scenarios in virtual machines, or leaves a person in one.

use anyhow::Result;

use crate::{build, cargo, paths};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this kernel of tests/kernels.toml.
    #[arg(long)]
    kernel: Option<String>,
    /// Only scenarios whose name starts with this.
    #[arg(long)]
    scenario: Option<String>,
    /// Boot on this terminal, run the scenarios if some are named, and stay for a shell.
    #[arg(long, requires = "kernel")]
    keep: bool,
    /// With --keep: a TCP port of the loopback that leads to the same port in the guest.
    #[arg(long, value_name = "PORT", requires = "keep")]
    forward: Option<u16>,
    /// Take bpftrace along.
    #[arg(long)]
    bpftrace: bool,
    /// Processors of the guest.
    #[arg(long, value_name = "N")]
    smp: Option<u32>,
    /// Memory of the guest, in MiB.
    #[arg(long, value_name = "MIB")]
    mem: Option<u32>,
    /// More words for the kernel's command line.
    #[arg(long, value_name = "WORDS")]
    cmdline: Option<String>,
}

/// The test binary boots the machines. What it has no options for, it takes from the environment:
/// see `tests/src/vm/mod.rs`.
pub(crate) fn run(args: Args) -> Result<()> {
    build::agent()?;
    let mut test = cargo::cargo_static("test");
    // The whole workspace is selected for its features: then this shares what `test` has compiled.
    test.args(["--workspace", "--test", "scenarios"]);
    test.env("NODEMEDIC_BIN", paths::agent());
    test.envs(args.environment());
    cargo::exec(test.arg("--").arg(args.filter()))
}

impl Args {
    fn environment(&self) -> impl Iterator<Item = (&'static str, String)> {
        let keep = match (self.keep, &self.scenario) {
            (false, _) => None,
            (true, None) => Some("shell"),
            (true, Some(_)) => Some("keep"),
        };
        let variables = [
            ("NODEMEDIC_VM", text(keep)),
            ("NODEMEDIC_VM_KERNEL", self.kernel.clone()),
            ("NODEMEDIC_VM_FORWARD", text(self.forward)),
            ("NODEMEDIC_VM_BPFTRACE", text(self.bpftrace.then_some(1))),
            ("NODEMEDIC_VM_SMP", text(self.smp)),
            ("NODEMEDIC_VM_MEM", text(self.mem)),
            ("NODEMEDIC_VM_CMDLINE", self.cmdline.clone()),
        ];
        let set = variables.into_iter();
        set.filter_map(|(variable, value)| Some((variable, value?)))
    }

    /// Tests are called `vm::KERNEL::SCENARIO`.
    fn filter(&self) -> String {
        match &self.scenario {
            Some(scenario) => format!("::{scenario}"),
            None => "vm::".to_owned(),
        }
    }
}

fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|value| value.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &str) -> Args {
        Line::parse_from(line.split(' ')).args
    }

    #[test]
    fn scenarios_are_selected_by_name() {
        assert_eq!(args("vm").filter(), "vm::");
        assert_eq!(args("vm --scenario udp").filter(), "::udp");
    }

    #[test]
    fn only_what_is_asked_for_reaches_the_environment() {
        assert_eq!(args("vm").environment().count(), 0);
        let set = args("vm --kernel 6.1 --keep")
            .environment()
            .collect::<Vec<_>>();
        let wanted = [("NODEMEDIC_VM", "shell"), ("NODEMEDIC_VM_KERNEL", "6.1")];
        assert_eq!(
            set,
            wanted.map(|(variable, value)| (variable, value.to_owned()))
        );
    }

    #[test]
    fn a_forward_needs_somebody_to_stay() {
        assert!(Line::try_parse_from(["vm", "--forward", "80"]).is_err());
        assert!(Line::try_parse_from(["vm", "--keep"]).is_err());
    }
}
