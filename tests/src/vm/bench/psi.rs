//! docs/performance-psi.md: what `psi_stall` costs whoever is switched, and what it takes with many
//! cgroups.

use anyhow::Result;

use super::Measured;
use super::figures::{Sizes, Switches};
use super::page::{by_size, median};

/// What the page is made of.
pub(super) const PARTS: [&str; 2] = ["psi_switches", "psi_cgroups"];

pub(super) fn render(measured: &Measured, kernel: &str) -> Result<String> {
    let (figures, sizes) = (measured.take(PARTS[0])?, measured.take(PARTS[1])?);
    Ok(page(&figures, kernel) + &cgroups(&sizes))
}

fn cgroups(figures: &Sizes) -> String {
    format!(
        "
## Many cgroups

The agent as it comes, with a reading in 5 s, for {:.0} s beside few cgroups and beside very many: pods of
the kubelet with nine containers each, in which nobody waits. The readings are those of `psi_stall`;
milliseconds are millions of instructions.

{}",
        figures.watched,
        by_size("Cgroups", figures)
    )
}

fn page(figures: &Switches, kernel: &str) -> String {
    let switches = 2.0 * f64::from(figures.round_trips);
    let each = |seconds: &[f64]| median(seconds) * 1e9 / switches;
    let nothing = figures.rounds.first().map_or(0.0, |it| each(&it.seconds));
    let rows = figures.rounds.iter().map(|rounds| {
        let cost = each(&rounds.seconds);
        let percent = (cost - nothing) / nothing.max(f64::EPSILON) * 100.0;
        let (least, most) = rounds
            .seconds
            .iter()
            .fold((f64::MAX, 0.0_f64), |(a, b), it| (a.min(*it), b.max(*it)));
        let spread = (most - least) / least.max(f64::EPSILON) * 100.0;
        let count = rounds.seconds.len();
        let attached = &rounds.attached;
        format!("| {attached} | {count} | {cost:.0} | {percent:+.1} % | {spread:.1} % |\n")
    });
    format!(
        "\
<!-- Made by `cargo xtask bench --only psi`: run it again. -->
# Performance of psi_stall

## Switches of tasks

What `psi_stall` costs tasks that are switched, measured in one boot of one VM with one CPU and Debian's
kernel {kernel}. The clock of the VM counts instructions,
one nanosecond each: what [performance.md](performance.md) says of that holds here.

A round is {} round trips of a byte through two pipes between two threads: nothing but system calls and
switches, two switches a round trip, so that a real load pays a smaller part. A figure is the median of
the rounds, and the readings that the agent takes meanwhile are in it.

| Agent | Rounds | Instructions a switch | | Spread of the rounds |
|---|---|---|---|---|
{}
At rest the agent has its triggers set and its probes on waits for memory attached, which no switch
passes. Watching, its programs on `sched_switch` and `sched_wakeup` are attached: by itself for `trace_duration`
(3 s), and then not for `trace_cooldown` (30 s), however long tasks wait.
",
        figures.round_trips,
        rows.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::figures::SwitchRounds;

    #[test]
    fn a_switch_is_compared_with_one_without_an_agent() {
        let of = |attached: &str, seconds: &[f64]| SwitchRounds {
            attached: attached.to_owned(),
            seconds: seconds.to_vec(),
        };
        let figures = Switches {
            round_trips: 1_000,
            rounds: vec![of("nothing", &[0.004, 0.005]), of("watching", &[0.009])],
        };
        let page = page(&figures, "of a test");
        assert!(
            page.contains("| nothing | 2 | 2250 | +0.0 % | 25.0 % |"),
            "{page}"
        );
        assert!(
            page.contains("| watching | 1 | 4500 | +100.0 % | 0.0 % |"),
            "{page}"
        );
    }
}
