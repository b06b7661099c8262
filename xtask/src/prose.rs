//! The prose of hand-written pages, alert rules and help: long sentences, and words that the
//! project no longer uses.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::paths;

const FOLDERS: [(&str, &str); 5] = [
    ("", ".md"),
    ("docs", ".md"),
    ("docs/ailments", ".md"),
    ("dashboards/alerts", ".yaml"),
    ("agent/src/cmd", ".rs"),
];

/// The first line of a page that a program writes.
const GENERATED: &str = "<!-- Made by";

const MOST_WORDS: usize = 30;

/// What to write, and in place of what.
#[rustfmt::skip]
const WORDS: &[(&str, &[&str])] = &[
    ("two sentences, or `with`", &["of which", "whose"]),
    ("the owner as the subject", &["that are of", "that it is of", "that they are of"]),
    ("the actor, for example `another program`", &["whoever", "somebody", "nobody"]),
    ("an active verb with its actor", &[
        "is told", "are told", "is asked for", "is looked at", "are looked at", "is put back", "are put back",
        "is set back", "is thought of", "are thought of", "is taken for", "is left out", "are left out",
    ]),
    ("`manually`, or the mode `manual`", &["by hand"]),
    ("`critical`", &["sick"]),
    ("`idle_entries`", &["wasteful"]),
    ("`blackholed`", &["black-holed", "black hole"]),
    ("`overridden`", &["overtaken"]),
    ("`override`", &["overtake", "overtakes"]),
    ("`rate_limited`", &["braked"]),
    ("`concurrency limit`", &["brake"]),
    ("`dry-run`", &["dry_run"]),
    ("`expire`", &["let go of", "lets go of"]),
    ("`collector`", &["ward", "wards"]),
    ("`slot`", &["bed", "beds"]),
    ("`wake-up`", &["bell"]),
    ("`sweeper thread`", &["broom"]),
    ("`scan`, or `agent poll`", &["census"]),
    ("`batch`", &["letter", "letters"]),
    ("`alert handler`", &["desk", "clerk"]),
    ("`router`", &["office"]),
    ("`fault`", &["malady", "maladies"]),
    ("`fake`", &["sham"]),
];

/// Checks all files, and prints each fault with its place.
pub(crate) fn check() -> Result<()> {
    let root = paths::root();
    let mut count = 0;
    for (folder, ending) in FOLDERS {
        for entry in fs::read_dir(root.join(folder)).with_context(|| format!("list {folder}"))? {
            let path = entry?.path();
            let name = path.strip_prefix(&root).unwrap_or(&path).to_string_lossy();
            // The tests of rules quote them.
            if !name.ends_with(ending) || name.ends_with("_test.yaml") {
                continue;
            }
            let text = fs::read_to_string(&path).with_context(|| format!("read {name}"))?;
            for (line, fault) in faults(ending, &text) {
                eprintln!("{name}:{line}: {fault}");
                count += 1;
            }
        }
    }
    ensure!(count == 0, "{count} sentences to rewrite");
    Ok(())
}

fn faults(ending: &str, text: &str) -> Vec<(usize, String)> {
    if text.starts_with(GENERATED) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (line, sentence) in sentences(&prose(ending, text)) {
        let words: Vec<_> = sentence.split_whitespace().filter_map(bare).collect();
        let count = words.len();
        let words = format!(" {} ", words.join(" ").to_lowercase());
        if count > MOST_WORDS && !sentence.starts_with('|') {
            let start = words.chars().take(40).collect::<String>();
            faults.push((
                line,
                format!("{count} words, `{}…`: write two sentences", start.trim()),
            ));
        }
        for (instead, retired) in WORDS {
            let found = retired
                .iter()
                .filter(|it| words.contains(&format!(" {it} ")));
            faults.extend(found.map(|it| (line, format!("`{it}`: write {instead}"))));
        }
    }
    faults
}

/// Without punctuation; `None` where nothing else is there.
fn bare(word: &str) -> Option<&str> {
    let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
    (!bare.is_empty()).then_some(bare)
}

/// The prose of each line; empty where it has none.
fn prose(ending: &str, text: &str) -> Vec<String> {
    let mut is_prose = ending == ".md";
    let lines = text.lines().map(str::trim).map(|line| match ending {
        ".rs" => line.strip_prefix("///").unwrap_or_default(),
        ".md" => {
            let is_fence = line.starts_with("```");
            is_prose ^= is_fence;
            if is_prose && !is_fence { line } else { "" }
        }
        _ => {
            is_prose = !line.starts_with("- ") && (is_prose || line == "annotations:");
            let is_text = is_prose && !line.ends_with(">-") && !line.starts_with("runbook_url:");
            line.strip_prefix('#')
                .unwrap_or(if is_text { line } else { "" })
        }
    });
    lines.map(plain).collect()
}

/// Without inline code, templates and the targets of links.
fn plain(line: &str) -> String {
    let mut plain = line.split('`').step_by(2).collect::<Vec<_>>().join("x");
    for (open, close) in [("{{", "}}"), ("](", ")")] {
        while let Some((before, after)) = plain.split_once(open) {
            let after = after.split_once(close).map_or("", |(_, after)| after);
            plain = format!("{before} {after}");
        }
    }
    plain
}

/// Each with the number of its first line. A sentence ends with its full stop, and with its
/// paragraph, item or row.
fn sentences(lines: &[String]) -> Vec<(usize, String)> {
    let mut sentences: Vec<(usize, String)> = Vec::new();
    let mut is_open = false;
    for (number, line) in (1..).zip(lines) {
        let first = line.split_whitespace().next().unwrap_or_default();
        let is_item = first.starts_with(['-', '*', '|', '#'])
            || first
                .strip_suffix('.')
                .is_some_and(|it| it.parse::<u8>().is_ok());
        is_open &= !first.is_empty() && !is_item;
        for (place, word) in line.split_whitespace().enumerate() {
            match sentences.last_mut() {
                Some((_, sentence)) if is_open => *sentence += &format!(" {word}"),
                _ => sentences.push((number, word.to_owned())),
            }
            let ends = word
                .trim_end_matches(['*', ')', '"'])
                .ends_with(['.', '?', '!']);
            is_open = !ends || first == "|" || (is_item && place == 0);
        }
        is_open &= !first.starts_with(['|', '#']);
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ending: &str, text: &str) -> Vec<String> {
        let faults = faults(ending, text).into_iter();
        faults
            .map(|(line, fault)| format!("{line}: {fault}"))
            .collect()
    }

    #[test]
    fn a_retired_word_is_found_and_the_new_one_is_not() {
        assert_eq!(
            of(".md", "# A page\n\nThe node is fine.\nA *ward* runs\nit."),
            ["4: `ward`: write `collector`"]
        );
        assert!(of(".md", "# A page\n\nA collector goes forward.").is_empty());
    }

    #[test]
    fn a_phrase_is_found_across_lines_and_in_tables_but_not_in_code() {
        assert_eq!(
            of(".md", "Set it by\nhand."),
            ["1: `by hand`: write `manually`, or the mode `manual`"]
        );
        assert_eq!(of(".md", "| Alert | a node, whose log |").len(), 1);
        for code in [
            "Run `set it by hand`.",
            "```\nby hand\n```",
            "[here](by-hand.md)",
        ] {
            assert!(of(".md", code).is_empty(), "{code}");
        }
    }

    #[test]
    fn a_long_sentence_is_found_and_two_short_ones_are_not() {
        let long = "word ".repeat(31);
        assert_eq!(
            of(".md", &format!("Good.\n{long}.")),
            ["2: 31 words, `word word word word word word word word…`: write two sentences"]
        );
        let short = format!("{0}end. {0}end.\n\n- {0}\n- {0}\n", "word ".repeat(20));
        assert!(of(".md", &short).is_empty());
        assert!(of(".md", &format!("| {long} |")).is_empty());
    }

    #[test]
    fn rules_are_read_where_they_tell_something() {
        let rule = |summary| {
            format!(
                "- alert: A\n  expr: sick > 0\n  annotations:\n    summary: >-\n      {summary}"
            )
        };
        assert_eq!(
            of(".yaml", &rule("{{ $labels.instance }} is sick.")),
            ["5: `sick`: write `critical`"]
        );
        assert!(of(".yaml", &rule("{{ $labels.sick }} is critical.")).is_empty());
    }

    #[test]
    fn help_is_read_and_code_is_not() {
        assert_eq!(
            of(".rs", "/// Let nobody begin.\nfn sick() {}"),
            ["1: `nobody`: write the actor, for example `another program`"]
        );
        assert!(of(".rs", "/// Block treatments.\nfn sick() {}").is_empty());
    }

    #[test]
    fn what_a_program_writes_is_left_to_it() {
        assert!(of(".md", "<!-- Made by x -->\nA ward.").is_empty());
        assert_eq!(of(".md", "A ward.").len(), 1);
    }
}
