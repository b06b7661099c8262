//! `/proc/net/stat/nf_conntrack`: counters of one network namespace, one line a
//! CPU, in hexadecimal.
//!
//! Columns are found by the header's names, which differ by version
//! (nf_conntrack_standalone.c, `ct_cpu_seq_show`).

use std::{
    fs::{self, File},
    io::{self, Read as _},
};

/// Enough for the header and the first CPU's line.
const ENTRIES_BYTES: u64 = 1024;

/// What the agent uses of the file. `None` where the kernel has no such column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Entries in the table now.
    pub entries: u64,
    /// Packets dropped because no entry could be made (the table was full and nothing
    /// could be pushed out, or memory was short), or because theirs lost a clash.
    pub drop: Option<Counter>,
    /// Entries pushed out to make room for new ones.
    pub early_drop: Option<Counter>,
    /// Entries that were not inserted: they lost a clash, or their chain was too long.
    pub insert_failed: Option<Counter>,
    /// Entries that were refused because their hash chain was too long (column `chainlength`, `chaintoolong` of
    /// `conntrack -S`). Kernels without the column do not limit a chain.
    pub chain_too_long: Option<Counter>,
    /// Packets that met an equal entry and went on (column `clashres`).
    pub clash_resolved: Option<Counter>,
    /// Packets that fit no connection. They pass, untranslated, unless a rule drops them.
    pub invalid: Option<Counter>,
}

/// A counter of each possible CPU, of 32 bits (`struct ip_conntrack_stat`,
/// include/linux/netfilter/nf_conntrack_common.h): on a busy node it wraps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter(Vec<u32>);

impl Counter {
    /// All CPUs.
    pub fn sum(&self) -> u64 {
        self.0.iter().map(|cpu| u64::from(*cpu)).sum()
    }

    /// Events since `before`, CPU by CPU. One that fell by more than half of its range did not
    /// wrap but began anew, with the module.
    pub fn since(&self, before: &Self) -> u64 {
        let before = before.0.iter().copied().chain(std::iter::repeat(0));
        let events = |(now, before): (&u32, u32)| {
            let events = now.wrapping_sub(before);
            let began_anew = *now < before && events > u32::MAX / 2;
            u64::from(if began_anew { *now } else { events })
        };
        self.0.iter().zip(before).map(events).sum()
    }
}

/// Reads the counters of the network namespace of a process; `self` for our own.
///
/// # Errors
///
/// Where the file cannot be read (without `CONFIG_NF_CONNTRACK_PROCFS` it does not
/// exist), or is not of the form described above.
pub fn read_stat(process: &str) -> io::Result<Stat> {
    let path = format!("/proc/{process}/net/stat/nf_conntrack");
    let named = |error: io::Error| io::Error::new(error.kind(), format!("read {path}: {error}"));
    let text = fs::read_to_string(&path).map_err(named)?;
    parse(&text).ok_or_else(|| {
        named(io::Error::new(
            io::ErrorKind::InvalidData,
            "no header with a column entries, or no line of hexadecimal numbers",
        ))
    })
}

/// Reads the number of entries of another process's namespace, and no more of
/// the file than that: on a node with many CPUs and namespaces it is large.
///
/// # Errors
///
/// As [`read_stat`].
pub(super) fn read_entries(process: u32) -> io::Result<u64> {
    let path = format!("/proc/{process}/net/stat/nf_conntrack");
    let mut begin = String::new();
    File::open(&path)?
        .take(ENTRIES_BYTES)
        .read_to_string(&mut begin)?;
    // The last line may be cut.
    let whole = begin.rsplit_once('\n').map_or("", |(lines, _)| lines);
    parse(whole).map(|stat| stat.entries).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("read {path}: no column entries"),
        )
    })
}

fn parse(text: &str) -> Option<Stat> {
    let mut lines = text.lines();
    let header: Vec<_> = lines.next()?.split_ascii_whitespace().collect();
    let rows = lines
        .map(|line| {
            line.split_ascii_whitespace()
                .map(|field| u32::from_str_radix(field, 16).ok())
                .collect::<Option<Vec<_>>>()
        })
        .collect::<Option<Vec<_>>>()?;
    let column = |name: &str| {
        let index = header.iter().position(|title| *title == name)?;
        rows.iter()
            .map(|row| row.get(index).copied())
            .collect::<Option<Vec<_>>>()
    };
    let counter = |name| column(name).map(Counter);
    Some(Stat {
        // Every line repeats the namespace's count.
        entries: u64::from(column("entries")?.first().copied()?),
        drop: counter("drop"),
        early_drop: counter("early_drop"),
        insert_failed: counter("insert_failed"),
        chain_too_long: counter("chainlength"),
        clash_resolved: counter("clashres"),
        invalid: counter("invalid"),
    })
}

/// For fuzzing: statistics of connection tracking.
#[cfg(any(test, fuzzing))]
pub(in crate::kernel) const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "conntrack_stat",
    read: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = parse(&text);
    },
    seeds: &[
        b"entries  searched found new invalid ignore delete delete_list insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart\n0000fc03  00000000 00000005 00000028 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000 00000000  00000000 00000000 00000000 00000000\n",
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    const LINUX_5_10: &str = "\
entries  clashres found new invalid ignore delete delete_list insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart
0000001f  00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000002 00000003 00000010 00000000  00000000 00000000 00000000 00000000
0000001f  00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000001 00000001 00000001 00000000  00000000 00000000 00000000 00000000
";
    const LINUX_6_12: &str = "\
entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart
0000000a  00000009 00000000 00000000 00000000 00000000 00000000 00000007 00000000 00000008 00000000 00000000 00000000  00000000 00000000 00000000 00000000
";

    fn counter<const N: usize>(cpus: [u32; N]) -> Option<Counter> {
        Some(Counter(cpus.to_vec()))
    }

    #[test]
    fn a_counter_that_wraps_goes_on_and_one_that_begins_anew_does_not() {
        let before = Counter(vec![u32::MAX - 1, 0x8000_0000, 1_000]);
        let now = Counter(vec![0, 0x8000_0001, 3]);
        assert_eq!(now.since(&before), 2 + 1 + 3);
        assert_eq!(now.since(&Counter::default()), now.sum());
    }

    #[test]
    fn counters_are_of_each_cpu_and_entries_are_not() {
        let wanted = Stat {
            entries: 31,
            drop: counter([3, 1]),
            early_drop: counter([16, 1]),
            insert_failed: counter([2, 1]),
            invalid: counter([1, 1]),
            clash_resolved: counter([0, 0]),
            ..Stat::default()
        };
        assert_eq!(parse(LINUX_5_10), Some(wanted));
    }

    #[test]
    fn columns_are_found_by_name_whatever_stands_before_them() {
        let stat = parse(LINUX_6_12).expect("has entries");
        assert_eq!((stat.entries, stat.chain_too_long), (10, counter([7])));
        assert_eq!(
            (stat.clash_resolved, stat.insert_failed),
            (counter([9]), counter([8]))
        );
        let without_drop = parse("early_drop entries\n2 1\n").expect("has entries");
        assert_eq!(
            without_drop,
            Stat {
                entries: 1,
                early_drop: counter([2]),
                ..Stat::default()
            }
        );
    }

    #[test]
    fn a_torn_file_is_no_stat() {
        for text in [
            "",
            "entries\n",
            "entries\nxyz\n",
            "drop\n1\n",
            "drop entries\n1\n",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
