//! Types of the running kernel: where the members of its structures lie, and the
//! ids of its functions, out of BTF of vmlinux and of modules.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    io,
    os::fd::AsRawFd as _,
    path::Path,
};

use anyhow::Context as _;
use btf_rs::{Backend, Btf, BtfType, Type};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{
    facts::{BtfFunction, Fact, Member, VMLINUX},
    modules,
};

const BTF_FOLDER: &str = "/sys/kernel/btf";

/// The kernel's types, opened once and dropped once the facts are collected.
pub(super) struct Types {
    vmlinux: Result<Named, String>,
    modules: BTreeMap<String, Result<Named, String>>,
}

/// Types, and the ids of those whose names are wanted: a module's first, then vmlinux's.
struct Named {
    types: Btf,
    ids: HashMap<String, Vec<u32>>,
}

impl Types {
    /// Opens the types of vmlinux and of the modules named, to find functions and
    /// structures of the names wanted.
    pub(super) fn open<'a>(
        modules: impl Iterator<Item = &'a str>,
        wanted: &BTreeSet<&str>,
    ) -> Self {
        let vmlinux = open_vmlinux(&Path::new(BTF_FOLDER).join(VMLINUX), wanted);
        let modules = modules
            .map(|module| {
                let types = match &vmlinux {
                    Ok(base) => open_module(&Path::new(BTF_FOLDER).join(module), base, wanted),
                    Err(why) => Err(why.clone()),
                };
                (module.to_owned(), types)
            })
            .collect();
        Self { vmlinux, modules }
    }

    /// Whether the types of vmlinux are there.
    pub(super) fn has_vmlinux(&self) -> Fact<bool> {
        self.vmlinux.as_ref().map(|_| true).into()
    }

    /// Whether a module's own types are there.
    pub(super) fn has_module(&self, module: &str) -> Fact<bool> {
        match self.modules.get(module) {
            Some(types) => types.as_ref().map(|_| true).into(),
            None => self.has_vmlinux(),
        }
    }

    /// Finds a function's type: in the module's BTF if it was opened, else in
    /// vmlinux's.
    pub(super) fn function(&self, name: &str, module: &str) -> Fact<BtfFunction> {
        let (object, types) = match self.modules.get(module) {
            Some(types) => (module, types),
            None => (VMLINUX, &self.vmlinux),
        };
        let types = match types {
            Ok(types) => types,
            Err(why) => return Fact::Unknown(why.clone()),
        };
        let mut found = types.named(name);
        match found.find(|(_, found)| matches!(found, Type::Func(_))) {
            Some((type_id, _)) => Fact::Known(BtfFunction {
                object: object.to_owned(),
                type_id,
            }),
            None => Fact::Unknown(format!("the BTF of {object} has no function {name}")),
        }
    }

    /// Finds a member by its path, in the module's own types if it has any.
    ///
    /// A module without, as before 5.11, is read by the types of vmlinux where it was
    /// built with it: the same header, configuration and compiler made both, and the
    /// kernel loads no module of another version (`check_modinfo`, kernel/module.c).
    /// One that was built out of tree may differ, so its members stay unknown.
    pub(super) fn member(&self, path: &str, module: &str) -> Fact<Member> {
        let types = match (self.modules.get(module), &self.vmlinux) {
            (Some(Ok(types)), _) => types,
            (Some(Err(why)), _) if modules::is_out_of_tree(module) => {
                return Fact::Unknown(format!("module {module} was built out of tree, and {why}"));
            }
            (_, Ok(types)) => types,
            (Some(Err(why)), Err(_)) | (None, Err(why)) => return Fact::Unknown(why.clone()),
        };
        member(types, path).into()
    }
}

impl Named {
    fn named(&self, name: &str) -> impl Iterator<Item = (u32, Type)> {
        let ids = self.ids.get(name).into_iter().flatten();
        ids.filter_map(|id| Some((*id, self.types.resolve_type_by_id(*id).ok()?)))
    }
}

fn open_vmlinux(path: &Path, wanted: &BTreeSet<&str>) -> Result<Named, String> {
    let types = mapped(path).map_err(|error| format!("read {}: {error:#}", path.display()))?;
    let ids = ids_of(&types, wanted);
    Ok(Named { types, ids })
}

/// Goes through all types once: asked for one name, those that are read where they lie
/// are gone through for it alone.
fn ids_of(types: &Btf, wanted: &BTreeSet<&str>) -> HashMap<String, Vec<u32>> {
    let mut ids: HashMap<_, Vec<_>> = HashMap::new();
    let (first, last) = types.base().type_id_range();
    for id in first..=last {
        let name = match types.resolve_type_by_id(id) {
            Ok(Type::Func(it)) => types.resolve_name(&it),
            Ok(Type::Struct(it) | Type::Union(it)) => types.resolve_name(&it),
            _ => continue,
        };
        if let Ok(name) = name
            && wanted.contains(name.as_str())
        {
            ids.entry(name).or_default().push(id);
        }
    }
    ids
}

/// Types that are read where they lie: parsed as a whole, those of vmlinux take five
/// times as much memory. Most kernels cannot map the file itself, so a copy is.
fn mapped(path: &Path) -> anyhow::Result<Btf> {
    let mut file = File::open(path)?;
    let copy = memfd_create("btf", MemfdFlags::CLOEXEC).context("make a copy in memory")?;
    let mut copy = File::from(copy);
    io::copy(&mut file, &mut copy).context("copy to memory")?;
    let copied = format!("/proc/self/fd/{}", copy.as_raw_fd());
    Ok(Btf::from_file_with_backend(copied, Backend::Mmap)?)
}

fn open_module(path: &Path, base: &Named, wanted: &BTreeSet<&str>) -> Result<Named, String> {
    if !path.exists() {
        return Err(format!(
            "{} does not exist: the module was built without BTF",
            path.display()
        ));
    }
    // Of a file its reader asks for each type where it stands.
    let types = fs::read(path)
        .map_err(anyhow::Error::from)
        .and_then(|bytes| Ok(Btf::from_split_bytes(&bytes, &base.types)?))
        .map_err(|error| format!("read {}: {error:#}", path.display()))?;
    let mut ids = base.ids.clone();
    for name in wanted {
        let own = types.split().map(|own| own.resolve_ids_by_name(name));
        let own = own.and_then(Result::ok).unwrap_or_default();
        if !own.is_empty() {
            ids.entry((*name).to_owned()).or_default().splice(..0, own);
        }
    }
    Ok(Named { types, ids })
}

/// Follows a path of members from a structure.
fn member(types: &Named, path: &str) -> Result<Member, String> {
    let mut names = path.split('.');
    let structure = names.next().unwrap_or_default();
    let (_, mut at) = types
        .named(structure)
        .find(|(_, found)| matches!(found, Type::Struct(_) | Type::Union(_)))
        .ok_or_else(|| format!("no structure {structure} in BTF"))?;
    let types = &types.types;
    let mut offset = 0;
    for name in names {
        let (bits, next) = find(types, &at, name)
            .ok_or_else(|| format!("structure {structure} has no member {name} (in {path})"))?;
        offset += bits;
        at = next;
    }
    if offset % 8 != 0 {
        return Err(format!("{path} is a bit field"));
    }
    let size = size(types, &at).ok_or_else(|| format!("{path} has no size"))?;
    Ok(Member {
        offset: offset / 8,
        size,
    })
}

/// A member of a structure, union or array of them, by its name: its distance in
/// bits and its type without qualifiers. Looks into anonymous members.
fn find(types: &Btf, within: &Type, name: &str) -> Option<(u32, Type)> {
    let structure = match within {
        Type::Struct(structure) | Type::Union(structure) => structure,
        Type::Array(array) => return find(types, &plain(types, array)?, name),
        _ => return None,
    };
    for member in &structure.members {
        let member_name = types.resolve_name(member).unwrap_or_default();
        if member_name == name {
            return Some((member.bit_offset(), plain(types, member)?));
        }
        if member_name.is_empty()
            && let Some(inner) = plain(types, member)
            && let Some((bits, found)) = find(types, &inner, name)
        {
            return Some((member.bit_offset() + bits, found));
        }
    }
    None
}

/// The type that another refers to, behind typedefs and qualifiers.
fn plain(types: &Btf, from: &dyn BtfType) -> Option<Type> {
    let mut at = types.resolve_chained_type(from).ok()?;
    loop {
        at = match &at {
            Type::Typedef(inner) => types.resolve_chained_type(inner).ok()?,
            Type::Const(inner) | Type::Volatile(inner) | Type::Restrict(inner) => {
                types.resolve_chained_type(inner).ok()?
            }
            Type::TypeTag(inner) => types.resolve_chained_type(inner).ok()?,
            _ => return Some(at),
        };
    }
}

/// Bytes that a value of a type takes.
fn size(types: &Btf, of: &Type) -> Option<u32> {
    let bytes = match of {
        Type::Int(int) => int.size(),
        Type::Ptr(_) => size_of::<usize>(),
        Type::Struct(structure) | Type::Union(structure) => structure.size(),
        Type::Enum(value) => value.size(),
        Type::Enum64(value) => value.size(),
        Type::Array(array) => array.len() * size(types, &plain(types, array)?)? as usize,
        _ => return None,
    };
    u32::try_from(bytes).ok()
}
