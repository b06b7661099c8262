//! Which part of the agent imports which: the code beside the table in ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, Meta, Token, UseTree};

/// For each part what it imports, and a file that does.
type Imports = BTreeMap<String, BTreeMap<String, PathBuf>>;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The rows of the table, from the ground up: a part, and what it may import.
fn allowed() -> Vec<(String, BTreeSet<String>)> {
    let page = source().join("../../ARCHITECTURE.md");
    let page = fs::read_to_string(&page).expect("ARCHITECTURE.md can be read");
    let (_, table) = page
        .split_once("| Part | Imports |")
        .expect("ARCHITECTURE.md has a table of imports");
    let rows = table.lines().skip(2).take_while(|row| row.starts_with('|'));
    let names = |cell: &str| {
        let names = cell.split('`').skip(1).step_by(2);
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    let row = |row: &str| {
        let cells: Vec<_> = row.split('|').map(names).collect();
        (cells[1][0].clone(), cells[2].iter().cloned().collect())
    };
    rows.map(row).collect()
}

/// The modules that a release is built from.
struct Crate<'a> {
    imports: &'a mut Imports,
    /// The part that is read.
    part: String,
    file: PathBuf,
    /// Where the files of the submodules are.
    folder: PathBuf,
}

impl Crate<'_> {
    fn read(&mut self) {
        let text = fs::read_to_string(&self.file).expect("a source file can be read");
        let file = syn::parse_file(&text).expect("a source file can be parsed");
        self.visit_file(&file);
    }

    fn imported(&mut self, part: String) {
        if part != self.part {
            let imports = self.imports.entry(self.part.clone()).or_default();
            imports.entry(part).or_insert_with(|| self.file.clone());
        }
    }
}

/// `test`, alone or beside `fuzzing`.
fn is_test(attributes: &[Attribute]) -> bool {
    let tests = |attribute: &Attribute| {
        let metas = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated);
        metas.is_ok_and(|metas| metas.iter().any(is_test_condition))
    };
    let mut conditions = attributes.iter().filter(|it| it.path().is_ident("cfg"));
    conditions.any(tests)
}

fn is_test_condition(meta: &Meta) -> bool {
    match meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("any") => {
            let parts = list.parse_args_with(Punctuated::<syn::Path, Token![,]>::parse_terminated);
            parts.is_ok_and(|parts| parts.iter().any(|path| path.is_ident("test")))
        }
        Meta::List(_) | Meta::NameValue(_) => false,
    }
}

/// What follows `crate::` in a tree of `use`.
fn first_parts(tree: &UseTree) -> Vec<String> {
    match tree {
        UseTree::Path(path) => vec![path.ident.to_string()],
        UseTree::Name(name) => vec![name.ident.to_string()],
        UseTree::Rename(rename) => vec![rename.ident.to_string()],
        UseTree::Group(group) => group.items.iter().flat_map(first_parts).collect(),
        UseTree::Glob(_) => panic!("all of the crate is imported"),
    }
}

impl<'ast> Visit<'ast> for Crate<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Const(it) => &it.attrs,
            Item::Mod(it) => &it.attrs,
            Item::Use(it) => &it.attrs,
            Item::Fn(it) => &it.attrs,
            Item::Impl(it) => &it.attrs,
            Item::Struct(it) => &it.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if module.content.is_some() {
            return visit::visit_item_mod(self, module);
        }
        let name = module.ident.to_string();
        let folder = self.folder.join(&name);
        let beside = self.folder.join(format!("{name}.rs"));
        let file = if beside.exists() {
            beside
        } else {
            folder.join("mod.rs")
        };
        let part = match self.part.as_str() {
            "main" => name,
            part => part.to_owned(),
        };
        let imports = &mut *self.imports;
        Crate {
            imports,
            part,
            file,
            folder,
        }
        .read();
    }

    fn visit_use_tree(&mut self, tree: &'ast UseTree) {
        if let UseTree::Path(path) = tree
            && path.ident == "crate"
        {
            first_parts(&path.tree)
                .into_iter()
                .for_each(|part| self.imported(part));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut segments = path.segments.iter();
        if segments.next().is_some_and(|first| first.ident == "crate")
            && let Some(part) = segments.next()
        {
            self.imported(part.ident.to_string());
        }
        visit::visit_path(self, path);
    }
}

fn imports() -> Imports {
    let mut imports = Imports::new();
    Crate {
        imports: &mut imports,
        part: "main".to_owned(),
        file: source().join("main.rs"),
        folder: source(),
    }
    .read();
    imports
}

#[test]
fn each_part_imports_what_the_table_allows_and_no_row_is_idle() {
    let imports = imports();
    let mut faults = Vec::new();
    for (part, allowed) in allowed() {
        let mut found = imports.get(&part).cloned().unwrap_or_default();
        for name in allowed {
            if found.remove(&name).is_none() {
                faults.push(format!(
                    "{part} does not import {name}: take it off the table"
                ));
            }
        }
        let surplus = found.into_iter();
        faults.extend(surplus.map(|(name, file)| {
            format!(
                "{} imports {name}, which the table does not allow",
                file.display()
            )
        }));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_table_has_every_part_and_each_imports_only_what_stands_above_it() {
    let listed: Vec<_> = allowed();
    let mut above = BTreeSet::new();
    for (part, allowed) in &listed {
        for name in allowed {
            assert!(
                above.contains(name),
                "{part} imports {name}, which is not above it"
            );
        }
        above.insert(part.clone());
    }
    let parts: BTreeSet<_> = fs::read_dir(source())
        .expect("the sources can be listed")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            path.file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    // No release has it.
    above.insert("fuzz".to_owned());
    assert_eq!(above, parts);
}
