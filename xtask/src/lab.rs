//! Boots a kernel with an ailment and the agent in it, for a person to look at.

use std::num::NonZeroU16;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::{build, cargo, paths, scenarios};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to look at.
    #[arg(long, value_enum, default_value_t = Ailment::UdpConntrack)]
    ailment: Ailment,
    /// The kernel of tests/kernels.toml to boot; by default one that shows the ailment well.
    #[arg(long)]
    kernel: Option<String>,
    /// The port of the loopback on which the agent's pages are. Not the agent's own by default:
    /// one may be running on this host.
    #[arg(long, default_value = "19120")]
    port: NonZeroU16,
    /// How big the fault is: DNS queries a second (200) for udp_conntrack, services (3000) for
    /// ipvs_estimation, clients (100) for ipvs_conn_reuse.
    #[arg(long, value_name = "N")]
    size: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Ailment {
    /// A storm of DNS queries fills the connection tracking table.
    UdpConntrack,
    /// Packets wait while IPVS goes over its services, for 128 possible CPUs.
    IpvsEstimation,
    /// Clients on fixed ports wait a second, while the servers of a service are exchanged.
    IpvsConnReuse,
}

/// What the lab of an ailment has by default, and how big it may be.
struct Lab {
    name: &'static str,
    kernel: &'static str,
    size: u32,
    sizes: std::ops::RangeInclusive<u32>,
}

impl Ailment {
    fn lab(self) -> Lab {
        match self {
            Self::UdpConntrack => Lab {
                name: "udp_conntrack",
                kernel: "6.12",
                size: 200,
                sizes: 3..=5_000,
            },
            // From 6.2 on a kernel thread does it, and nobody waits.
            Self::IpvsEstimation => Lab {
                name: "ipvs_estimation",
                kernel: "6.1",
                size: 3_000,
                sizes: 1..=20_000,
            },
            Self::IpvsConnReuse => Lab {
                name: "ipvs_conn_reuse",
                kernel: "6.12",
                size: 100,
                sizes: 1..=500,
            },
        }
    }
}

/// Becomes the test binary, which then is the process that a signal has to reach.
pub(crate) fn run(args: Args) -> Result<()> {
    let lab = args.ailment.lab();
    let size = args.size.unwrap_or(lab.size);
    ensure!(
        lab.sizes.contains(&size),
        "--size {size}: {} goes from {} to {}",
        lab.name,
        lab.sizes.start(),
        lab.sizes.end()
    );
    build::agent()?;
    let mut program = scenarios::program()?;
    program
        .env("NODEMEDIC_BIN", paths::agent())
        .env("NODEMEDIC_VM", "lab")
        .env(
            "NODEMEDIC_VM_KERNEL",
            args.kernel.as_deref().unwrap_or(lab.kernel),
        )
        .env("NODEMEDIC_LAB_AILMENT", lab.name)
        .env("NODEMEDIC_LAB_PORT", args.port.to_string())
        .env("NODEMEDIC_LAB_SIZE", size.to_string());
    cargo::exec(&mut program)
}
