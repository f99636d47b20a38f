//! What a source file names, as paths from the root of its crate: every branch of its `use` trees, and every path in its code,
//! macros and attributes.
//!
//! `crate`, `self`, `super` and the names of modules are resolved. Unit tests are left out: they may use what they like.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{
    Attribute, File, Item, ItemExternCrate, ItemMacro, ItemMod, ItemUse, Macro, UseTree, Visibility,
    visit::{self, Visit},
};

/// A path: the crate's name, then modules, then an item.
pub(super) type Segments = Vec<String>;

/// Something that a file names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named {
    /// The module that names it.
    pub(super) from: Segments,
    /// What it names; the first segment is a crate.
    pub(super) to: Segments,
    /// Passed on to others with `pub use`.
    pub(super) is_passed_on: bool,
}

/// What the files of one crate name.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// The modules that have a file.
    pub(super) modules: BTreeSet<Segments>,
    /// What is named.
    pub(super) named: BTreeSet<Named>,
    /// Ways around this, as `module: way`.
    pub(super) hidden: BTreeSet<String>,
}

impl Names {
    /// Of all files below `src`, the sources of a crate.
    pub(super) fn of_crate(name: &str, src: &Path) -> Self {
        let mut files = BTreeMap::new();
        collect(src, &mut vec![name.to_owned()], &mut files);
        Self::of_files(&files)
    }

    /// Of files, by module.
    pub(super) fn of_files(files: &BTreeMap<Segments, String>) -> Self {
        let mut names = Self { modules: files.keys().cloned().collect(), ..Self::default() };
        for (module, text) in files {
            let file: File = syn::parse_file(text).unwrap_or_else(|error| panic!("{module:?}: {error}"));
            let (modules, module) = (names.modules.clone(), module.clone());
            let aliases = aliases(&file.items);
            let mut reader = Reader { names: &mut names, modules: &modules, module, aliases };
            reader.visit_file(&file);
        }
        names
    }

    /// Which file needs which: passing on with `pub use` needs nothing.
    pub(super) fn needs(&self) -> BTreeMap<Segments, BTreeSet<Segments>> {
        let mut needs: BTreeMap<Segments, BTreeSet<Segments>> =
            self.modules.iter().map(|module| (module.clone(), BTreeSet::new())).collect();
        for named in self.named.iter().filter(|named| !named.is_passed_on) {
            let (Some(from), Some(to)) = (self.file_of(&named.from), self.file_of(&named.to)) else { continue };
            if from != to {
                needs.entry(from).or_default().insert(to);
            }
        }
        needs
    }

    fn file_of(&self, path: &[String]) -> Option<Segments> {
        (1..=path.len()).rev().map(|end| path[..end].to_vec()).find(|module| self.modules.contains(module))
    }
}

/// Files that need one another, whatever the way.
pub(super) fn circles(needs: &BTreeMap<Segments, BTreeSet<Segments>>) -> Vec<BTreeSet<Segments>> {
    let reach: BTreeMap<&Segments, BTreeSet<&Segments>> = needs.keys().map(|start| (start, reached(needs, start))).collect();
    let mut found: Vec<BTreeSet<Segments>> = Vec::new();
    for (start, there) in &reach {
        let circle: BTreeSet<Segments> = there
            .iter()
            .filter(|other| reach.get(**other).is_some_and(|back| back.contains(start)))
            .map(|m| (*m).clone())
            .collect();
        if !circle.is_empty() && !found.contains(&circle) {
            found.push(circle);
        }
    }
    found
}

fn reached<'a>(needs: &'a BTreeMap<Segments, BTreeSet<Segments>>, start: &Segments) -> BTreeSet<&'a Segments> {
    let mut there = BTreeSet::new();
    let mut next: Vec<&Segments> = needs.get(start).into_iter().flatten().collect();
    while let Some(module) = next.pop() {
        if there.insert(module) {
            next.extend(needs.get(module).into_iter().flatten());
        }
    }
    there
}

/// Every file below a folder, by the module that it is.
fn collect(folder: &Path, module: &mut Segments, files: &mut BTreeMap<Segments, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            module.push(name);
            collect(&path, module, files);
            module.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "tests" && name != "main" {
            let mut own = module.clone();
            if name != "mod" && name != "lib" {
                own.push(name);
            }
            files.insert(own, fs::read_to_string(&path).unwrap());
        }
    }
}

/// Other names that `use … as` and `extern crate … as` give, which later paths may begin with.
fn aliases(items: &[Item]) -> BTreeMap<String, Segments> {
    let mut found = BTreeMap::new();
    for item in items {
        match item {
            Item::Use(item) => flatten(&item.tree, &mut Vec::new(), &mut |path, alias| {
                if let Some(alias) = alias {
                    found.insert(alias, path);
                }
            }),
            Item::ExternCrate(ItemExternCrate { ident, rename: Some((_, alias)), .. }) => {
                found.insert(alias.to_string(), vec![ident.to_string()]);
            }
            _ => {}
        }
    }
    found
}

/// Every leaf of a `use` tree. A glob is the module that it empties, `self` the one that it stands in.
fn flatten(tree: &UseTree, path: &mut Segments, leaf: &mut impl FnMut(Segments, Option<String>)) {
    match tree {
        UseTree::Path(part) => {
            path.push(part.ident.to_string());
            flatten(&part.tree, path, leaf);
            path.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, path, leaf)),
        UseTree::Glob(_) => leaf(path.clone(), None),
        UseTree::Name(name) if name.ident == "self" => leaf(path.clone(), None),
        UseTree::Name(name) => leaf([path.as_slice(), &[name.ident.to_string()]].concat(), None),
        UseTree::Rename(rename) if rename.ident == "self" => leaf(path.clone(), Some(rename.rename.to_string())),
        UseTree::Rename(rename) => {
            leaf([path.as_slice(), &[rename.ident.to_string()]].concat(), Some(rename.rename.to_string()));
        }
    }
}

struct Reader<'a> {
    names: &'a mut Names,
    modules: &'a BTreeSet<Segments>,
    module: Segments,
    aliases: BTreeMap<String, Segments>,
}

impl Reader<'_> {
    /// From the root of a crate; none for what begins with nothing that is known, such as a type in scope.
    fn resolve(&self, path: &[String], is_use: bool) -> Option<Segments> {
        let (first, rest) = path.split_first()?;
        let under = |base: &[String]| Some([base, rest].concat());
        match first.as_str() {
            "crate" | "$crate" => under(&self.module[..1]),
            "self" if rest.first().is_some_and(|next| next == "super") => self.resolve(rest, is_use),
            "self" => under(&self.module),
            "super" => {
                let ups = path.iter().take_while(|segment| *segment == "super").count();
                let base = self.module.len().checked_sub(ups)?;
                Some([&self.module[..base.max(1)], &path[ups..]].concat())
            }
            other => {
                if let Some(alias) = self.aliases.get(other).filter(|alias| alias.first() != Some(first)) {
                    return self.resolve(&[alias.as_slice(), rest].concat(), is_use);
                }
                let child = [self.module.as_slice(), std::slice::from_ref(first)].concat();
                if self.modules.contains(&child) {
                    return under(&child);
                }
                // A crate, or, in code, whatever is in scope: nobody asks for types by the name of a crate.
                (is_use || !rest.is_empty()).then(|| path.to_vec())
            }
        }
    }

    fn note(&mut self, path: &[String], is_use: bool, is_passed_on: bool) {
        if let Some(to) = self.resolve(path, is_use) {
            self.names.named.insert(Named { from: self.module.clone(), to, is_passed_on });
        }
    }

    /// Paths in what syn does not parse: bodies of macros, and attributes.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Segments = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.finish(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    // `crate::{a, b}` in a macro: the paths in the group begin with what stands before it, and can't be told.
                    if colons == 2 && !path.is_empty() {
                        self.hide(&format!("a group behind `{}` in a macro", path.join("::")));
                    }
                    self.finish(&mut path);
                    colons = 0;
                    self.tokens(group.stream());
                }
                _ => {
                    self.finish(&mut path);
                    colons = 0;
                }
            }
        }
        self.finish(&mut path);
    }

    fn finish(&mut self, path: &mut Segments) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.note(&path, false, false);
        }
    }

    fn hide(&mut self, way: &str) {
        self.names.hidden.insert(format!("{}: {way}", self.module.join("::")));
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.to_token_stream().to_string().replace(' ', "") == "#[cfg(test)]")
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Const(item) => &item.attrs,
            Item::Enum(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Static(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            Item::Type(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
            self.hide(&format!("`#[path]` of `{}`", item.ident));
        }
        if item.content.is_some() {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut leaves = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut |path, _| leaves.push(path));
        let is_passed_on = !matches!(item.vis, Visibility::Inherited);
        leaves.iter().for_each(|path| self.note(path, true, is_passed_on));
    }

    fn visit_item_extern_crate(&mut self, item: &'ast ItemExternCrate) {
        self.note(&[item.ident.to_string()], true, false);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 || segments.first().is_some_and(|first| first == "crate") {
            self.note(&segments, false, false);
        }
        visit::visit_path(self, path);
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if !attribute.path().is_ident("doc") {
            self.tokens(attribute.meta.to_token_stream());
        }
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        if call.path.segments.last().is_some_and(|name| name.ident == "include") {
            self.hide("`include!`");
        }
        visit::visit_path(self, &call.path);
        self.tokens(call.tokens.clone());
    }

    fn visit_item_macro(&mut self, item: &'ast ItemMacro) {
        self.visit_macro(&item.mac);
    }
}
