//! What each kernel's modules are, by their hashes: a change that alters shaders says which.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    hash::Hasher,
};

use fnv::FnvHasher;

use crate::shaders::specialisations;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host/fingerprints.txt");

/// The declarations at the top level of a module, without comments, in the order of the alphabet. (Two modules that differ in
/// comments, white space or the order of declarations are one program.)
fn declarations(wgsl: &str) -> Vec<String> {
    let (mut all, mut current, mut depth) = (Vec::new(), String::new(), 0usize);
    let code = wgsl.lines().map(|line| line.split("//").next().unwrap_or_default());
    for word in code.flat_map(str::split_whitespace) {
        current += word;
        current.push(' ');
        depth += word.matches('{').count();
        depth -= word.matches('}').count();
        if depth == 0 && word.ends_with([';', '}']) {
            all.push(std::mem::take(&mut current));
        }
    }
    assert!(current.is_empty(), "a declaration without an end: {current}");
    all.sort_unstable();
    all
}

/// A line for each kernel and variant: how many modules, and a hash of them all.
fn fingerprints() -> BTreeMap<String, String> {
    let mut modules: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for specialised in specialisations() {
        let mut hasher = FnvHasher::default();
        declarations(&specialised.wgsl).iter().for_each(|declaration| hasher.write(declaration.as_bytes()));
        let name = format!("{} {}", specialised.kernel, specialised.variant);
        modules.entry(name).or_default().push(hasher.finish());
    }
    let line = |(name, mut hashes): (String, Vec<u64>)| {
        hashes.sort_unstable();
        hashes.dedup();
        let mut hasher = FnvHasher::default();
        hashes.iter().for_each(|&hash| hasher.write_u64(hash.to_le()));
        (name, format!("{} {:016x}", hashes.len(), hasher.finish()))
    };
    modules.into_iter().map(line).collect()
}

/// If shaders were meant to change: `BLESS=1 cargo test --test host fingerprints` writes the list anew, and the commit shows
/// which kernels changed.
#[test]
fn kernels_are_what_they_were() {
    let now = fingerprints();
    if std::env::var_os("BLESS").is_some() {
        let text = now.iter().fold(String::new(), |mut text, (name, print)| {
            let _ = writeln!(text, "{name} {print}");
            text
        });
        fs::write(FILE, text).expect("the list can be written");
    }
    let text = fs::read_to_string(FILE).expect("the list is there");
    let before: BTreeMap<String, String> = text
        .lines()
        .map(|line| {
            let count = line.rsplitn(3, ' ').last().map_or(0, str::len);
            (line[..count].to_string(), line[count..].trim_start().to_string())
        })
        .collect();
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let changed: Vec<&String> = names.into_iter().filter(|name| before.get(*name) != now.get(*name)).collect();
    assert!(
        changed.is_empty(),
        "other modules than tests/host/fingerprints.txt has (BLESS=1 writes it anew): {changed:#?}"
    );
}
