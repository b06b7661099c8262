//! Types of the running kernel: where the members of its structures lie, and the
//! ids of its functions, out of BTF of vmlinux and of modules.

#[cfg(test)]
mod blob;
mod contents;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
};

use ebpf::symbols::Prefixes;

use self::{
    contents::Contents,
    table::{Kind, Table, Type},
};
use super::{
    facts::{BtfFunction, Fact, Member, TypedReads, VMLINUX},
    modules,
};

const BTF_FOLDER: &str = "/sys/kernel/btf";

/// How far a type may refer to another that refers to another (kernel/bpf/btf.c,
/// `MAX_RESOLVE_DEPTH`), so that garbage ends.
const DEPTH: u32 = 32;

/// The kernel's types, opened once and dropped once the facts are collected.
#[derive(Debug)]
pub(super) struct Types {
    vmlinux: Result<Named, String>,
    modules: BTreeMap<String, Result<Named, String>>,
}

/// A table, and the ids of its functions and structures whose names are wanted.
#[derive(Debug)]
struct Named {
    table: Table,
    ids: HashMap<String, Vec<u32>>,
}

/// The types of vmlinux, or of a module and below it of vmlinux.
#[derive(Clone, Copy, Debug)]
struct View<'t> {
    own: &'t Named,
    base: Option<&'t Named>,
}

impl Types {
    /// The kernel function that gives a type to an address. It must be among the names wanted.
    pub(super) const CAST: &str = "bpf_rdonly_cast";

    /// Opens the types of vmlinux and of the modules named, to find functions and
    /// structures of the names wanted.
    pub(super) fn open<'a>(
        modules: impl Iterator<Item = &'a str>,
        wanted: &BTreeSet<&str>,
    ) -> Self {
        let wanted = Wanted {
            prefixes: Prefixes::of(wanted.iter().copied()),
            names: wanted,
        };
        let folder = Path::new(BTF_FOLDER);
        let vmlinux = Named::read(&folder.join(VMLINUX), None, &wanted);
        let modules = modules
            .map(|module| {
                let types = match &vmlinux {
                    Ok(base) => open_module(&folder.join(module), base, &wanted),
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
            Ok(types) => self.view(types),
            Err(why) => return Fact::Unknown(why.clone()),
        };
        let mut found = types.named(name);
        match found.find(|(_, found)| found.kind == Kind::Function) {
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
        member(self.view(types), path).into()
    }

    /// Finds what gives an address a type by which programs can read any memory.
    pub(super) fn typed_reads(&self) -> Fact<TypedReads> {
        let cast = match self.function(Self::CAST, VMLINUX) {
            Fact::Known(function) => function.type_id,
            Fact::Unknown(why) => return Fact::Unknown(why),
        };
        let vmlinux = match &self.vmlinux {
            Ok(vmlinux) => vmlinux,
            Err(why) => return Fact::Unknown(why.clone()),
        };
        match largest_array_of_integers(self.view(vmlinux)) {
            Some((structure, bytes)) => Fact::Known(TypedReads {
                cast,
                structure,
                bytes,
            }),
            None => {
                let why = "no structure of vmlinux's BTF begins with an array of integers";
                Fact::Unknown(why.to_owned())
            }
        }
    }

    fn view<'t>(&'t self, own: &'t Named) -> View<'t> {
        let base = self.vmlinux.as_ref().ok();
        let base = base.filter(|base| !std::ptr::eq(*base, own));
        View { own, base }
    }
}

/// Names of functions and structures that are looked for.
struct Wanted<'n> {
    names: &'n BTreeSet<&'n str>,
    prefixes: Prefixes,
}

impl Named {
    fn read(path: &Path, base: Option<&Self>, wanted: &Wanted<'_>) -> Result<Self, String> {
        let read = || Self::parse(Contents::of(path)?, base, wanted);
        read().map_err(|error: anyhow::Error| format!("read {}: {error:#}", path.display()))
    }

    fn parse(bytes: Contents, base: Option<&Self>, wanted: &Wanted<'_>) -> anyhow::Result<Self> {
        let table = Table::parse(bytes, base.map(|base| &base.table))?;
        let mut ids: HashMap<_, Vec<_>> = HashMap::new();
        for (id, found) in table.types() {
            let (Kind::Function | Kind::Struct | Kind::Union) = found.kind else {
                continue;
            };
            let base = base.map(|base| &base.table);
            let Some(text) = text(&table, base, found.name) else {
                continue;
            };
            if wanted.prefixes.may_begin(text)
                && let Some(name) = name_of(text)
                && let Some(name) = wanted.names.get(name)
            {
                ids.entry((*name).to_owned()).or_default().push(id);
            }
        }
        Ok(Self { table, ids })
    }
}

impl<'t> View<'t> {
    /// Types of a name: a module's own first.
    fn named(self, name: &str) -> impl Iterator<Item = (u32, Type<'t>)> {
        let tables = [Some(self.own), self.base].into_iter().flatten();
        let name = name.to_owned();
        tables.flat_map(move |named| {
            let ids = named.ids.get(&name).into_iter().flatten();
            ids.filter_map(|id| Some((*id, named.table.get(*id)?)))
        })
    }

    fn get(self, id: u32) -> Option<Type<'t>> {
        let own = self.own.table.get(id);
        own.or_else(|| self.base?.table.get(id))
    }

    fn name(self, string: u32) -> &'t str {
        let base = self.base.map(|base| &base.table);
        let text = text(&self.own.table, base, string);
        text.and_then(name_of).unwrap_or_default()
    }
}

/// The text from a string on, in a table or the one below it.
fn text<'t>(own: &'t Table, base: Option<&'t Table>, string: u32) -> Option<&'t [u8]> {
    own.text(string).or_else(|| base?.text(string))
}

/// The string that a text begins with.
fn name_of(text: &[u8]) -> Option<&str> {
    let end = text.iter().position(|byte| *byte == 0)?;
    str::from_utf8(&text[..end]).ok()
}

fn open_module(path: &Path, base: &Named, wanted: &Wanted<'_>) -> Result<Named, String> {
    if !path.exists() {
        return Err(format!(
            "{} does not exist: the module was built without BTF",
            path.display()
        ));
    }
    Named::read(path, Some(base), wanted)
}

/// Follows a path of members from a structure.
fn member(types: View<'_>, path: &str) -> Result<Member, String> {
    let mut names = path.split('.');
    let structure = names.next().unwrap_or_default();
    let (_, mut at) = types
        .named(structure)
        .find(|(_, found)| matches!(found.kind, Kind::Struct | Kind::Union))
        .ok_or_else(|| format!("no structure {structure} in BTF"))?;
    let mut offset = 0_u32;
    for name in names {
        let (bits, next) = find(types, at, name, DEPTH, &mut BTreeSet::new())
            .ok_or_else(|| format!("structure {structure} has no member {name} (in {path})"))?;
        offset = offset
            .checked_add(bits)
            .ok_or_else(|| format!("{path} is too far from the structure's begin"))?;
        at = next;
    }
    if !offset.is_multiple_of(8) {
        return Err(format!("{path} is a bit field"));
    }
    let size = size(types, at, DEPTH).ok_or_else(|| format!("{path} has no size"))?;
    Ok(Member {
        offset: offset / 8,
        size,
    })
}

/// Bytes of an array that is large enough: a probe reads no more of most objects.
const LARGE: u32 = 256;

/// The structure that begins with the largest array of integers, and the array's bytes. The first
/// array of [`LARGE`] bytes will do.
fn largest_array_of_integers(types: View<'_>) -> Option<(u32, u32)> {
    let mut largest: Option<(u32, u32)> = None;
    for (id, found) in types.own.table.types() {
        if found.kind == Kind::Struct
            && let Some(bytes) = leading_integers(types, found)
            && largest.is_none_or(|(_, most)| most < bytes)
        {
            largest = Some((id, bytes));
            if bytes >= LARGE {
                break;
            }
        }
    }
    largest
}

/// Bytes of the array of integers that a structure begins with, if it begins with one.
fn leading_integers(types: View<'_>, of: Type<'_>) -> Option<u32> {
    let first = of.members().next().filter(|first| first.bit_offset == 0)?;
    let (element, number) = plain(types, first.type_id)?.elements()?;
    let element = plain(types, element).filter(|element| element.kind == Kind::Int)?;
    let bytes = element.size_or_type.checked_mul(number)?;
    (bytes >= 8 && bytes <= of.size_or_type).then_some(bytes)
}

/// A member of a structure, union or array of them, by its name: its distance in
/// bits and its type without qualifiers. Looks into anonymous members, but in vain into no type
/// twice: damaged ones may refer to each other.
fn find<'t>(
    types: View<'t>,
    within: Type<'t>,
    name: &str,
    depth: u32,
    seen: &mut BTreeSet<u32>,
) -> Option<(u32, Type<'t>)> {
    let depth = depth.checked_sub(1)?;
    if let Some((element, _)) = within.elements() {
        return find(types, plain(types, element)?, name, depth, seen);
    }
    within.members().find_map(|member| {
        let found = plain(types, member.type_id);
        match types.name(member.name) {
            "" if seen.insert(member.type_id) => {
                let (bits, found) = find(types, found?, name, depth, seen)?;
                Some((member.bit_offset.checked_add(bits)?, found))
            }
            found_name if found_name == name => Some((member.bit_offset, found?)),
            _ => None,
        }
    })
}

/// The type of an id, behind typedefs and qualifiers.
fn plain(types: View<'_>, mut id: u32) -> Option<Type<'_>> {
    for _ in 0..DEPTH {
        let found = types.get(id)?;
        match found.kind {
            Kind::Typedef | Kind::Const | Kind::Volatile | Kind::Restrict | Kind::TypeTag => {
                id = found.size_or_type;
            }
            _ => return Some(found),
        }
    }
    None
}

/// Bytes that a value of a type takes.
fn size(types: View<'_>, of: Type<'_>, depth: u32) -> Option<u32> {
    match of.kind {
        Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 => Some(of.size_or_type),
        Kind::Pointer => u32::try_from(size_of::<usize>()).ok(),
        Kind::Array => {
            let (element, number) = of.elements()?;
            let element = size(types, plain(types, element)?, depth.checked_sub(1)?)?;
            element.checked_mul(number)
        }
        _ => None,
    }
}

/// For fuzzing: types.
#[cfg(any(test, fuzzing))]
pub(super) const FUZZ: crate::fuzz::Parser = crate::fuzz::Parser {
    name: "btf",
    read: |bytes| {
        let names = BTreeSet::from(["outer", "schedule", "netns_ipvs"]);
        let wanted = Wanted {
            prefixes: Prefixes::of(names.iter().copied()),
            names: &names,
        };
        let vmlinux = Named::parse(Contents::Read(bytes.to_vec()), None, &wanted);
        let vmlinux = vmlinux.map_err(|error| format!("{error:#}"));
        let modules = BTreeMap::new();
        let types = Types { vmlinux, modules };
        let _ = types.member("outer.inners.y", VMLINUX);
        let _ = types.member("netns_ipvs.est_timer", VMLINUX);
        let _ = types.function("schedule", VMLINUX);
    },
    seeds: &[
        b"\x9f\xeb\x01\0\x18\0\0\0\0\0\0\0\x34\0\0\0\x34\0\0\0\x12\0\0\0\x01\0\0\0\0\0\0\x01\x04\0\0\0\x20\0\0\x01\x05\0\0\0\x02\0\0\x04\x08\0\0\0\x0b\0\0\0\x01\0\0\0\0\0\0\0\x0d\0\0\0\x01\0\0\0\x20\0\0\0\0int\0outer\0x\0y\0\0\0\0",
    ],
};

#[cfg(test)]
mod tests {
    use super::{blob::*, *};

    fn named(blob: &Blob, base: Option<&Named>, names: &[&str]) -> anyhow::Result<Named> {
        let names: BTreeSet<&str> = names.iter().copied().collect();
        let wanted = Wanted {
            prefixes: Prefixes::of(names.iter().copied()),
            names: &names,
        };
        Named::parse(Contents::Read(blob.bytes()), base, &wanted)
    }

    /// The types of a kernel, and of its module `m`.
    fn types(vmlinux: &Blob, module: &Blob, names: &[&str]) -> Types {
        let vmlinux = named(vmlinux, None, names).unwrap();
        let module = named(module, Some(&vmlinux), names).unwrap();
        Types {
            vmlinux: Ok(vmlinux),
            modules: BTreeMap::from([("m".to_owned(), Ok(module))]),
        }
    }

    fn function(object: &str, type_id: u32) -> Fact<BtfFunction> {
        let object = object.to_owned();
        Fact::Known(BtfFunction { object, type_id })
    }

    fn place(offset: u32, size: u32) -> Fact<Member> {
        Fact::Known(Member { offset, size })
    }

    fn why<T: std::fmt::Debug>(fact: Fact<T>) -> String {
        match fact {
            Fact::Unknown(why) => why,
            Fact::Known(known) => panic!("{known:?} is known"),
        }
    }

    /// A structure as kernels have them: an anonymous union, a type behind others, an array,
    /// a bit field.
    fn kernel() -> Blob {
        let mut blob = Blob::new();
        let int = blob.add(INT, "int", 4, 0, &[32]);
        let word = blob.add(TYPEDEF, "u32", int, 0, &[]);
        let constant = blob.add(CONST, "", word, 0, &[]);
        let pointer = blob.add(POINTER, "", 0, 0, &[]);
        let either = blob.add_struct(UNION, "", 8, &[("one", constant, 0), ("two", pointer, 0)]);
        let inner = blob.add_struct(STRUCT, "inner", 8, &[("x", int, 0), ("y", int, 32)]);
        let array = blob.add(ARRAY, "", 0, 0, &[inner, int, 3]);
        blob.add_struct(
            STRUCT,
            "outer",
            48,
            &[
                ("first", int, 0),
                ("", either, 64),
                ("inners", array, 128),
                ("bit", int, 321),
            ],
        );
        blob.add(FUNCTION, "schedule", 0, 0, &[]);
        blob
    }

    #[test]
    fn members_are_where_the_types_say() {
        let kernel = kernel();
        let types = types(&kernel, &kernel.module(), &["outer"]);
        let member = |path| types.member(path, VMLINUX);
        assert_eq!(member("outer.first"), place(0, 4));
        assert_eq!(member("outer.one"), place(8, 4));
        assert_eq!(member("outer.two"), place(8, 8));
        assert_eq!(member("outer.inners"), place(16, 24));
        assert_eq!(member("outer.inners.y"), place(20, 4));
        assert_eq!(member("outer"), place(0, 48));
        assert!(why(member("outer.bit")).contains("is a bit field"));
        assert!(why(member("outer.none")).contains("has no member none"));
        assert!(why(member("none.first")).contains("no structure none"));
        assert!(why(member("inner.x")).contains("no structure inner"));
    }

    #[test]
    fn memory_is_read_by_the_structure_with_the_largest_array() {
        let mut kernel = kernel();
        let array =
            |blob: &mut Blob, element, number| blob.add(ARRAY, "", 0, 0, &[element, 1, number]);
        let pointer = kernel.add(POINTER, "", 0, 0, &[]);
        let pointers = array(&mut kernel, pointer, 64);
        kernel.add_struct(STRUCT, "of_pointers", 512, &[("all", pointers, 0)]);
        let integers = array(&mut kernel, 1, 32);
        kernel.add_struct(
            STRUCT,
            "behind",
            136,
            &[("before", 1, 0), ("all", integers, 64)],
        );
        let without = types(&kernel, &kernel.module(), &[Types::CAST]);
        assert!(why(without.typed_reads()).contains("no function bpf_rdonly_cast"));
        let cast = kernel.add(FUNCTION, Types::CAST, 0, 0, &[]);
        let only_others = types(&kernel, &kernel.module(), &[Types::CAST]);
        assert!(why(only_others.typed_reads()).contains("no structure"));
        let small = array(&mut kernel, 1, 4);
        kernel.add_struct(STRUCT, "small", 16, &[("all", small, 0)]);
        let structure = kernel.add_struct(STRUCT, "large", 136, &[("all", integers, 0)]);
        let found = types(&kernel, &kernel.module(), &[Types::CAST]).typed_reads();
        let bytes = 128;
        let expected = TypedReads {
            cast,
            structure,
            bytes,
        };
        assert_eq!(found, Fact::Known(expected));
    }

    #[test]
    fn a_module_has_its_own_and_what_is_below_it() {
        let kernel = kernel();
        let mut module = kernel.module();
        module.add_struct(STRUCT, "outer", 4, &[("own", 1, 0)]);
        let own = module.add(FUNCTION, "m_init", 0, 0, &[]);
        let types = types(&kernel, &module, &["outer", "schedule", "m_init"]);
        assert_eq!(types.member("outer.own", "m"), place(0, 4));
        assert!(why(types.member("outer.first", "m")).contains("has no member first"));
        assert_eq!(types.member("outer.first", VMLINUX), place(0, 4));
        assert_eq!(types.function("m_init", "m"), function("m", own));
        assert_eq!(types.function("schedule", "m"), function("m", 9));
        assert_eq!(types.function("schedule", "other"), function(VMLINUX, 9));
        assert!(why(types.function("m_init", "other")).contains("no function m_init"));
        assert!(why(types.function("outer", "m")).contains("no function outer"));
    }

    #[test]
    fn types_that_refer_to_themselves_end() {
        let mut blob = Blob::new();
        blob.add(TYPEDEF, "loop", 1, 0, &[]);
        let id = blob.add_struct(STRUCT, "outer", 4, &[("", 2, 0), ("loop", 1, 0)]);
        assert_eq!(id, 2);
        blob.add(ARRAY, "", 0, 0, &[3, 1, 2]);
        blob.add_struct(STRUCT, "array", 4, &[("endless", 3, 0)]);
        let types = types(&blob, &blob.module(), &["outer", "array"]);
        for path in [
            "outer.loop",
            "outer.none",
            "array.endless",
            "array.endless.x",
        ] {
            why(types.member(path, VMLINUX));
        }
    }

    /// Without a look at what was seen, it would take more steps than there are.
    #[test]
    fn a_structure_with_many_anonymous_members_of_itself_ends() {
        let mut blob = Blob::new();
        blob.add_struct(STRUCT, "outer", 4, &[("", 1, 0); 200]);
        let types = types(&blob, &blob.module(), &["outer"]);
        why(types.member("outer.x", VMLINUX));
    }

    #[test]
    fn damaged_types_are_no_panic() {
        let whole = kernel().bytes();
        let names = BTreeSet::from(["outer", "schedule"]);
        let wanted = Wanted {
            prefixes: Prefixes::of(names.iter().copied()),
            names: &names,
        };
        for place in 24..whole.len() {
            for value in [0, 1, 9, 0xff] {
                let mut damaged = whole.clone();
                damaged[place] = value;
                let vmlinux = Named::parse(Contents::Read(damaged), None, &wanted);
                let vmlinux = vmlinux.map_err(|error| format!("{error:#}"));
                let modules = BTreeMap::new();
                let types = Types { vmlinux, modules };
                for path in ["outer.inners.y", "outer.two", "outer.bit"] {
                    let _ = types.member(path, VMLINUX);
                }
                let _ = types.function("schedule", VMLINUX);
            }
        }
    }
}
