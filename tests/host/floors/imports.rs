//! Which file names what of which other file, as a crate's source says it.
//!
//! Modules are followed from the root, and each path is resolved as the compiler does it: through `use`, renaming, handing on
//! (`pub use`) and globs, to the file that defines what it leads to. Not looked at:
//!
//! - comments and attributes: a link to what stands above helps readers and brings nothing in;
//! - what is there for tests (`#[cfg(test)]`): a test of one file may set the stage with others;
//! - methods and fields, since they are named without a path. Their types are seen where they are named.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use proc_macro2::{TokenStream, TokenTree};
use syn::{
    Attribute, Expr, ImplItem, Item, ItemImpl, ItemMacro, ItemMod, ItemUse, Macro, Token, Type, UseTree, Visibility,
    punctuated::Punctuated,
    visit::{self, Visit},
};

/// A path that stands in a file.
#[derive(Debug)]
pub(crate) struct Named {
    /// The file, from the repository's root.
    pub(crate) file: String,
    pub(crate) line: usize,
    /// The path; the whole of it for each name of a `use`.
    pub(crate) path: Vec<String>,
    /// Whether it only hands something on: a `use` that is not for the module alone.
    pub(crate) handed_on: bool,
    pub(crate) target: Target,
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Something that this file defines.
    Item(String),
    /// The module of this file.
    Module(String),
    /// Another crate, a local name, a name of the language.
    Outside,
    /// It begins in the crate and ends nowhere.
    Nowhere,
}

/// The files of the crate whose root this is, and the paths that stand in them.
pub(crate) fn read(root: &str) -> (Vec<String>, Vec<Named>) {
    let mut source = Source::default();
    let folder = root.rsplit_once('/').map_or(".", |(folder, _)| folder);
    source.file(root.to_string(), folder, None);
    source.find_associated();
    let named = source.paths.iter().map(|path| Named {
        file: source.file_of(path.module),
        line: path.line,
        path: path.names.clone(),
        handed_on: path.handed_on,
        target: source.target(path),
    });
    (source.files.clone(), named.collect())
}

#[derive(Default)]
struct Source {
    files: Vec<String>,
    modules: Vec<Module>,
    paths: Vec<Path>,
    impls: Vec<Impl>,
    /// The files of functions and constants that belong to a type: by its module, its name, and theirs.
    associated: HashMap<(usize, String, String), usize>,
}

#[derive(Default)]
struct Module {
    file: usize,
    parent: Option<usize>,
    children: HashMap<String, usize>,
    items: HashSet<String>,
    /// The paths that a `use` gives a name.
    imports: HashMap<String, Vec<Vec<String>>>,
    globs: Vec<Vec<String>>,
}

struct Path {
    module: usize,
    line: usize,
    names: Vec<String>,
    handed_on: bool,
}

/// An `impl` of a type without a trait.
struct Impl {
    module: usize,
    of: Vec<String>,
    names: Vec<String>,
}

/// A [`Target`] on the way to it.
#[derive(Clone, PartialEq)]
enum Found {
    Item {
        module: usize,
        name: String,
    },
    /// A function or constant of a type, in this file.
    Associated(usize),
    Module(usize),
    Outside,
    Nowhere,
}

/// The names that are being resolved: a `use` may lead back to itself.
type Seen = HashSet<(usize, String)>;

impl Source {
    /// Reads a file; `folder` is where the files of its modules lie.
    fn file(&mut self, path: String, folder: &str, parent: Option<usize>) -> usize {
        let full = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(full).unwrap_or_else(|error| panic!("{path}: {error}"));
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        self.files.push(path);
        self.module(self.files.len() - 1, folder, parent, &syntax.items)
    }

    fn module(&mut self, file: usize, folder: &str, parent: Option<usize>, items: &[Item]) -> usize {
        let module = self.modules.len();
        self.modules.push(Module { file, parent, ..Module::default() });
        for item in items {
            self.modules[module].items.extend(names_of(item));
            Reader { source: self, module, folder, of: None }.visit_item(item);
        }
        module
    }

    fn find_associated(&mut self) {
        for Impl { module, of, names } in &self.impls {
            if let Found::Item { module: home, name: of } = self.resolve(*module, of, false, &mut Seen::new()) {
                let file = self.modules[*module].file;
                self.associated.extend(names.iter().map(|name| ((home, of.clone(), name.clone()), file)));
            }
        }
    }

    fn file_of(&self, module: usize) -> String {
        self.files[self.modules[module].file].clone()
    }

    fn target(&self, path: &Path) -> Target {
        match self.resolve(path.module, &path.names, false, &mut Seen::new()) {
            Found::Item { module, .. } => Target::Item(self.file_of(module)),
            Found::Associated(file) => Target::Item(self.files[file].clone()),
            Found::Module(module) => Target::Module(self.file_of(module)),
            Found::Outside => Target::Outside,
            Found::Nowhere => Target::Nowhere,
        }
    }

    /// What a path leads to from a module; `more` says that further names follow it.
    fn resolve(&self, module: usize, path: &[String], more: bool, seen: &mut Seen) -> Found {
        let parent = |module: usize| self.modules[module].parent.map_or(Found::Nowhere, Found::Module);
        let follows = |i: usize| more || i + 1 < path.len();
        let mut at = match path[0].as_str() {
            "crate" => Found::Module(0),
            "self" => Found::Module(module),
            "super" => parent(module),
            name => match self.lookup(module, name, follows(0), seen) {
                Found::Nowhere => return Found::Outside,
                found => found,
            },
        };
        for (i, name) in path.iter().enumerate().skip(1) {
            at = match at {
                Found::Module(module) if name == "super" => parent(module),
                Found::Module(module) => self.lookup(module, name, follows(i), seen),
                // A variant is no function of its type, and belongs where that is.
                Found::Item { module, name: of } => match self.associated.get(&(module, of.clone(), name.clone())) {
                    Some(&file) => return Found::Associated(file),
                    None => return Found::Item { module, name: of },
                },
                found => return found,
            };
        }
        at
    }

    /// A name in the scope of a module. A module and a function may share it: what is followed by more is the module.
    fn lookup(&self, module: usize, name: &str, more: bool, seen: &mut Seen) -> Found {
        let of = &self.modules[module];
        let child = of.children.get(name).map(|&child| Found::Module(child));
        let item = of.items.contains(name).then(|| Found::Item { module, name: name.to_string() });
        let imported = || {
            if !seen.insert((module, name.to_string())) {
                return None;
            }
            let named = of.imports.get(name).into_iter().flatten();
            let mut found: Vec<Found> = named.map(|path| self.resolve(module, path, more, seen)).collect();
            for glob in &of.globs {
                if let Found::Module(from) = self.resolve(module, glob, true, seen) {
                    found.push(self.lookup(from, name, more, seen));
                }
            }
            seen.remove(&(module, name.to_string()));
            found.into_iter().find(|found| *found != Found::Nowhere)
        };
        let found = if more { child.or(item).or_else(imported) } else { item.or_else(imported).or(child) };
        found.unwrap_or(Found::Nowhere)
    }
}

/// The names of what an item defines in its module.
fn names_of(item: &Item) -> Vec<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        // What a macro declares is there when it is called, as a rule below it.
        Item::Macro(ItemMacro { ident: Some(name), mac, .. }) => {
            let mut names = vec![name.to_string()];
            declared(mac.tokens.clone(), &mut names);
            return names;
        }
        // A macro that is called makes something of the names that it is given.
        Item::Macro(ItemMacro { ident: None, mac, .. }) => {
            let words = mac.tokens.clone().into_iter().filter_map(|token| match token {
                TokenTree::Ident(word) => Some(word.to_string()),
                TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => None,
            });
            return words.collect();
        }
        _ => return Vec::new(),
    };
    vec![name.to_string()]
}

/// The names that stand behind the words which declare an item.
fn declared(tokens: TokenStream, names: &mut Vec<String>) {
    const WORDS: [&str; 8] = ["const", "enum", "fn", "static", "struct", "trait", "type", "union"];
    let mut declares = false;
    for token in tokens {
        match token {
            TokenTree::Ident(word) if declares => {
                names.push(word.to_string());
                declares = false;
            }
            TokenTree::Ident(word) => declares = WORDS.contains(&word.to_string().as_str()),
            TokenTree::Group(group) => {
                declares = false;
                declared(group.stream(), names);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => declares = false,
        }
    }
}

/// Whether something is there for tests alone.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    fn says_test(tokens: TokenStream) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(word) => word == "test" || word == "doctest",
            TokenTree::Group(group) => says_test(group.stream()),
            TokenTree::Punct(_) | TokenTree::Literal(_) => false,
        })
    }
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .any(|attribute| attribute.meta.require_list().is_ok_and(|list| says_test(list.tokens.clone())))
}

/// Reads the items of a module.
struct Reader<'a> {
    source: &'a mut Source,
    module: usize,
    folder: &'a str,
    /// The type of the `impl` that is being read.
    of: Option<Vec<String>>,
}

impl Reader<'_> {
    fn add(&mut self, line: usize, mut names: Vec<String>, handed_on: bool) {
        if let (Some("Self"), Some(of)) = (names.first().map(String::as_str), &self.of) {
            names.splice(..1, of.iter().cloned());
        }
        self.source.paths.push(Path { module: self.module, line, names, handed_on });
    }

    fn import(&mut self, line: usize, tree: &UseTree, mut path: Vec<String>, handed_on: bool) {
        let name = match tree {
            UseTree::Path(tree) => {
                path.push(tree.ident.to_string());
                return self.import(line, &tree.tree, path, handed_on);
            }
            UseTree::Group(tree) => {
                return tree.items.iter().for_each(|tree| self.import(line, tree, path.clone(), handed_on));
            }
            UseTree::Glob(_) => {
                self.source.modules[self.module].globs.push(path.clone());
                return self.add(line, path, handed_on);
            }
            UseTree::Name(tree) if tree.ident == "self" => path.last().expect("`self` ends a path").clone(),
            UseTree::Name(tree) => {
                path.push(tree.ident.to_string());
                tree.ident.to_string()
            }
            UseTree::Rename(tree) => {
                path.extend((tree.ident != "self").then(|| tree.ident.to_string()));
                tree.rename.to_string()
            }
        };
        self.source.modules[self.module].imports.entry(name).or_default().push(path.clone());
        self.add(line, path, handed_on);
    }

    /// The paths among tokens that are not expressions. A single word may be anything and doesn't count.
    fn tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut line, mut colons) = (Vec::new(), 0, 0);
        for token in tokens {
            match token {
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Ident(word) if colons == 2 => {
                    path.push(word.to_string());
                    colons = 0;
                }
                other => {
                    self.end(&mut path, line);
                    colons = 0;
                    match other {
                        TokenTree::Ident(word) => {
                            line = word.span().start().line;
                            path.push(word.to_string());
                        }
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Punct(_) | TokenTree::Literal(_) => {}
                    }
                }
            }
        }
        self.end(&mut path, line);
    }

    fn end(&mut self, path: &mut Vec<String>, line: usize) {
        if path.len() > 1 {
            self.add(line, path.clone(), false);
        }
        path.clear();
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if is_for_tests(&item.attrs) {
            return;
        }
        let name = item.ident.to_string();
        let (inner, parent) = (format!("{}/{name}", self.folder), Some(self.module));
        let child = match &item.content {
            Some((_, items)) => {
                let file = self.source.modules[self.module].file;
                self.source.module(file, &inner, parent, items)
            }
            None => {
                let beside = format!("{inner}.rs");
                let there = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(&beside).is_file();
                let path = if there { beside } else { format!("{inner}/mod.rs") };
                self.source.file(path, &inner, parent)
            }
        };
        self.source.modules[self.module].children.insert(name, child);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_none() {
            let handed_on = !matches!(item.vis, Visibility::Inherited);
            self.import(item.use_token.span.start().line, &item.tree, Vec::new(), handed_on);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        self.of = match &*item.self_ty {
            Type::Path(of) if of.qself.is_none() => {
                Some(of.path.segments.iter().map(|segment| segment.ident.to_string()).collect())
            }
            _ => None,
        };
        if let (Some(of), None) = (&self.of, &item.trait_) {
            let names = item.items.iter().filter_map(|item| match item {
                ImplItem::Fn(item) => Some(item.sig.ident.to_string()),
                ImplItem::Const(item) => Some(item.ident.to_string()),
                _ => None,
            });
            let (module, of, names) = (self.module, of.clone(), names.collect());
            self.source.impls.push(Impl { module, of, names });
        }
        visit::visit_item_impl(self, item);
        self.of = None;
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.add(path.segments[0].ident.span().start().line, names, false);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        match call.parse_body_with(Punctuated::<Expr, Token![,]>::parse_terminated) {
            Ok(arguments) => arguments.iter().for_each(|argument| self.visit_expr(argument)),
            Err(_) => self.tokens(call.tokens.clone()),
        }
    }

    /// `pub(super)` and the like bring nothing in.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_attribute(&mut self, _: &'ast Attribute) {}
}
