//! Makes the table of shader modules, and a fingerprint of each family's, so that measurements of older ones are not taken
//! for theirs.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=shaders");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or(io::ErrorKind::NotFound)?).join("shaders");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?).join("shaders.rs");

    // By family, then by file.
    let mut families: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for folder in entries(&root)?.into_iter().filter(|path| path.is_dir()) {
        let files = entries(&folder)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "wesl"));
        let texts = files.map(|path| Ok((name(&path), fs::read_to_string(path)?)));
        families.insert(name(&folder), texts.collect::<io::Result<_>>()?);
    }

    let mut table = String::from("pub(super) const MODULES: &[Module] = &[\n");
    for (family, files) in &families {
        for file in files.keys() {
            let path = root.join(family).join(format!("{file}.wesl"));
            let _ = writeln!(
                table,
                "    Module {{ path: \"{family}::{file}\", file: \"{family}/{file}.wesl\", text: include_str!({path:?}) }},"
            );
        }
    }
    table += "];\n\npub(super) const FINGERPRINTS: &[(&str, &str)] = &[\n";
    for family in families.keys() {
        let mut hasher = DefaultHasher::new();
        for other in with_imported(family, &families) {
            for (file, text) in &families[other] {
                file.hash(&mut hasher);
                code(text).for_each(|line| line.hash(&mut hasher));
            }
        }
        let _ = writeln!(table, "    (\"{family}\", \"{:016x}\"),", hasher.finish());
    }
    table += "];\n";
    fs::write(out, table)
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A family and those from which it imports, or from which these import.
fn with_imported<'a>(family: &'a str, families: &'a BTreeMap<String, BTreeMap<String, String>>) -> BTreeSet<&'a str> {
    let (mut all, mut open) = (BTreeSet::new(), vec![family]);
    while let Some(next) = open.pop() {
        if families.contains_key(next) && all.insert(next) {
            let imports = families[next].values().flat_map(|text| text.lines());
            let paths = imports.filter_map(|line| line.trim_start().strip_prefix("import package::"));
            open.extend(paths.filter_map(|path| path.split("::").next()));
        }
    }
    all
}

/// The lines that the specialiser and the compiler see: a change of a comment drops no measurement.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && (!line.starts_with("//") || line.starts_with("// @")))
}
