//! What goes wrong on purpose, to prove that the harness notices.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nodemedic_tests::guest::Guest;
use nodemedic_tests::scenario::Verdict;

pub(crate) fn kernel_panic(guest: &Guest) -> Result<Verdict> {
    guest.set_sysctl("kernel.sysrq", "1")?;
    std::fs::write("/proc/sysrq-trigger", "c").context("ask the kernel to crash")?;
    bail!("the kernel survived")
}

pub(crate) fn error(_: &Guest) -> Result<Verdict> {
    Err(anyhow::anyhow!("on purpose")).context("an error")
}

pub(crate) fn panic(_: &Guest) -> Result<Verdict> {
    panic!("on purpose")
}

pub(crate) fn killed(guest: &Guest) -> Result<Verdict> {
    guest.sh(&format!("kill -KILL {}", std::process::id()))?;
    hang(guest)
}

pub(crate) fn hang(_: &Guest) -> Result<Verdict> {
    loop {
        sleep(Duration::from_secs(1));
    }
}
