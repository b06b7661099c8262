//! Sysctls: the only part of the agent that opens `/proc/sys`.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::mounts;

const ROOT: &str = "/proc/sys";

/// The same as the first process of the node sees it. A container's own is mounted read-only unless
/// the container is privileged; which network namespace a key is of depends on the thread alone.
/// Outside of a container it is read-only because an administrator said so, and stays so.
fn root_of_init() -> String {
    format!("{}{ROOT}", mounts::NODE_ROOT)
}

/// Reads a sysctl, in the network namespace of the calling thread for `net.*`.
/// `None` where the kernel has no such key.
///
/// # Errors
///
/// The operation, the key and the kernel's error.
pub fn read(key: &str) -> io::Result<Option<String>> {
    let path = path(key)?;
    match fs::read_to_string(&path) {
        Ok(value) => Ok(Some(value.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(
            error.kind(),
            format!("read {}: {error}", path.display()),
        )),
    }
}

/// Reads a sysctl that is one number. `None` where the kernel has no such key.
///
/// # Errors
///
/// As [`read`], and where the value is no such number.
pub fn read_number(key: &str) -> io::Result<Option<u64>> {
    let Some(value) = read(key)? else {
        return Ok(None);
    };
    value.parse().map(Some).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "read {ROOT}/{}: {value:?} is no number: {error}",
                key.replace('.', "/")
            ),
        )
    })
}

/// Writes a number to a sysctl, in the network namespace of the calling thread for
/// `net.*`. Only `treatment` asks for that.
///
/// # Errors
///
/// The operation, the key and the kernel's error; it says what to do where the mount is
/// read-only, as in a container that does not see the node's processes.
pub fn write(key: &str, value: u64) -> io::Result<()> {
    match write_below(ROOT, key, value) {
        Err(error)
            if error.kind() == io::ErrorKind::ReadOnlyFilesystem
                && mounts::sees_nodes_root() != Some(true) =>
        {
            write_below(&root_of_init(), key, value).map_err(|_| error)
        }
        done => done,
    }
}

fn write_below(root: &str, key: &str, value: u64) -> io::Result<()> {
    let path = below(root, key)?;
    let hint = |error: &io::Error| match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "; a container can write it if it has the node's process IDs (hostPID), CAP_SYS_ADMIN, \
             CAP_SYS_PTRACE and no AppArmor profile, as deploy/daemonset.yaml has it, or if it is \
             privileged; a service of systemd if its unit does not protect it (ReadOnlyPaths=, \
             ProtectKernelTunables=)"
        }
        io::ErrorKind::PermissionDenied => "; it takes root, and CAP_NET_ADMIN for net.*",
        _ => "",
    };
    let fail = |error: io::Error| {
        let message = format!(
            "write {value} to {}: {error}{}",
            path.display(),
            hint(&error)
        );
        io::Error::new(error.kind(), message)
    };
    // No such file is to be made where there is none.
    let file = fs::OpenOptions::new().write(true).open(&path);
    let mut file = file.map_err(fail)?;
    file.write_all(format!("{value}\n").as_bytes())
        .map_err(fail)
}

/// `net.netfilter.nf_conntrack_max` is `/proc/sys/net/netfilter/nf_conntrack_max`.
fn path(key: &str) -> io::Result<PathBuf> {
    below(ROOT, key)
}

/// Every key that reaches the kernel passes here: none leads out of `/proc/sys`.
fn below(root: &str, key: &str) -> io::Result<PathBuf> {
    if !is_plain(key) {
        let why = format!("{key:?} is no sysctl: its parts must be letters, digits, _ and -");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let parts = key.split('.');
    Ok(parts.fold(Path::new(root).to_owned(), |path, part| path.join(part)))
}

/// Whether a key has parts of letters, digits, `_` and `-` with single dots between them, and so
/// names a file below `/proc/sys`.
pub fn is_plain(key: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    let mut parts = key.split('.');
    parts.all(|part| !part.is_empty() && part.bytes().all(is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_becomes_a_path() {
        assert_eq!(
            path("net.netfilter.nf_conntrack_max").expect("it is plain"),
            Path::new("/proc/sys/net/netfilter/nf_conntrack_max")
        );
    }

    #[test]
    fn a_key_that_leads_elsewhere_is_neither_read_nor_written() {
        for key in [
            "",
            ".",
            "..",
            "kernel..panic",
            "kernel.panic.",
            "/etc/passwd",
            "kernel/panic",
            "net.../etc.passwd",
            "kernel.pa nic",
            "kernel.panic\0",
            "kernel.p\u{e4}nic",
        ] {
            assert!(!is_plain(key), "{key:?}");
            let refused = read(key).expect_err("it is no sysctl");
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{key:?}");
            let refused = write(key, 1).expect_err("it is no sysctl");
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{key:?}");
        }
    }

    #[test]
    fn a_key_that_does_not_exist_is_no_error() {
        assert_eq!(
            read("kernel.no_such_key_at_all").expect("nothing else is wrong"),
            None
        );
    }

    #[test]
    fn a_value_that_is_no_number_is_an_error_that_names_the_file() {
        let error = read_number("kernel.ostype").expect_err("it says Linux");
        assert!(
            error.to_string().contains("/proc/sys/kernel/ostype"),
            "{error}"
        );
    }
}
