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

/// Of the random numbers of guests. Another one gives other ports, hashes and addresses.
const SEED: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) cpus: u8,
    /// Those, and more that the kernel makes room for.
    possible_cpus: u8,
    pub(crate) memory_mib: u32,
    /// More words for the kernel's command line.
    pub(crate) cmdline: String,
    pub(crate) clock: Clock,
    /// Of the guest's random numbers, where its clock is not the host's.
    pub(crate) seed: u32,
}

/// How time passes in a guest.
///
/// All but [`Clock::Host`] count instructions (QEMU's `-icount`), one CPU at a time: what a
/// computation takes is the same whatever else the host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// As on the host, and each CPU has a thread: for a person at the guest's console.
    Host,
    /// The guest's clock is never ahead of the host's: for guests that something outside talks to. It
    /// is behind where the host is too busy.
    Paced(Shift),
    /// Idle time is skipped: nothing that the host does reaches the guest, and two boots with one
    /// [`Machine::seed`] do the same.
    Virtual(Shift),
}

/// An instruction takes two to the power of this, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shift(pub(crate) u8);

impl Shift {
    /// 4 ns. That is about the pace of an emulated CPU, so what takes a second of the host's CPU takes
    /// a second in the guest.
    pub(crate) const USUAL: Self = Self(2);

    /// 1 ns: a CPU that has time for what a benchmark measures.
    pub(crate) const FAST: Self = Self(0);
}

impl Machine {
    /// As the shape says, unless the environment says otherwise: `NODEMEDIC_VM_SMP`,
    /// `NODEMEDIC_VM_MEM` (MiB), `NODEMEDIC_VM_CMDLINE`, `NODEMEDIC_VM_SEED`.
    pub(crate) fn of(shape: Shape) -> Result<Self> {
        let (cpus, possible_cpus, memory_mib) = match shape {
            Shape::Usual | Shape::WithoutPsi | Shape::LockedDown => (1, 1, MEMORY),
            Shape::TwoCpus => (2, 2, MEMORY),
            Shape::Pods => (2, 2, MEMORY_OF_PODS),
            Shape::ManyPossibleCpus => (2, MANY, MEMORY_OF_MANY_CPUS),
        };
        let words = match shape {
            Shape::WithoutPsi => "psi=0 ",
            Shape::LockedDown => "lockdown=confidentiality ",
            Shape::Usual | Shape::TwoCpus | Shape::Pods | Shape::ManyPossibleCpus => "",
        };
        let cpus = number("NODEMEDIC_VM_SMP", cpus)?;
        Ok(Self {
            cpus,
            possible_cpus: possible_cpus.max(cpus),
            memory_mib: number("NODEMEDIC_VM_MEM", memory_mib)?,
            cmdline: words.to_owned() + &env::var("NODEMEDIC_VM_CMDLINE").unwrap_or_default(),
            clock: Clock::Virtual(Shift::USUAL),
            seed: number("NODEMEDIC_VM_SEED", SEED)?,
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
