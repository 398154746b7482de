//! Modules side by side do not use each other in a circle, and a `mod.rs` holds no code.
//!
//! Side by side are the modules of one folder, each with all that is inside it. A use of what a
//! module re-exports counts for the file that defines it. A file and its own parts
//! (`config.rs` and `config/`) are one thing and may use each other.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

use crate::rust_files;

/// Sources of each package, as seen from the workspace.
const PACKAGES: &[&str] = &[
    "vswitchd/src",
    "vswitchd/datapath/src",
    "vswitchd/api/src",
    "ctl/src",
    "cni-shim/src",
    "bench/src",
    "tests/src",
];

type ModulePath = Vec<String>;

/// What one file names.
#[derive(Debug, Default)]
struct Names {
    module: ModulePath,
    /// Modules that are written out inside the file, around what is visited.
    inline: ModulePath,
    /// Paths from the root of the package.
    used: BTreeSet<ModulePath>,
    /// What it re-exports, by name.
    exports: BTreeMap<String, ModulePath>,
    /// Its parts that are only there in tests.
    tests: Vec<ModulePath>,
    children: BTreeSet<String>,
}

impl Names {
    /// Returns a path from the root, if it is one inside the package.
    fn absolute(&self, path: &[String]) -> Option<ModulePath> {
        let (first, rest) = path.split_first()?;
        let mut base = self.module.clone();
        base.extend(self.inline.iter().cloned());
        match first.as_str() {
            "crate" => return Some(rest.to_vec()),
            "self" => base.extend(rest.iter().cloned()),
            "super" => {
                base.pop()?;
                let ups = rest.iter().take_while(|part| *part == "super").count();
                base.truncate(base.len().checked_sub(ups)?);
                base.extend(rest.iter().skip(ups).cloned());
            }
            child if self.inline.is_empty() && self.children.contains(child) => {
                base.extend(path.iter().cloned());
            }
            _ => return None,
        }
        Some(base)
    }

    fn use_tree(&mut self, before: &mut Vec<String>, tree: &UseTree, is_export: bool) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.use_tree(before, &path.tree, is_export);
                before.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(before, tree, is_export);
                }
            }
            UseTree::Name(name) => self.use_name(before, &name.ident, &name.ident, is_export),
            UseTree::Rename(name) => self.use_name(before, &name.ident, &name.rename, is_export),
            UseTree::Glob(_) => self.used.extend(self.absolute(before)),
        }
    }

    fn use_name(
        &mut self,
        before: &[String],
        ident: &syn::Ident,
        known_as: &syn::Ident,
        is_export: bool,
    ) {
        let mut path = before.to_vec();
        if ident != "self" {
            path.push(ident.to_string());
        }
        let Some(path) = self.absolute(&path) else {
            return;
        };
        if is_export && self.inline.is_empty() {
            self.exports.insert(known_as.to_string(), path.clone());
        }
        // What a module re-exports of its own parts it does not use.
        if !is_export || !path.starts_with(&self.module) {
            self.used.insert(path);
        }
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let list = attribute.meta.require_list();
        attribute.path().is_ident("cfg") && list.is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.content.is_some() {
            self.inline.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.inline.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_export = !matches!(item.vis, Visibility::Inherited);
        self.use_tree(&mut Vec::new(), &item.tree, is_export);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        if parts.len() > 1 {
            self.used.extend(self.absolute(&parts));
        }
        visit::visit_path(self, path);
    }
}

fn names(module: ModulePath, text: &str) -> Names {
    let file = syn::parse_file(text).unwrap();
    let mut names = Names {
        module,
        ..Names::default()
    };
    for item in &file.items {
        let Item::Mod(item) = item else { continue };
        names.children.insert(item.ident.to_string());
        if is_for_tests(&item.attrs) {
            let mut path = names.module.clone();
            path.push(item.ident.to_string());
            names.tests.push(path);
        }
    }
    names.visit_file(&file);
    names
}

/// Modules of a package with what each of them uses.
#[derive(Debug)]
struct Package(BTreeMap<ModulePath, Names>);

impl Package {
    fn parse<'a>(files: impl IntoIterator<Item = (ModulePath, &'a str)>) -> Self {
        let named = files
            .into_iter()
            .map(|(module, text)| (module.clone(), names(module, text)));
        let mut modules: BTreeMap<ModulePath, Names> = named.collect();
        let tests: Vec<ModulePath> = modules
            .values()
            .flat_map(|names| names.tests.clone())
            .collect();
        modules.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        Self(modules)
    }

    /// Returns the module that defines what a path names.
    fn home_of(&self, path: &[String]) -> Option<&ModulePath> {
        let ends = (0..=path.len()).rev();
        let (module, names) = ends
            .filter_map(|end| self.0.get_key_value(&path[..end]))
            .next()?;
        let rest = &path[module.len()..];
        let exported = rest.first().and_then(|name| names.exports.get(name));
        match exported {
            Some(target) if !target.starts_with(&path[..=module.len()]) => {
                self.home_of(&[target, &rest[1..]].concat())
            }
            _ => Some(module),
        }
    }

    /// Returns the uses between modules side by side, with an example of each.
    fn uses(&self) -> BTreeMap<ModulePath, BTreeMap<ModulePath, String>> {
        let mut uses: BTreeMap<ModulePath, BTreeMap<ModulePath, String>> = BTreeMap::new();
        for (user, names) in &self.0 {
            for used in names.used.iter().filter_map(|path| self.home_of(path)) {
                let common = user.iter().zip(used).take_while(|(a, b)| a == b).count();
                if user.len() > common && used.len() > common {
                    let example = format!("{} uses {}", user.join("::"), used.join("::"));
                    let of_user = uses.entry(user[..=common].to_vec()).or_default();
                    of_user.entry(used[..=common].to_vec()).or_insert(example);
                }
            }
        }
        uses
    }

    /// Returns each circle as the uses that it is made of.
    fn circles(&self) -> Vec<Vec<String>> {
        let uses = self.uses();
        let reach: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> = uses
            .keys()
            .map(|module| (module, reachable(&uses, module)))
            .collect();
        let mut circles: BTreeMap<&ModulePath, Vec<String>> = BTreeMap::new();
        for (user, used) in &uses {
            let in_circle = |other: &&ModulePath| {
                reach[user].contains(*other)
                    && reach.get(other).is_some_and(|back| back.contains(user))
            };
            let Some(first) = uses.keys().find(in_circle) else {
                continue;
            };
            let links = used.iter().filter(|(used, _)| in_circle(used));
            let links = links.map(|(_, example)| example.clone());
            circles.entry(first).or_default().extend(links);
        }
        circles.into_values().collect()
    }
}

fn reachable<'a>(
    uses: &'a BTreeMap<ModulePath, BTreeMap<ModulePath, String>>,
    from: &'a ModulePath,
) -> BTreeSet<&'a ModulePath> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for used in uses.get(module).into_iter().flat_map(BTreeMap::keys) {
            if found.insert(used) {
                open.push(used);
            }
        }
    }
    found
}

fn files_of(package: &str) -> (PathBuf, Vec<PathBuf>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(package);
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    files.retain(|file| file != &root.join("main.rs"));
    (root, files)
}

fn module_path(root: &Path, file: &Path) -> ModulePath {
    let path = file.strip_prefix(root).unwrap().with_extension("");
    let mut parts: ModulePath = path
        .iter()
        .map(|part| part.to_string_lossy().into_owned())
        .collect();
    if parts
        .last()
        .is_some_and(|last| last == "mod" || last == "lib")
    {
        parts.pop();
    }
    parts
}

#[test]
fn modules_side_by_side_do_not_use_each_other_in_a_circle() {
    let mut found = String::new();
    let mut modules = 0;
    for package in PACKAGES {
        let (root, files) = files_of(package);
        let read = |file: &PathBuf| {
            let text = std::fs::read_to_string(file).unwrap();
            (module_path(&root, file), text)
        };
        let texts: Vec<(ModulePath, String)> = files.iter().map(read).collect();
        let package = Package::parse(texts.iter().map(|(module, text)| (module.clone(), &**text)));
        modules += package.0.len();
        for circle in package.circles() {
            found += &format!("\n{}\n", circle.join("\n"));
        }
    }
    assert!(modules > 100, "only {modules} modules were read");
    assert!(found.is_empty(), "modules in circles:{found}");
}

/// Returns whether a `mod.rs` with this text holds more than docs, modules and re-exports.
fn holds_code(text: &str) -> bool {
    let items = syn::parse_file(text).unwrap().items;
    items.iter().any(|item| match item {
        Item::Use(_) => false,
        Item::Mod(item) => item.content.is_some(),
        _ => true,
    })
}

#[test]
fn a_mod_file_holds_docs_and_re_exports() {
    let mut read = 0;
    let mut with_code = Vec::new();
    for package in PACKAGES {
        let (_, files) = files_of(package);
        for file in files.iter().filter(|file| file.ends_with("mod.rs")) {
            read += 1;
            if holds_code(&std::fs::read_to_string(file).unwrap()) {
                with_code.push(file.display().to_string());
            }
        }
    }
    assert!(read > 40, "only {read} files were read");
    assert!(
        with_code.is_empty(),
        "code in {}: it belongs into a file with a name",
        with_code.join(", ")
    );
}

#[test]
fn code_in_a_mod_file_would_be_found() {
    assert!(!holds_code(
        "//! Docs.\nmod a;\npub use a::Deep;\nuse a::Own;"
    ));
    for code in [
        "fn f() {}",
        "struct Own;",
        "impl Own {}",
        "const A: u8 = 1;",
    ] {
        assert!(holds_code(&format!("mod a;\n{code}")), "{code}");
    }
    assert!(holds_code("#[cfg(test)] mod tests { fn f() {} }"));
}

#[test]
fn a_circle_would_be_found() {
    let path = |text: &str| -> ModulePath { text.split("::").map(str::to_owned).collect() };
    let circles = |b: &str| {
        let files = [
            (path("top"), "mod a; mod b; pub use a::Deep;"),
            (path("top::a"), "use super::b::Thing; pub struct Deep;"),
            (path("top::b"), b),
            (path("other"), "fn f() { crate::top::Deep; }"),
        ];
        Package::parse(files).circles()
    };
    let circle = vec![vec![
        "top::a uses top::b".to_owned(),
        "top::b uses top::a".to_owned(),
    ]];
    assert_eq!(circles("use super::Deep;"), circle, "by a re-export");
    assert_eq!(circles("fn f() { super::a::g(); }"), circle, "by a path");
    assert_eq!(circles("mod inner { use super::super::a::Deep; }"), circle);
    assert!(circles("#[cfg(test)] mod tests { use super::super::a::Deep; }").is_empty());
    assert!(circles("pub struct Thing;").is_empty());
}
