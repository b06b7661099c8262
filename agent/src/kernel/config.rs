//! The switches that the running kernel was built with, so that nobody is told to use a kernel
//! with what this one has.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader},
};

use flate2::bufread::GzDecoder;

use super::{facts::Fact, mounts::NODE_ROOT};

/// The switches that remedies name.
pub(super) const SWITCHES: [&str; 9] = [
    "BPF_EVENTS",
    "BPF_JIT",
    "BPF_SYSCALL",
    "DEBUG_INFO_BTF",
    "DEBUG_INFO_BTF_MODULES",
    "DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
    "KPROBES",
    "KPROBE_EVENTS",
    "PSI",
];

/// Whether each of [`SWITCHES`] is set, by its name without `CONFIG_`.
pub(super) fn switches(release: &str) -> Fact<BTreeMap<String, bool>> {
    let mut tried = Vec::new();
    for path in places(release) {
        match read(&path) {
            Ok(found) => return Fact::Known(found),
            Err(error) => tried.push(format!("{path}: {error}")),
        }
    }
    Fact::Unknown(tried.join("; "))
}

/// `CONFIG_IKCONFIG_PROC`, and where distributions put the file. In a container it is on the
/// node, which the first process shows.
fn places(release: &str) -> [String; 5] {
    [
        "/proc/config.gz".to_owned(),
        format!("/boot/config-{release}"),
        format!("/lib/modules/{release}/config"),
        format!("{NODE_ROOT}/boot/config-{release}"),
        format!("{NODE_ROOT}/lib/modules/{release}/config"),
    ]
}

fn read(path: &str) -> io::Result<BTreeMap<String, bool>> {
    let file = BufReader::new(File::open(path)?);
    if path.ends_with(".gz") {
        scan(BufReader::new(GzDecoder::new(file)))
    } else {
        scan(file)
    }
}

/// Lines are `CONFIG_X=y`, `CONFIG_X=m`, or `# CONFIG_X is not set`; a switch that depends on one
/// that is not set has no line.
fn scan(lines: impl BufRead) -> io::Result<BTreeMap<String, bool>> {
    let all = SWITCHES.map(|name| (name.to_owned(), false));
    let mut found = BTreeMap::from(all);
    let mut any = false;
    for line in lines.lines() {
        let line = line?;
        let Some((name, value)) = line
            .strip_prefix("CONFIG_")
            .and_then(|line| line.split_once('='))
        else {
            continue;
        };
        any = true;
        if let Some(switch) = found.get_mut(name) {
            *switch = matches!(value, "y" | "m");
        }
    }
    if !any {
        let error = "it has no line CONFIG_...=";
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    Ok(found)
}

/// For fuzzing: configurations of kernels.
#[cfg(any(test, fuzzing))]
pub(super) const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "kernel_config",
    read: |bytes| {
        let _ = scan(bytes);
    },
    seeds: &[b"#\nCONFIG_BPF_SYSCALL=y\n# CONFIG_KPROBES is not set\nCONFIG_CMDLINE=\"a=b\"\n"],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_set_or_not_and_those_without_a_line_are_not() {
        let config = "#\n# Linux/x86 6.12\n#\nCONFIG_BPF_SYSCALL=y\n# CONFIG_KPROBES is not set\n\
                      CONFIG_PSI=y\nCONFIG_PSI_DEFAULT_DISABLED=y\nCONFIG_CMDLINE=\"a=b\"\n";
        let found = scan(config.as_bytes()).expect("well formed");
        let set: Vec<_> = found.iter().filter(|(_, set)| **set).collect();
        assert_eq!(set.len(), 2, "{set:?}");
        assert!(found["BPF_SYSCALL"] && found["PSI"]);
        assert_eq!(found.get("KPROBE_EVENTS"), Some(&false));
    }

    #[test]
    fn what_is_no_configuration_is_unknown_rather_than_all_unset() {
        assert!(scan(&b""[..]).is_err());
        assert!(scan(&b"<html>not found</html>\n"[..]).is_err());
        assert!(read("/nowhere/config.gz").is_err());
    }
}
