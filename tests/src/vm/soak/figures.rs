//! What a soak finds out, and what of it must not grow.

use std::fmt::{self, Display, Formatter};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// What the agent takes, after the faults of a round are over.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Since the soak began, seconds of the guest.
    pub at: f64,
    /// Number of the agent's process: the first is 1.
    pub process: u32,
    /// Since that process was started, seconds.
    pub age: f64,
    /// Bytes.
    pub resident: u64,
    /// Bytes.
    pub anonymous: u64,
    pub descriptors: u64,
    pub threads: u64,
    pub series: u64,
    /// Bytes.
    pub journal: u64,
    /// CPU time by wall time while the node was at rest.
    pub cpu: f64,
}

/// What has happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub rounds: u32,
    pub kills: u32,
    pub stops: u32,
    pub reloads: u32,
    pub namespaces: u32,
    pub cgroups: u32,
    pub full_disks: u32,
    pub treatments: u32,
    /// Of those, the ones that an alert has begun and its end has undone.
    pub alerts: u32,
    /// Counts of the agent that were compared with those of the kernel or of a client.
    pub comparisons: u32,
}

/// All of a soak that ended well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of the guest's time.
    pub hours: f64,
    pub release: String,
    pub seed: u32,
    pub counts: Counts,
    pub rows: Vec<Row>,
}

/// A column of the table.
struct Figure {
    name: &'static str,
    unit: &'static str,
    of: fn(&Row) -> f64,
    /// How much more than at first it may be in the end: a share of that, and an amount.
    growth: (f64, f64),
}

const MIB: f64 = (1 << 20) as f64;

/// The agent frees memory to an allocator that keeps some of it. Descriptors, threads and series come
/// and go with modules, cgroups and connections. A journal is rewritten at 512 KiB.
const FIGURES: [Figure; 7] = [
    Figure {
        name: "resident memory",
        unit: "MiB",
        of: |row| row.resident as f64 / MIB,
        growth: (0.15, 0.0),
    },
    Figure {
        name: "anonymous memory",
        unit: "MiB",
        of: |row| row.anonymous as f64 / MIB,
        growth: (0.15, 1.0),
    },
    Figure {
        name: "file descriptors",
        unit: "",
        of: |row| row.descriptors as f64,
        growth: (0.0, 8.0),
    },
    Figure {
        name: "threads",
        unit: "",
        of: |row| row.threads as f64,
        growth: (0.0, 4.0),
    },
    Figure {
        name: "series",
        unit: "",
        of: |row| row.series as f64,
        growth: (0.1, 50.0),
    },
    Figure {
        name: "journal",
        unit: "KiB",
        of: |row| row.journal as f64 / 1024.0,
        growth: (0.0, 512.0),
    },
    Figure {
        name: "CPU at rest",
        unit: "%",
        of: |row| row.cpu * 100.0,
        growth: (0.25, 0.1),
    },
];

impl Report {
    /// Fails where a figure has grown: from round to round while the agent was ended in each, or in
    /// the one process that lived through the second half.
    pub fn judge(&self) -> Result<()> {
        let last = self.rows.last().map_or(0, |row| row.process);
        let (one, many): (Vec<_>, Vec<_>) = self.rows.iter().partition(|row| row.process == last);
        for rows in [many, one] {
            for figure in &FIGURES {
                figure.judge(&rows)?;
            }
        }
        Ok(())
    }
}

impl Figure {
    /// The largest of the last quarter is compared with the largest of the first; the very first is
    /// left out where there are others, as the agent then still takes what it takes once.
    fn judge(&self, rows: &[&Row]) -> Result<()> {
        let warm = rows.get(1..).unwrap_or_default();
        if warm.len() < 2 {
            return Ok(());
        }
        let quarter = warm.len().div_ceil(4);
        let (first, last) = (&warm[..quarter], &warm[warm.len() - quarter..]);
        let largest = |rows: &[&Row]| rows.iter().map(|row| (self.of)(row)).fold(0.0, f64::max);
        let (before, after) = (largest(first), largest(last));
        let (share, amount) = self.growth;
        let bound = before * (1.0 + share) + amount;
        let hours = |rows: &[&Row]| rows.first().map_or(0.0, |row| row.at / 3600.0);
        ensure!(
            after <= bound,
            "{} of the agent grew: {before:.1} {unit} from hour {:.1} on, {after:.1} {unit} from hour \
             {:.1} on; {bound:.1} {unit} are allowed",
            self.name,
            hours(first),
            hours(last),
            unit = self.unit,
        );
        Ok(())
    }
}

impl Display for Report {
    /// As Markdown.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:.1} hours of Linux {}, seed {}:\n",
            self.hours, self.release, self.seed
        )?;
        writeln!(f, "| The agent, after a round | first | last | largest |")?;
        writeln!(f, "|---|---|---|---|")?;
        for figure in &FIGURES {
            let values = || self.rows.iter().map(figure.of);
            let (first, last) = (values().next(), values().next_back());
            writeln!(
                f,
                "| {} | {} | {} | {} |",
                figure.name,
                figure.shown(first.unwrap_or_default()),
                figure.shown(last.unwrap_or_default()),
                figure.shown(values().fold(0.0, f64::max)),
            )?;
        }
        let counts = self.counts;
        writeln!(f, "\n| What happened | times |\n|---|---|")?;
        for (what, times) in [
            ("rounds", counts.rounds),
            ("the agent was killed", counts.kills),
            ("the agent was stopped by SIGTERM", counts.stops),
            (
                "ip_vs and nf_conntrack were removed and loaded",
                counts.reloads,
            ),
            ("network namespaces came and went", counts.namespaces),
            ("cgroups came and went", counts.cgroups),
            ("the disk of the journal was full", counts.full_disks),
            ("treatments were begun, and were over", counts.treatments),
            ("of these, by an alert", counts.alerts),
            (
                "counts agreed with the kernel's or the client's",
                counts.comparisons,
            ),
        ] {
            writeln!(f, "| {what} | {times} |")?;
        }
        Ok(())
    }
}

impl Figure {
    fn shown(&self, value: f64) -> String {
        match self.unit {
            "" => format!("{value:.0}"),
            "%" => format!("{value:.2} %"),
            unit => format!("{value:.1} {unit}"),
        }
    }
}

impl Display for Row {
    /// For a person who watches.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let figures = FIGURES.iter();
        let figures = figures.map(|figure| {
            let value = figure.shown((figure.of)(self));
            format!("{} {value}", figure.name)
        });
        write!(
            f,
            "hour {:.2}, process {} since {:.0} s: {}",
            self.at / 3600.0,
            self.process,
            self.age,
            figures.collect::<Vec<_>>().join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAT: Row = Row {
        at: 600.0,
        process: 1,
        age: 500.0,
        resident: 20 << 20,
        anonymous: 8 << 20,
        descriptors: 60,
        threads: 9,
        series: 400,
        journal: 3_000,
        cpu: 0.005,
    };

    fn report(rows: impl IntoIterator<Item = Row>) -> Report {
        Report {
            hours: 1.0,
            release: "6.12".to_owned(),
            seed: 1,
            counts: Counts::default(),
            rows: rows.into_iter().collect(),
        }
    }

    /// Eight rounds, the last four of one process.
    fn rounds(change: impl Fn(u32, &mut Row)) -> Report {
        report((1..=8).map(|round| {
            let mut row = FLAT;
            row.at *= f64::from(round);
            row.process = round.min(5);
            change(round, &mut row);
            row
        }))
    }

    #[test]
    fn flat_figures_pass() {
        rounds(|_, _| {}).judge().unwrap();
        // Up and down, and a first round that differs.
        rounds(|round, row| {
            row.descriptors += u64::from(round % 2) * 5;
            row.resident += u64::from(round % 3) << 19;
            if round == 1 {
                row.series = 10;
            }
        })
        .judge()
        .unwrap();
    }

    #[test]
    fn what_grows_from_process_to_process_is_named_with_both_values() {
        let error = rounds(|round, row| row.journal = u64::from(round) << 20).judge();
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("journal") && error.contains("2048.0 KiB") && error.contains("4096.0"),
            "{error}"
        );
    }

    #[test]
    fn what_grows_in_one_process_is_named() {
        for (name, grow) in [
            (
                "resident memory",
                (|row, by| row.resident += by << 22) as fn(&mut Row, u64),
            ),
            ("file descriptors", |row, by| row.descriptors += by * 10),
            ("threads", |row, by| row.threads += by * 3),
            ("series", |row, by| row.series += by * 100),
            ("CPU at rest", |row, by| row.cpu += by as f64 / 100.0),
        ] {
            let error = rounds(|round, row| {
                if row.process == 5 {
                    grow(row, u64::from(round));
                }
            })
            .judge();
            let error = error.unwrap_err().to_string();
            assert!(error.starts_with(name), "{name}: {error}");
        }
    }

    #[test]
    fn one_round_shows_no_growth() {
        report([FLAT]).judge().unwrap();
        assert!(
            report([FLAT])
                .to_string()
                .contains("| file descriptors | 60 | 60 | 60 |")
        );
    }
}
