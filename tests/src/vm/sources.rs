//! Where Debian's archive is: as the machine's own apt has it.

use std::env;
use std::fmt::Write as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::packages::run;

/// For a machine whose apt knows no Debian archive: the address of one.
const ARCHIVE_ENV: &str = "NODEMEDIC_DEBIAN_ARCHIVE";

/// Where Debian installs its keys, on Ubuntu too (package `debian-archive-keyring`).
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The names a Debian release can go by in a source, without what follows them.
const RELEASES: &[&str] = &[
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// Debian keeps its security updates in an archive of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Main,
    Security,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Archive {
    kind: Kind,
    uri: String,
    signed_by: String,
}

/// A sources file for apt with these suites.
pub(crate) fn for_suites(suites: &[String]) -> Result<String> {
    let known = known()?;
    let mut text = String::new();
    for suite in suites {
        let archive = known
            .iter()
            .find(|archive| archive.kind == kind_of(suite))
            .with_context(|| unknown(suite))?;
        stanza(&mut text, archive, suite);
    }
    Ok(text)
}

fn unknown(suite: &str) -> String {
    format!(
        "the apt configuration of this machine names no Debian archive for {suite}: \
         install debian-archive-keyring and set {ARCHIVE_ENV} to the address of a Debian mirror"
    )
}

fn stanza(text: &mut String, archive: &Archive, suite: &str) {
    let signed_by = match archive.signed_by.as_str() {
        "" => String::new(),
        key => format!("Signed-By: {key}\n"),
    };
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n{signed_by}\n",
        archive.uri
    );
}

fn known() -> Result<Vec<Archive>> {
    if let Ok(uri) = env::var(ARCHIVE_ENV) {
        return Ok(at(uri.trim_end_matches('/')));
    }
    let output = run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)",
        "Created-By: Packages",
    ]))?;
    Ok(output.lines().filter_map(archive).collect())
}

fn at(uri: &str) -> Vec<Archive> {
    let archive = |kind, uri: String| Archive {
        kind,
        uri,
        signed_by: KEYRING.to_owned(),
    };
    vec![
        archive(Kind::Main, uri.to_owned()),
        archive(Kind::Security, format!("{uri}-security")),
    ]
}

/// One line of what apt fetches, if it is of Debian's own archive: other vendors name their suites
/// after Debian's releases, too, but not their paths and components.
fn archive(line: &str) -> Option<Archive> {
    let mut fields = line.split('|');
    let (uri, release) = (fields.next()?, fields.next()?);
    let (component, signed_by) = (fields.next()?, fields.next()?);
    let name = release.split(['-', '/']).next()?;
    let is_debians = component == "main" && RELEASES.contains(&name) && uri.contains("/debian");
    is_debians.then(|| Archive {
        kind: kind_of(release),
        uri: uri.to_owned(),
        // apt leaves the variable as it is where the source names no key.
        signed_by: if signed_by.starts_with('$') {
            String::new()
        } else {
            signed_by.to_owned()
        },
    })
}

/// Up to buster the suite was called `…/updates`.
fn kind_of(suite: &str) -> Kind {
    if suite.ends_with("-security") || suite.ends_with("/updates") {
        Kind::Security
    } else {
        Kind::Main
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(lines: &[&str]) -> Vec<Kind> {
        let archives = lines.iter().filter_map(|line| archive(line));
        archives.map(|archive| archive.kind).collect()
    }

    #[test]
    fn only_debians_own_archive_counts() {
        let lines = [
            "http://mirror.example/debian/|bookworm|main|/key",
            "http://mirror.example/debian-security/|bookworm-security|main|$(SIGNED_BY)",
            "https://docker.example/linux/debian/|bookworm|stable|/key",
            "https://node.example/node_20.x/|nodistro|main|/key",
            "http://mirror.example/ubuntu/|noble|main|/key",
        ];
        assert_eq!(kinds(&lines), [Kind::Main, Kind::Security]);
    }

    #[test]
    fn backports_come_from_the_main_archive() {
        assert_eq!(kind_of("trixie-backports"), Kind::Main);
        assert_eq!(kind_of("bullseye-security"), Kind::Security);
    }

    #[test]
    fn a_source_without_a_key_stays_without() {
        let known = archive("http://m.example/debian/|stable|main|$(SIGNED_BY)").unwrap();
        let mut text = String::new();
        stanza(&mut text, &known, "trixie");
        assert!(!text.contains("Signed-By"), "{text}");
        assert!(text.contains("Suites: trixie\n"));
    }
}
