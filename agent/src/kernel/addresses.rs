//! In which function of the kernel an address is, out of a few that matter.

use std::{
    io::{self, BufRead},
    ops::ControlFlow,
};

use ebpf::symbols::Prefixes;

use super::kallsyms;

/// Lines among which one has an address, where the kernel shows any. The first symbols
/// are offsets of what each CPU has of its own, from zero on.
const LOOKED_AT: usize = 64;

/// Where some functions of the kernel image begin and end.
#[derive(Debug, Default)]
pub struct Ranges {
    ranges: Vec<Range>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    name: &'static str,
    begin: u64,
    /// The begin of the next symbol.
    end: u64,
}

impl Ranges {
    /// Looks functions up. What the compiler has made of one under its name (`.constprop.0`,
    /// `.part.0`, `.cold`) counts as the function.
    ///
    /// # Errors
    ///
    /// Where `/proc/kallsyms` cannot be read.
    pub fn find(wanted: &[&'static str]) -> io::Result<Self> {
        scan(kallsyms::open()?, wanted)
    }

    /// Whether none of them was found: the kernel hides where they are.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The function that an address is in, if it is one of those.
    pub fn function(&self, address: u64) -> Option<&'static str> {
        let range = |it: &&Range| (it.begin..it.end).contains(&address);
        self.ranges.iter().find(range).map(|it| it.name)
    }
}

/// Whether the kernel shows this process where its functions are: it hides all addresses
/// alike, as zeros (kernel/kallsyms.c, `kallsyms_show_value`).
///
/// # Errors
///
/// Where `/proc/kallsyms` cannot be read.
pub fn shown() -> io::Result<bool> {
    let (mut looked_at, mut shown) = (0, false);
    kallsyms::each(kallsyms::open()?, |line| {
        looked_at += 1;
        shown = line.address().is_some_and(|address| address != 0);
        match shown || looked_at == LOOKED_AT {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    })?;
    Ok(shown)
}

/// The lines of the kernel image come in the order of their addresses, and before those of
/// modules.
fn scan(lines: impl BufRead, wanted: &[&'static str]) -> io::Result<Ranges> {
    let prefixes = Prefixes::of(wanted.iter().copied());
    let mut ranges: Vec<Range> = Vec::new();
    let mut open: Option<(&'static str, u64)> = None;
    kallsyms::each(lines, |line| {
        if open.is_none() && !prefixes.may_begin(line.text()) {
            return ControlFlow::Continue(());
        }
        if line.is_of_module() {
            return ControlFlow::Break(());
        }
        let (Some(address), Some(name)) = (line.address(), line.name()) else {
            return ControlFlow::Continue(());
        };
        if let Some((name, begin)) = open.filter(|(_, begin)| *begin < address) {
            let end = address;
            ranges.push(Range { name, begin, end });
            open = None;
        }
        let whole = name.split('.').next().unwrap_or(name);
        let found = wanted.iter().find(|it| **it == whole);
        if let Some(name) = found.filter(|_| line.is_code()) {
            open = Some((name, address));
        }
        ControlFlow::Continue(())
    })?;
    Ok(Ranges { ranges })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81001000 t try_charge
ffffffff81001000 T its_alias
ffffffff81002000 T balance_pgdat
ffffffff81003000 t try_charge.cold
ffffffff81003080 d try_charge_data
ffffffffc0001000 t try_charge\t[a_module]
";

    #[test]
    fn an_address_is_in_the_function_that_begins_before_it() {
        let wanted = ["try_charge", "balance_pgdat", "absent"];
        let ranges = scan(LINES.as_bytes(), &wanted).expect("a slice cannot fail to read");
        let at = |address| ranges.function(address);
        assert_eq!(at(0xffff_ffff_8100_1000), Some("try_charge"));
        assert_eq!(at(0xffff_ffff_8100_1fff), Some("try_charge"));
        assert_eq!(at(0xffff_ffff_8100_2001), Some("balance_pgdat"));
        assert_eq!(at(0xffff_ffff_8100_307f), Some("try_charge"));
        assert_eq!(at(0xffff_ffff_8100_3080), None);
        assert_eq!(at(0xffff_ffff_c000_1000), None);
        assert_eq!(at(0), None);
    }

    #[test]
    fn hidden_addresses_and_garbage_are_no_function() {
        for lines in ["0 t a\n0 t b\n", "x t a\ny t b\n", "\n\n", "1"] {
            let ranges = scan(lines.as_bytes(), &["a", "b"]).expect("a slice");
            assert_eq!(ranges.function(0), None, "{lines:?}");
        }
    }
}
