//! docs/performance-ipvs.md: what the ailments of IPVS cost, and what that means.

use anyhow::Result;

use super::Measured;
use super::figures::{Connections, Passes, Program, SetUps, Sizes};
use super::page::{by_size, median};

/// What the page is made of.
pub(super) const PARTS: [&str; 3] = ["ipvs_connections", "ipvs_passes", "ipvs_services"];

pub(super) fn render(measured: &Measured, kernel: &str) -> Result<String> {
    let sections = [
        head(kernel),
        connections(&measured.take(PARTS[0])?),
        passes(&measured.take(PARTS[1])?),
        services(&measured.take(PARTS[2])?),
    ];
    Ok(sections.join("\n"))
}

fn head(kernel: &str) -> String {
    format!(
        "\
<!-- Made by `cargo xtask bench --only ipvs`: run it again. -->
# Performance beside IPVS

What `ipvs_conn_reuse` and `ipvs_estimation` cost a node, measured in one boot of one VM with one CPU
and Debian's kernel {kernel}. The clock of the VM counts
instructions, one nanosecond each: what [performance.md](performance.md) says of that holds here.
"
    )
}

fn connections(figures: &Connections) -> String {
    let count = f64::from(figures.connections);
    let each = |seconds: &[f64]| median(seconds) * 1e9 / count;
    let costs = |rounds: &SetUps| [each(&rounds.new), each(&rounds.reused)];
    let nothing = figures.rounds.first().map_or([0.0; 2], costs);
    let rows = figures.rounds.iter().map(|rounds| {
        let [new, reused] = costs(rounds);
        let more = |cost: f64, base: f64| {
            let percent = (cost - base) / base * 100.0;
            format!("{:.0} | {cost:.0} | {percent:+.1} %", 1e9 / cost)
        };
        format!(
            "| {} | {} | {} |\n",
            rounds.attached,
            more(new, nothing[0]),
            more(reused, nothing[1])
        )
    });
    format!(
        "\
## Connections

A round is {} TCP connections through a virtual service (NAT and masquerade, as kube-proxy sets it),
one after the other, each from the client's SYN to the last FIN, and then the same from the same ports
again, for each of which IPVS lets the old connection go. Client, server, kernel and agent share the
CPU. Rounds with nothing attached, with the agent and with bpftrace take turns; a figure is the median.
bpftrace counts, and no more, on `ip_vs_schedule` and `ip_vs_conn_expire_now`.

| Attached | New: a second | Instructions | | Reused: a second | Instructions | |
|---|---|---|---|---|---|---|
{}
What the kernel itself counts of each program (`kernel.bpf_stats_enabled`), the hook not included; of
bpftrace's, both together:

{}",
        figures.connections,
        rows.collect::<String>(),
        programs(&figures.programs)
    )
}

fn passes(figures: &Passes) -> String {
    format!(
        "\
## The estimator

{} services with one destination each, for 20 s with each of these. A pass is one run of `{}`
here. The programs on softirqs and on switches and wake-ups of tasks are attached all the time for this;
by itself the agent attaches them while passes are slow, and never where threads do the work (from 6.2
on). bpftrace's first script measures how long passes take, the others count.

{}",
        figures.services,
        figures.function,
        programs(&figures.programs)
    )
}

fn programs(programs: &[Program]) -> String {
    let rows = programs.iter().map(|program| {
        let each = program.nanoseconds as f64 / program.runs.max(1) as f64;
        format!("| {} | {} | {each:.0} |\n", program.name, program.runs)
    });
    format!(
        "| Program | Runs | Instructions a run |\n|---|---|---|\n{}",
        rows.collect::<String>()
    )
}

fn services(figures: &Sizes) -> String {
    format!(
        "\
## Many services

The agent as it comes, with a reading in 5 s, for {:.0} s beside few services and beside very many, each
with one destination. The readings are those of both ailments together; milliseconds are millions of
instructions.

{}
Services are counted by a reading of `/proc/net/ip_vs` once in 30 s; no list of them is kept.
",
        figures.watched,
        by_size("Services", figures)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_compared_with_nothing() {
        let of = |attached: &str, new: f64, reused: f64| SetUps {
            attached: attached.to_owned(),
            new: vec![new],
            reused: vec![reused],
        };
        let page = connections(&Connections {
            connections: 1_000,
            rounds: vec![of("nothing", 0.1, 0.2), of("ours", 0.11, 0.21)],
            programs: vec![Program {
                name: "expire".to_owned(),
                runs: 10,
                nanoseconds: 5_000,
            }],
        });
        for row in [
            "| nothing | 10000 | 100000 | +0.0 % | 5000 | 200000 | +0.0 % |",
            "| ours | 9091 | 110000 | +10.0 % | 4762 | 210000 | +5.0 % |",
            "| expire | 10 | 500 |",
        ] {
            assert!(page.contains(row), "{page}");
        }
    }
}
