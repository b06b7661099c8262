//! Size and command line of a guest.

use std::env;
use std::str::FromStr;

use anyhow::{Result, bail};

use super::madt;
use crate::scenario::Shape;

/// Memory of the usual guest, in MiB.
const MEMORY: u32 = 768;

/// What the kernel and the scenarios keep for each possible CPU takes room: a counter of 64 bytes
/// is 8 KiB of a machine with 128.
const MEMORY_OF_MANY_CPUS: u32 = 2_048;

/// A container runtime is some 100 MiB on the disk, which is memory here, and as much when it runs.
const MEMORY_OF_PODS: u32 = 1_536;

/// As many as a host of virtual machines is often told to be ready for.
const MANY: u8 = 128;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) cpus: u8,
    /// Those, and more that the kernel makes room for.
    possible_cpus: u8,
    pub(crate) memory_mib: u32,
    /// More words for the kernel's command line.
    pub(crate) cmdline: String,
    pub(crate) clock: Clock,
}

/// How time passes in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// As on the host.
    Host,
    /// A nanosecond an instruction, and as on the host while there is nothing to do. What a
    /// computation takes is then the same whatever else the host does. One CPU only.
    Instructions,
}

impl Machine {
    /// As the shape says, unless the environment says otherwise: `NODEMEDIC_VM_SMP`,
    /// `NODEMEDIC_VM_MEM` (MiB), `NODEMEDIC_VM_CMDLINE`.
    pub(crate) fn of(shape: Shape) -> Result<Self> {
        let (cpus, possible_cpus, memory_mib) = match shape {
            Shape::Usual | Shape::WithoutPsi => (1, 1, MEMORY),
            Shape::TwoCpus => (2, 2, MEMORY),
            Shape::Pods => (2, 2, MEMORY_OF_PODS),
            Shape::ManyPossibleCpus => (2, MANY, MEMORY_OF_MANY_CPUS),
        };
        let words = if shape == Shape::WithoutPsi {
            "psi=0 "
        } else {
            ""
        };
        let cpus = number("NODEMEDIC_VM_SMP", cpus)?;
        Ok(Self {
            cpus,
            possible_cpus: possible_cpus.max(cpus),
            memory_mib: number("NODEMEDIC_VM_MEM", memory_mib)?,
            cmdline: words.to_owned() + &env::var("NODEMEDIC_VM_CMDLINE").unwrap_or_default(),
            clock: Clock::Host,
        })
    }

    /// For the kernel's command line.
    pub(crate) fn words(&self) -> String {
        match self.listed_cpus() {
            None => self.cmdline.clone(),
            Some(_) => format!("{} maxcpus={} {}", madt::CHOICE, self.cpus, self.cmdline),
        }
    }

    /// How many CPUs the kernel is to be told of, if those are more than QEMU has.
    pub(crate) fn listed_cpus(&self) -> Option<u8> {
        (self.possible_cpus > self.cpus).then_some(self.possible_cpus)
    }
}

fn number<N: FromStr + Default + PartialOrd>(variable: &str, usual: N) -> Result<N> {
    match env::var(variable) {
        Err(_) => Ok(usual),
        Ok(text) => match text.parse() {
            Ok(number) if number > N::default() => Ok(number),
            _ => bail!("{variable}={text:?}: a number above 0 is wanted, and not too big a one"),
        },
    }
}
