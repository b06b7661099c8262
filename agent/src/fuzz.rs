//! All that reads bytes from outside. Whatever they are, it ends in a value or an error and never in
//! a panic. `cargo xtask fuzz` looks for bytes that make one, with libFuzzer; the test here changes
//! the seeds at random.

use crate::{cmd, config, dispatch, http, kernel, node, treatment, webhook};

/// What reads bytes from outside.
#[derive(Debug)]
pub struct Parser {
    /// What `cargo xtask fuzz` calls it.
    pub name: &'static str,
    /// Reads them.
    pub read: fn(&[u8]),
    /// Such bytes as they come.
    pub seeds: &'static [&'static [u8]],
}

const AGENTS: Parser = Parser {
    name: "agents",
    read: |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let _ = http::Url::parse(&text);
        let _ = dispatch::AgentAddress::try_from(text.into_owned());
    },
    seeds: &[
        b"node-7 http://10.0.0.7:19110 https://[fd00::7]:19111",
        b"https://node-7.example.org:443",
    ],
};

/// All of them.
pub fn all() -> Vec<&'static Parser> {
    let own = [
        &AGENTS,
        &cmd::FUZZ,
        &config::FUZZ,
        &http::FUZZ,
        &treatment::FUZZ,
        &webhook::FUZZ_ALERTS,
        &webhook::FUZZ_NAMES,
    ];
    own.into_iter()
        .chain(kernel::FUZZ)
        .chain(node::FUZZ)
        .collect()
}

#[cfg(fuzzing)]
mod libfuzzer {
    use std::{env, fs, path::Path, sync::LazyLock};

    use super::Parser;

    static PARSER: LazyLock<&'static Parser> = LazyLock::new(|| {
        let name = env::var("NODEMEDIC_FUZZ").unwrap_or_default();
        let known = super::all();
        let parser = known.iter().find(|parser| parser.name == name);
        parser.unwrap_or_else(|| panic!("NODEMEDIC_FUZZ={name:?} is no parser"))
    });

    libfuzzer_sys::fuzz_target!(
        init: begin(),
        |bytes: &[u8]| (PARSER.read)(bytes)
    );

    /// Lists the parsers, or puts the seeds of one where libFuzzer then finds them.
    fn begin() {
        if env::var_os("NODEMEDIC_FUZZ").is_some_and(|name| name == "list") {
            super::all()
                .iter()
                .for_each(|parser| println!("{}", parser.name));
            std::process::exit(0);
        }
        let Some(folder) = env::var_os("NODEMEDIC_FUZZ_SEEDS") else {
            return;
        };
        for (number, seed) in PARSER.seeds.iter().enumerate() {
            let file = Path::new(&folder).join(format!("seed-{number}"));
            fs::write(file, seed).expect("a seed can be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A change of some bytes: what is put in where, and how many go.
    type Change = (prop::sample::Index, Vec<u8>, usize);

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let bytes = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..4),
            Just(b"18446744073709551616".to_vec()),
            Just(b"-1".to_vec()),
            Just(vec![0xff; 4]),
            Just(vec![0; 4]),
        ];
        let change = (any::<prop::sample::Index>(), bytes, 0_usize..8);
        prop::collection::vec(change, 0..6)
    }

    fn changed(seed: &[u8], changes: &[Change]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for (at, put, gone) in changes {
            let from = at.index(bytes.len() + 1);
            let to = (from + gone).min(bytes.len());
            bytes.splice(from..to, put.iter().copied());
        }
        bytes
    }

    #[test]
    fn every_parser_has_a_name_of_its_own_and_seeds() {
        let parsers = all();
        let names: std::collections::BTreeSet<_> = parsers.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), parsers.len());
        assert!(parsers.iter().all(|parser| !parser.seeds.is_empty()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn no_bytes_make_a_panic(changes in changes(), any in prop::collection::vec(any::<u8>(), 0..64)) {
            for parser in all() {
                (parser.read)(&any);
                for seed in parser.seeds {
                    (parser.read)(&changed(seed, &changes));
                }
            }
        }
    }
}
