//! Which of the wanted functions the kernel's symbol table has, whole or split.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::CStr,
    io::{self, BufRead},
    ops::ControlFlow,
};

use anyhow::{Context as _, ensure};
use ebpf::symbols::Prefixes;

use super::{
    bpf::SymbolIterator,
    facts::{Fact, Symbol},
    kallsyms::{self, KALLSYMS},
};

/// What the compiler adds to the name of the part that it has split off a function,
/// before a number. Callers that have the other part inlined call this one, and a
/// probe on the function itself misses them.
const SPLIT: &str = ".part.";

/// What the compiler adds to the name of a function that it has changed, before a number or a
/// hash: arguments taken apart, arguments replaced by constants, a name made global by LTO.
const RENAMED: [&str; 3] = [".isra.", ".constprop.", ".llvm."];

/// The end of the kernel image's code (include/asm-generic/sections.h). Symbols come in the
/// order of their addresses, those of modules after all of the image's.
const END_OF_CODE: &str = "_etext";

/// Where functions are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SymbolScope {
    /// In the kernel image, whose code comes first.
    KernelImage,
    /// In modules too.
    All,
}

/// Looks the wanted functions up. The addresses, which are hidden from some
/// readers, do not matter.
///
/// The kernel picks them out itself where it takes the iterator, in half the time that it
/// needs to format all symbols as text.
pub(super) fn find(
    wanted: &BTreeSet<&str>,
    places: SymbolScope,
    iterator: Option<SymbolIterator>,
) -> BTreeMap<String, Fact<Symbol>> {
    let iterated = iterator.and_then(|iterator| {
        iterate(iterator, wanted)
            .inspect_err(|error| tracing::debug!("{KALLSYMS} is read instead: {error:#}"))
            .ok()
    });
    let found = iterated.map_or_else(|| read(wanted, places), Ok);
    wanted
        .iter()
        .map(|name| {
            let fact = match &found {
                Ok(found) => Fact::Known(found.get(*name).cloned().unwrap_or(Symbol::Absent)),
                Err(why) => Fact::Unknown(why.clone()),
            };
            ((*name).to_owned(), fact)
        })
        .collect()
}

/// Wanted functions by their names, as far as the kernel has them.
type Found<'w> = HashMap<&'w str, Symbol>;

fn read<'w>(wanted: &BTreeSet<&'w str>, places: SymbolScope) -> Result<Found<'w>, String> {
    kallsyms::open()
        .and_then(|lines| scan(lines, wanted, places))
        .map_err(|error| format!("read {KALLSYMS}: {error}"))
}

/// Has the kernel go through its symbols. That it finds one which every kernel has shows that
/// it means the same by them.
fn iterate<'w>(iterator: SymbolIterator, wanted: &BTreeSet<&'w str>) -> anyhow::Result<Found<'w>> {
    let symbols = iterator
        .symbols(&prefixes(wanted))
        .context("go through the kernel's symbols")?;
    let (mut found, mut sane) = (Found::new(), false);
    for symbol in &symbols {
        let name = name_of(symbol);
        sane |= name == END_OF_CODE;
        if kallsyms::is_code(symbol.kind) {
            note(name, wanted, &mut found);
        }
    }
    ensure!(sane, "the kernel's symbols lack {END_OF_CODE}");
    Ok(found)
}

/// Its name, unless it is none; what was cut off is no name that is wanted.
fn name_of(symbol: &ebpf::symbols::Symbol) -> &str {
    let name = CStr::from_bytes_until_nul(&symbol.name).unwrap_or_default();
    name.to_str().unwrap_or_default()
}

fn prefixes(wanted: &BTreeSet<&str>) -> Prefixes {
    Prefixes::of(wanted.iter().copied().chain([END_OF_CODE]))
}

/// Keeps the names wanted whose type says that they are code.
fn scan<'w>(
    lines: impl BufRead,
    wanted: &BTreeSet<&'w str>,
    places: SymbolScope,
) -> io::Result<Found<'w>> {
    let prefixes = prefixes(wanted);
    let mut found = Found::new();
    kallsyms::each(lines, |line| {
        if prefixes.may_begin(line.text())
            && let Some(name) = line.name()
        {
            if places == SymbolScope::KernelImage && name == END_OF_CODE {
                return ControlFlow::Break(());
            }
            if line.is_code() {
                note(name, wanted, &mut found);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// Notes a function, or that one is split, if it is wanted.
fn note<'w>(name: &str, wanted: &BTreeSet<&'w str>, found: &mut Found<'w>) {
    if let Some(name) = wanted.get(name) {
        let symbol = match found.get(name) {
            // Another file may have a function of the same name.
            None | Some(Symbol::Whole) => Symbol::Whole,
            Some(_) => Symbol::Split,
        };
        found.insert(*name, symbol);
    }
    let mut renamed = RENAMED.iter().filter_map(|it| name.split_once(it));
    if let Some((original, _)) = renamed.next()
        && let Some(original) = wanted.get(original)
    {
        let symbol = match found.get(original) {
            None => Symbol::Renamed(name.to_owned()),
            Some(_) => Symbol::Split,
        };
        found.insert(*original, symbol);
    }
    if let Some((whole, _)) = name.split_once(SPLIT)
        && let Some(name) = wanted.get(whole)
    {
        found.insert(*name, Symbol::Split);
    }
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
    fn code_is_found_by_its_name_or_a_new_one_and_data_is_not() {
        let wanted = BTreeSet::from(["nf_ct_delete", "early_drop", "init_conntrack"]);
        let found = scan(LINES.as_bytes(), &wanted, SymbolScope::All);
        let found = found.expect("a slice cannot fail to read");
        let renamed = Symbol::Renamed("init_conntrack.constprop.0".to_owned());
        let wanted = [("nf_ct_delete", Symbol::Whole), ("init_conntrack", renamed)];
        assert_eq!(found, HashMap::from(wanted));
    }

    #[test]
    fn a_function_with_a_copy_for_some_callers_is_split_in_either_order() {
        for lines in ["0 t a.constprop.0\n0 T a\n", "0 T a\n0 t a.constprop.0\n"] {
            let wanted = BTreeSet::from(["a"]);
            let found = scan(lines.as_bytes(), &wanted, SymbolScope::All);
            let found = found.expect("a slice cannot fail to read");
            assert_eq!(found, HashMap::from([("a", Symbol::Split)]));
        }
    }

    #[test]
    fn a_function_that_was_split_is_called_so_in_either_order() {
        for lines in ["0 t a.part.0\n0 T a\n", "0 T a\n0 t a.part.0\n"] {
            let wanted = BTreeSet::from(["a", "a.part.0"]);
            let found = scan(lines.as_bytes(), &wanted, SymbolScope::All);
            let found = found.expect("a slice cannot fail to read");
            let wanted = [("a", Symbol::Split), ("a.part.0", Symbol::Whole)];
            assert_eq!(found, HashMap::from(wanted));
        }
    }

    #[test]
    fn what_comes_after_the_image_is_read_only_for_modules() {
        let lines = b"0 T a\n0 T _etext_is_near\n0 T _etext\n0 t b\t[a_module]\n";
        let wanted = BTreeSet::from(["a", "b"]);
        let image = scan(&lines[..], &wanted, SymbolScope::KernelImage).unwrap();
        assert_eq!(image, HashMap::from([("a", Symbol::Whole)]));
        let all = scan(&lines[..], &wanted, SymbolScope::All).unwrap();
        let found = [("a", Symbol::Whole), ("b", Symbol::Whole)];
        assert_eq!(all, HashMap::from(found));
    }
}
