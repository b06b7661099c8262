//! docs/performance.md: the figures, and what they mean.

use anyhow::Result;

use super::Measured;
use super::figures::{
    BPFTRACE_ALIKE, BPFTRACE_COUNTER, Dns, Footprint, Hooks, Memory, NODEMEDIC, OneWalk, Page,
    Rounds, Scrape, Sizes, Walk,
};
use super::host::Native;

/// The goals of the project.
const GOAL_RESIDENT: f64 = 20.0 * MIB;
const GOAL_IDLE_CPU: f64 = 0.005;

const MIB: f64 = 1024.0 * 1024.0;

pub(super) fn render(measured: &Measured, native: &Native, kernel: &str) -> Result<String> {
    let sections = [
        head(kernel),
        hooks(&measured.take("hooks")?),
        dns(&measured.take("dns")?),
        scrape(&measured.take("scrape")?),
        footprint(&measured.take("footprint")?, native),
        walk(&measured.take("scan")?),
    ];
    Ok(sections.join("\n"))
}

fn head(kernel: &str) -> String {
    format!(
        "\
<!-- Made by `cargo xtask bench`: run it again, on a machine with nothing else to do. -->
# Performance

What the agent costs a node, measured in one boot of one VM with one CPU and Debian's kernel
{kernel}, under real traffic: a client, dnsmasq and dnsperf in
network namespaces, and the kernel that masquerades between them.

The VM is emulated, and its clock counts instructions: one nanosecond each. So what is called
instructions below is exact and comes out nearly the same each time, but it says nothing of caches,
and a real CPU does several in a nanosecond. Compare figures of this page with each other, not with
those of other machines. Where a figure is of real hardware, it says so.
"
    )
}

fn hooks(figures: &Hooks) -> String {
    let exchanges = f64::from(figures.exchanges);
    // What else the kernel does meanwhile only adds.
    let each = |rounds: &[f64]| least(rounds) * 1e9 / exchanges;
    let costs = |rounds: &Rounds| (each(&rounds.made), each(&rounds.expired));
    let nothing = figures.rounds.first().map_or((0.0, 0.0), costs);
    let more = |rounds: &Rounds| {
        let (made, expired) = costs(rounds);
        (made - nothing.0, expired - nothing.1)
    };
    let rows = figures.rounds.iter().map(|rounds| {
        let ((made, expired), more) = (costs(rounds), more(rounds));
        format!(
            "| {} | {made:.0} | {:+.0} | {expired:.0} | {:+.0} | {:+.0} | {:.1} % |\n",
            rounds.attached,
            more.0,
            more.1,
            more.0 + more.1,
            spread(&rounds.made).max(spread(&rounds.expired)) * 100.0
        )
    });
    let life = |name: &str| {
        let found = figures.rounds.iter().find(|rounds| rounds.attached == name);
        found.map_or(0.0, |rounds| more(rounds).0 + more(rounds).1)
    };
    let ours = life(NODEMEDIC);
    let programs = figures.programs.iter().map(|program| {
        let each = program.nanoseconds as f64 / program.runs.max(1) as f64;
        format!("| {} | {} | {each:.0} |\n", program.name, program.runs)
    });
    format!(
        "\
## Probes

A round is {} DNS exchanges, one after the other, each from a port of its own: each makes one
entry. A second later all entries have expired, and one scan of the table (`conntrack -L`) removes
them. So each entry is made once and removed once, and of what happens in between nothing runs a
probe. Rounds with nothing attached, with ours and with bpftrace's take turns; a figure is the least
of its rounds, by the entry. bpftrace's counters, on `__nf_conntrack_confirm` and `nf_ct_destroy`,
are the least that can be attached there. Its other program finds out what ours does, but for the
entries that user space has deleted: source, port and namespace of each entry, how long it lived,
how it ended and how long it stood idle.

| Attached | One exchange, instructions | more | One removal, instructions | more | Both, more | Spread of the rounds |
|---|---|---|---|---|---|---|
{}
With fentry, ours takes {:.2} of what the program takes that finds out the same, and {:.1} times what
the bare counters take, which know neither who made the entries nor how long they live. It is
{:.1} % of what an exchange takes on this path, through two network namespaces and the resolver.

What the kernel itself counts of each of our programs in one such round
(`kernel.bpf_stats_enabled`), the hook not included:

| Program | Runs | Instructions a run |
|---|---|---|
{}",
        figures.exchanges,
        rows.collect::<String>(),
        ours / life(BPFTRACE_ALIKE),
        ours / life(BPFTRACE_COUNTER),
        percent(ours, nothing.0),
        programs.collect::<String>()
    )
}

fn dns(figures: &Dns) -> String {
    let (without, with) = (median(&figures.without), median(&figures.with));
    format!(
        "\
## DNS

As many queries as get answers ({} of dnsperf a round, each from a port of its own), without the
agent and with all of it, as it comes. Client, resolver, kernel and agent share the one CPU.

| | Queries a second | |
|---|---|---|
| without | {without:.0} | |
| with | {with:.0} | {:+.1} % |
",
        figures.queries,
        percent(with - without, without)
    )
}

fn scrape(figures: &Scrape) -> String {
    let pages = figures.pages.iter().map(|page| {
        format!(
            "| {} | {:.1} KiB | {:.2} | {:.2} |\n",
            page.series,
            page.bytes as f64 / 1024.0,
            median(&page.seconds) * 1e3,
            page.cpu_seconds * 1e3
        )
    });
    let (bytes, seconds) = at_the_cap(&figures.pages);
    format!(
        "\
## Scrapes

One scrape of `/metrics` over the loopback, as the agent starts and with `top_flows` at its largest,
1,000. Milliseconds are millions of instructions. Time is from the request to the last byte.

| Series | Page | Time, ms | CPU time of the agent, ms |
|---|---|---|---|
{}
One ailment alone cannot fill the cap of 5,000 series. At what a series more costs here, such a page
has {:.0} KiB and takes {:.0} ms.
",
        pages.collect::<String>(),
        bytes / 1024.0,
        seconds * 1e3
    )
}

/// What a page of 5,000 series takes if each further one takes as much as those between the
/// smallest page and the largest.
fn at_the_cap(pages: &[Page]) -> (f64, f64) {
    const CAP: f64 = 5_000.0;
    let [small, .., large] = pages else {
        return (0.0, 0.0);
    };
    let more = large.series.saturating_sub(small.series).max(1) as f64;
    let beyond = CAP - large.series as f64;
    let reach = |small: f64, large: f64| large + (large - small) / more * beyond;
    (
        reach(small.bytes as f64, large.bytes as f64),
        reach(median(&small.seconds), median(&large.seconds)),
    )
}

fn footprint(figures: &Footprint, native: &Native) -> String {
    let memory = |name: &str, memory: &Memory| {
        format!(
            "| {name} | {} | {} | {} |\n",
            mib(memory.resident),
            mib(memory.anonymous),
            mib(memory.peak)
        )
    };
    let rows = [
        memory("after attaching", &figures.attached),
        memory("after the load", &figures.loaded),
        memory("real hardware, no BPF allowed", &native.memory),
    ];
    let resident = [figures.attached, figures.loaded].map(|memory| memory.resident);
    let resident = resident.into_iter().max().unwrap_or_default() as f64;
    format!(
        "\
## Memory and CPU

The agent as it comes: a reading in 5 s, a scan of the table in a minute. The load is {} DNS queries a
second.

| | Resident | Not of its file | Peak |
|---|---|---|---|
{}
The goal is at most {:.0} MiB: {}. The kernel's memory for its BPF maps, counted there and not here,
is {}.

| | CPU time by wall time |
|---|---|
| idle for a minute | {:.2} % |
| under the load | {:.2} % |
| idle for a minute, real hardware, no BPF allowed | {:.2} % |

The goal is at most {:.1} % of a core while idle: {}.
",
        figures.load_per_second,
        rows.concat(),
        GOAL_RESIDENT / MIB,
        met(resident <= GOAL_RESIDENT),
        mib(figures.map_bytes),
        figures.idle_cpu * 100.0,
        figures.loaded_cpu * 100.0,
        native.idle_cpu * 100.0,
        GOAL_IDLE_CPU * 100.0,
        met(figures.idle_cpu.max(native.idle_cpu) <= GOAL_IDLE_CPU),
    )
}

fn walk(figures: &Walk) -> String {
    let walks = figures.walks.iter().map(|walk| {
        let OneWalk {
            limit,
            seconds,
            seen,
            complete,
        } = walk;
        let end = if *complete {
            "the end of the table"
        } else {
            "the limit"
        };
        format!("| scan, `scan_timeout` {limit} s | {seen} | {seconds:.3} | {end} |\n")
    });
    format!(
        "\
## A scan of a large table

A table of {} UDP entries, read through ctnetlink by the agent and, for comparison, by
`conntrack -L`.

| | Entries | Seconds | It ends at |
|---|---|---|---|
| `conntrack -L` | {} | {:.3} | the end of the table |
{}
After a scan of any length the next waits for at least 200 times as long.
",
        figures.entries,
        figures.entries,
        figures.listing,
        walks.collect::<String>()
    )
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        length if length % 2 == 1 => sorted[length / 2],
        length => (sorted[length / 2 - 1] + sorted[length / 2]) / 2.0,
    }
}

/// A table of what is taken of the machine.
pub(super) fn by_size(what: &str, figures: &Sizes) -> String {
    let rows = figures.at.iter().map(|at| {
        let longest = at.readings.iter().copied().fold(0.0, f64::max);
        format!(
            "| {} | {} | {:.2} | {:.2} | {:.2} % | {} | {} | {} |\n",
            at.size,
            at.readings.len(),
            median(&at.readings) * 1e3,
            longest * 1e3,
            at.cpu * 100.0,
            mib(at.memory.resident),
            mib(at.memory.peak),
            at.series,
        )
    });
    format!(
        "\
| {what} | Readings | Median, ms | Longest, ms | CPU time by wall time | Resident | Peak | Series |
|---|---|---|---|---|---|---|---|
{}",
        rows.collect::<String>()
    )
}

/// From the least to the most, by the median.
fn spread(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(0.0, f64::max);
    (most - least(values)).max(0.0) / median(values)
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

fn percent(part: f64, whole: f64) -> f64 {
    part / whole * 100.0
}

pub(super) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / MIB)
}

fn met(met: bool) -> &'static str {
    if met { "met" } else { "**not met**" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::bench::figures::Program;

    fn memory(mib: u64) -> Memory {
        let resident = mib << 20;
        Memory {
            resident,
            anonymous: resident / 2,
            peak: resident * 2,
        }
    }

    fn footprint_of(mib: u64, idle_cpu: f64) -> String {
        let figures = Footprint {
            attached: memory(mib),
            loaded: memory(mib),
            map_bytes: 1 << 20,
            idle_cpu,
            loaded_cpu: 0.1,
            load_per_second: 100,
        };
        let native = Native {
            memory: memory(10),
            idle_cpu: 0.001,
        };
        footprint(&figures, &native)
    }

    #[test]
    fn a_goal_that_is_missed_is_said_to_be() {
        let good = footprint_of(15, 0.004);
        assert!(!good.contains("not met"), "{good}");
        for bad in [footprint_of(21, 0.004), footprint_of(15, 0.006)] {
            assert_eq!(bad.matches("**not met**").count(), 1, "{bad}");
        }
    }

    #[test]
    fn hooks_are_compared_with_nothing() {
        let rounds = |attached: &str, made: [f64; 3], expired: f64| Rounds {
            attached: attached.to_owned(),
            made: made.to_vec(),
            expired: vec![expired; 3],
        };
        let figures = Hooks {
            exchanges: 1_000,
            rounds: vec![
                rounds("nothing", [0.1, 0.1, 0.101], 0.01),
                rounds(NODEMEDIC, [0.101, 0.101, 0.101], 0.012),
                rounds(BPFTRACE_COUNTER, [0.1005, 0.1005, 0.1005], 0.0105),
                rounds(BPFTRACE_ALIKE, [0.104, 0.104, 0.104], 0.012),
            ],
            programs: vec![Program {
                name: "confirm".to_owned(),
                runs: 1_000,
                nanoseconds: 2_000_000,
            }],
        };
        let page = hooks(&figures);
        for line in [
            "| nothing | 100000 | +0 | 10000 | +0 | +0 | 1.0 % |",
            "| nodemedic, fentry | 101000 | +1000 | 12000 | +2000 | +3000 | 0.0 % |",
            "ours takes 0.50 of what the program takes that finds out the same, and 3.0 times",
            "| confirm | 1000 | 2000 |",
        ] {
            assert!(page.contains(line), "{line} is not in {page}");
        }
    }

    #[test]
    fn a_page_at_the_cap_is_reckoned_from_two() {
        let page = |series, bytes, seconds| Page {
            series,
            bytes,
            seconds: vec![seconds],
            cpu_seconds: 0.0,
        };
        let (bytes, seconds) = at_the_cap(&[page(0, 1_000, 1.0), page(1_000, 2_000, 2.0)]);
        assert_eq!((bytes, seconds), (6_000.0, 6.0));
    }

    #[test]
    fn medians_of_odd_and_even_counts() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
