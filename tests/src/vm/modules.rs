//! Kernel modules: which a guest takes along, and what modprobe has to know of them.
//!
//! A package of Debian holds no `modules.dep`: depmod writes that when it is installed. The same
//! facts are in each module's `.modinfo` section.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::elf::Elf;
use crate::files;

/// Where the modules of a scenario's world are, under `kernel/`. What these depend on comes too.
pub(crate) const WANTED: &[&str] = &[
    "crypto/crc32c",
    "drivers/block/loop",
    "drivers/block/null_blk",
    "drivers/char/virtio_console",
    "drivers/md/dm-log-writes",
    "drivers/net/dummy",
    "drivers/net/ifb",
    "drivers/net/net_failover",
    "drivers/net/veth",
    "drivers/net/virtio_net",
    "drivers/virtio/",
    "fs/btrfs/",
    "fs/configfs/",
    "fs/ext4/",
    "fs/fuse/fuse",
    "fs/overlayfs/",
    "fs/xfs/",
    "net/802/",
    "net/bridge/",
    "net/core/",
    "net/ipv4/",
    "net/ipv6/",
    "net/llc/",
    "net/netfilter/",
    "net/sched/",
    "net/sctp/",
];

/// A module that was unpacked.
#[derive(Debug)]
pub(crate) struct Module {
    /// Under `/lib/modules/<release>/`, without what the compression added.
    pub(crate) path: String,
    pub(crate) image: Vec<u8>,
    depends: Vec<String>,
    aliases: Vec<String>,
}

/// The wanted modules of a kernel, and what those need.
pub(crate) fn collect(folder: &Path) -> Result<Vec<Module>> {
    let available = available(folder)?;
    let mut todo = available
        .iter()
        .filter(|(_, path)| is_wanted(folder, path))
        .map(|(name, _)| name.clone())
        .collect::<Vec<_>>();
    let mut seen = todo.iter().cloned().collect::<BTreeSet<_>>();
    let mut modules = Vec::new();
    while let Some(name) = todo.pop() {
        // What is not there is built in, or a soft dependency that this kernel lacks.
        let Some(path) = available.get(&name) else {
            continue;
        };
        let module =
            load(folder, path).with_context(|| format!("read module {}", path.display()))?;
        let fresh = module
            .depends
            .iter()
            .filter(|name| seen.insert(name.to_string()));
        todo.extend(fresh.cloned().collect::<Vec<_>>());
        modules.push(module);
    }
    modules.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(modules)
}

/// Every module file by the name of its module.
fn available(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let paths = files::below(&folder.join("kernel"))?;
    Ok(paths
        .into_iter()
        .filter_map(|path| Some((module_name(path.to_str()?)?, path)))
        .collect())
}

fn is_wanted(folder: &Path, path: &Path) -> bool {
    let kernel = folder.join("kernel");
    let path = path.strip_prefix(kernel).unwrap_or(path).to_string_lossy();
    WANTED.iter().any(|wanted| path.starts_with(wanted))
}

/// `…/nf_conntrack.ko.xz` is `nf_conntrack`; the kernel writes `-` and `_` alike as `_`.
fn module_name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (name, suffix) = file.split_once(".ko")?;
    matches!(suffix, "" | ".xz").then(|| name.replace('-', "_"))
}

fn load(folder: &Path, path: &Path) -> Result<Module> {
    let image = decompressed(path)?;
    let info = modinfo(&image)?;
    let relative = path.strip_prefix(folder).unwrap_or(path).to_string_lossy();
    let list = |text: &String| {
        let names = text.split([',', ' ']).filter(|name| !name.is_empty());
        names.map(|name| name.replace('-', "_")).collect::<Vec<_>>()
    };
    let depends = info.get("depends").into_iter().flatten().flat_map(list);
    Ok(Module {
        path: relative.trim_end_matches(".xz").to_owned(),
        depends: depends.collect(),
        aliases: info.get("alias").cloned().unwrap_or_default(),
        image,
    })
}

fn decompressed(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(fs::read(path)?);
    }
    let mut image = Vec::new();
    let mut file = BufReader::new(fs::File::open(path)?);
    lzma_rs::xz_decompress(&mut file, &mut image).context("decompress")?;
    Ok(image)
}

/// The `.modinfo` section: `key=value` texts, each ended by a zero byte.
fn modinfo(image: &[u8]) -> Result<BTreeMap<String, Vec<String>>> {
    let section = Elf::parse(image)?
        .section(".modinfo")?
        .context("it has no .modinfo section")?;
    let mut info = BTreeMap::<_, Vec<_>>::new();
    for entry in section.split(|byte| *byte == 0) {
        let entry = String::from_utf8_lossy(entry);
        if let Some((key, value)) = entry.split_once('=') {
            info.entry(key.to_owned())
                .or_default()
                .push(value.to_owned());
        }
    }
    Ok(info)
}

/// `modules.dep`: each module with all that must be loaded before it, nearest first.
pub(crate) fn dependency_file(modules: &[Module]) -> String {
    let by_name = by_name(modules);
    let line = |module: &Module| {
        let mut order = Vec::new();
        closure(module, &by_name, &mut order);
        let needed = order.iter().map(|path| format!(" {path}"));
        format!("{}:{}\n", module.path, needed.collect::<String>())
    };
    modules.iter().map(line).collect()
}

/// `modules.alias`: the other names by which kernel and tools ask for a module.
pub(crate) fn alias_file(modules: &[Module]) -> String {
    let mut text = String::new();
    for module in modules {
        let name = module_name(&module.path).unwrap_or_default();
        for alias in &module.aliases {
            text += &format!("alias {alias} {name}\n");
        }
    }
    text
}

fn by_name(modules: &[Module]) -> BTreeMap<String, &Module> {
    let named = modules
        .iter()
        .filter_map(|module| Some((module_name(&module.path)?, module)));
    named.collect()
}

/// modprobe loads from the end: what a module needs stands behind it.
fn closure<'a>(module: &Module, by_name: &BTreeMap<String, &'a Module>, order: &mut Vec<&'a str>) {
    for needed in module.depends.iter().filter_map(|name| by_name.get(name)) {
        // Last wins: a dependency shared by two must be loaded before both.
        order.retain(|path| *path != needed.path);
        order.push(&needed.path);
        closure(needed, by_name, order);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(name: &str, depends: &[&str]) -> Module {
        Module {
            path: format!("kernel/net/{name}.ko"),
            image: Vec::new(),
            depends: depends.iter().map(|name| name.to_string()).collect(),
            aliases: vec![format!("{name}-alias")],
        }
    }

    #[test]
    fn names_are_the_kernels() {
        assert_eq!(
            module_name("a/crc32c-intel.ko.xz").as_deref(),
            Some("crc32c_intel")
        );
        assert_eq!(module_name("a/veth.ko").as_deref(), Some("veth"));
        assert_eq!(module_name("a/modules.order"), None);
    }

    #[test]
    fn what_is_needed_by_what_is_needed_comes_after_it() {
        let modules = [
            module("ip_vs", &["nf_conntrack", "libcrc32c"]),
            module("nf_conntrack", &["nf_defrag", "libcrc32c"]),
            module("nf_defrag", &[]),
            module("libcrc32c", &[]),
        ];
        let first = dependency_file(&modules).lines().next().map(str::to_owned);
        let wanted = "kernel/net/ip_vs.ko: kernel/net/nf_conntrack.ko kernel/net/nf_defrag.ko \
                      kernel/net/libcrc32c.ko";
        assert_eq!(first.as_deref(), Some(wanted));
    }

    #[test]
    fn aliases_name_their_module() {
        assert_eq!(alias_file(&[module("a", &[])]), "alias a-alias a\n");
    }
}
