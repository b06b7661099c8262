//! Which of the wanted functions `/proc/kallsyms` has, whole or split.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{self, BufRead},
    ops::ControlFlow,
};

use ebpf::symbols::Prefixes;

use super::{
    facts::{Fact, Symbol},
    kallsyms::{self, KALLSYMS},
};

/// What the compiler adds to the name of the part that it has split off a function,
/// before a number. Callers that have the other part inlined call this one, and a
/// probe on the function itself misses them.
const SPLIT: &str = ".part.";

/// Looks the wanted functions up. The addresses, which are hidden from some
/// readers, do not matter.
pub(super) fn find(wanted: &BTreeSet<&str>) -> BTreeMap<String, Fact<Symbol>> {
    let found = kallsyms::open()
        .and_then(|lines| scan(lines, wanted))
        .map_err(|error| format!("read {KALLSYMS}: {error}"));
    wanted
        .iter()
        .map(|name| {
            let fact = match &found {
                Ok(found) => Fact::Known(found.get(*name).copied().unwrap_or(Symbol::Absent)),
                Err(why) => Fact::Unknown(why.clone()),
            };
            ((*name).to_owned(), fact)
        })
        .collect()
}

/// Keeps the names wanted whose type says that they are code.
fn scan<'w>(
    lines: impl BufRead,
    wanted: &BTreeSet<&'w str>,
) -> io::Result<HashMap<&'w str, Symbol>> {
    let prefixes = Prefixes::of(wanted.iter().copied());
    let mut found = HashMap::new();
    kallsyms::each(lines, |line| {
        if prefixes.may_begin(line.text())
            && line.is_code()
            && let Some(name) = line.name()
        {
            if let Some(name) = wanted.get(name) {
                found.entry(*name).or_insert(Symbol::Whole);
            }
            if let Some((whole, _)) = name.split_once(SPLIT)
                && let Some(name) = wanted.get(whole)
            {
                found.insert(*name, Symbol::Split);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "\
0000000000000000 T nf_ct_delete\t[nf_conntrack]
0000000000000000 d early_drop
0000000000000000 t init_conntrack.constprop.0\t[nf_conntrack]
";

    #[test]
    fn code_is_found_by_its_whole_name_and_data_is_not() {
        let wanted = BTreeSet::from(["nf_ct_delete", "early_drop", "init_conntrack"]);
        let found = scan(LINES.as_bytes(), &wanted).expect("a slice cannot fail to read");
        assert_eq!(found, HashMap::from([("nf_ct_delete", Symbol::Whole)]));
    }

    #[test]
    fn a_function_that_was_split_is_called_so_in_either_order() {
        for lines in ["0 t a.part.0\n0 T a\n", "0 T a\n0 t a.part.0\n"] {
            let wanted = BTreeSet::from(["a", "a.part.0"]);
            let found = scan(lines.as_bytes(), &wanted).expect("a slice cannot fail to read");
            let wanted = [("a", Symbol::Split), ("a.part.0", Symbol::Whole)];
            assert_eq!(found, HashMap::from(wanted));
        }
    }
}
