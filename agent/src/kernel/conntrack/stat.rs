//! `/proc/net/stat/nf_conntrack`: counters of one network namespace, one line a
//! CPU, in hexadecimal.
//!
//! Columns are found by the header's names, which differ by version
//! (nf_conntrack_standalone.c, `ct_cpu_seq_show`).

use std::{
    fs::{self, File},
    io::{self, Read as _},
};

use serde::{Deserialize, Serialize};

/// Enough for the header and the first CPU's line.
const ENTRIES_BYTES: u64 = 1024;

/// What the agent uses of the file. `None` where the kernel has no such column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    /// Entries in the table now.
    pub entries: u64,
    /// Packets dropped because no entry could be made (the table was full and nothing
    /// could be pushed out, or memory was short), or because theirs lost a clash.
    pub drop: Option<u64>,
    /// Entries pushed out to make room for new ones.
    pub early_drop: Option<u64>,
    /// Entries that were not inserted: they lost a clash, or their chain was too long.
    pub insert_failed: Option<u64>,
    /// Those whose hash chain was too long (column `chainlength`, `chaintoolong` of
    /// `conntrack -S`). Kernels without the column do not limit a chain.
    pub chain_too_long: Option<u64>,
    /// Packets that met an equal entry and went on (column `clashres`).
    pub clash_resolved: Option<u64>,
    /// Packets that fit no connection. They pass, untranslated, unless a rule drops them.
    pub invalid: Option<u64>,
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
                .map(|field| u64::from_str_radix(field, 16).ok())
                .collect::<Option<Vec<_>>>()
        })
        .collect::<Option<Vec<_>>>()?;
    let column = |name: &str| {
        let index = header.iter().position(|title| *title == name)?;
        rows.iter()
            .map(|row| row.get(index).copied())
            .collect::<Option<Vec<_>>>()
    };
    let sum = |name| column(name).map(|values| values.into_iter().sum());
    Some(Stat {
        // Every line repeats the namespace's count.
        entries: column("entries")?.first().copied()?,
        drop: sum("drop"),
        early_drop: sum("early_drop"),
        insert_failed: sum("insert_failed"),
        chain_too_long: sum("chainlength"),
        clash_resolved: sum("clashres"),
        invalid: sum("invalid"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINUX_5_10: &str = "\
entries  searched found new invalid ignore delete delete_list insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart
0000001f  00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000002 00000003 00000010 00000000  00000000 00000000 00000000 00000000
0000001f  00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000 00000001 00000001 00000001 00000000  00000000 00000000 00000000 00000000
";
    const LINUX_6_12: &str = "\
entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart
0000000a  00000009 00000000 00000000 00000000 00000000 00000000 00000007 00000000 00000008 00000000 00000000 00000000  00000000 00000000 00000000 00000000
";

    #[test]
    fn counters_are_summed_over_the_cpus_and_entries_are_not() {
        let wanted = Stat {
            entries: 31,
            drop: Some(4),
            early_drop: Some(17),
            insert_failed: Some(3),
            invalid: Some(2),
            ..Stat::default()
        };
        assert_eq!(parse(LINUX_5_10), Some(wanted));
    }

    #[test]
    fn columns_are_found_by_name_whatever_stands_before_them() {
        let stat = parse(LINUX_6_12).expect("has entries");
        assert_eq!((stat.entries, stat.chain_too_long), (10, Some(7)));
        assert_eq!(
            (stat.clash_resolved, stat.insert_failed),
            (Some(9), Some(8))
        );
        let without_drop = parse("early_drop entries\n2 1\n").expect("has entries");
        assert_eq!(
            without_drop,
            Stat {
                entries: 1,
                early_drop: Some(2),
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
