//! Which of the wanted symbols `/proc/kallsyms` has.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, BufRead, BufReader},
};

use super::facts::Fact;

const KALLSYMS: &str = "/proc/kallsyms";

/// Looks the wanted functions up. The addresses, which are hidden from some
/// readers, do not matter.
pub(super) fn find(wanted: &BTreeSet<&str>) -> BTreeMap<String, Fact<bool>> {
    let found = File::open(KALLSYMS)
        .and_then(|file| scan(BufReader::with_capacity(1 << 16, file), wanted))
        .map_err(|error| format!("read {KALLSYMS}: {error}"));
    wanted
        .iter()
        .map(|name| {
            let fact = match &found {
                Ok(found) => Fact::Known(found.contains(*name)),
                Err(why) => Fact::Unknown(why.clone()),
            };
            ((*name).to_owned(), fact)
        })
        .collect()
}

/// Reads lines of `address type name [module]` and keeps the names wanted whose
/// type says that they are code.
fn scan(mut lines: impl BufRead, wanted: &BTreeSet<&str>) -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 && found.len() < wanted.len() {
        let mut fields = line.split_ascii_whitespace().skip(1);
        if let (Some("t" | "T" | "w" | "W"), Some(name)) = (fields.next(), fields.next())
            && wanted.contains(name)
        {
            found.insert(name.to_owned());
        }
        line.clear();
    }
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
        assert_eq!(found, BTreeSet::from(["nf_ct_delete".to_owned()]));
    }
}
