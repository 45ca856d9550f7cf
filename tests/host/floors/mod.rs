//! The rules of ARCHITECTURE.md for what may stand on what, held against every path in the source.
//!
//! - **Floors**: a file names only what is defined in its own row of the table or on a floor below. The table is the one in
//!   ARCHITECTURE.md.
//! - **wgpu** is named by `src/gpu`, and by what stands above it.
//! - **Circles**: no two files take something from each other, directly or by way of others. A file takes from another
//!   what a path in its code leads to there, whoever hands it on. Handing on (`pub use`) takes nothing, nor does naming a
//!   module. So a `mod.rs` may present what its children define and call it; but then what the children share has a
//!   file of its own, and stands under both.
//!
//! [`imports`] says what of a file is looked at.

mod imports;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
};

use imports::{Named, Target};

/// Circles that are there, each by its files. None comes new; one that is opened leaves this list.
const CIRCLES: [&[&str]; 0] = [];

/// A row of the table: files and folders that share a floor and may name each other.
struct Row {
    floor: u32,
    places: Vec<String>,
}

impl Row {
    fn has(&self, file: &str) -> bool {
        self.places
            .iter()
            .any(|place| file == place || file.strip_prefix(place).is_some_and(|rest| rest.starts_with('/')))
    }
}

/// The rows of ARCHITECTURE.md that have a floor: `| 1 | `src/graph` | … |`.
fn table() -> Vec<Row> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/ARCHITECTURE.md")).expect("it is there");
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
        let floor = cells.next()?.parse().ok()?;
        let places = cells.next()?.split('`').skip(1).step_by(2).map(String::from).collect();
        Some(Row { floor, places })
    });
    rows.collect()
}

/// The row of a file.
fn row<'a>(table: &'a [Row], file: &str) -> &'a Row {
    let rows: Vec<&Row> = table.iter().filter(|row| row.has(file)).collect();
    assert!(rows.len() == 1, "{file} is in {} rows of the table in ARCHITECTURE.md, expected one", rows.len());
    rows[0]
}

#[test]
fn every_path_leads_to_its_own_floor_or_down() {
    let table = table();
    let (files, named) = imports::read("src/lib.rs");
    for row in &table {
        for place in &row.places {
            assert!(files.iter().any(|file| row.has(file)), "the table has `{place}`, which has no file");
        }
    }
    for file in &files {
        row(&table, file);
    }
    let mut faults = Vec::new();
    for Named { file, line, path, target, .. } in &named {
        let from = row(&table, file);
        let path = path.join("::");
        match target {
            Target::Item(to) | Target::Module(to) if !from.has(to) && from.floor <= row(&table, to).floor => {
                let above = row(&table, to).floor;
                faults.push(format!("{file}:{line} (floor {}) names {path} of {to} (floor {above})", from.floor));
            }
            Target::Nowhere => faults.push(format!("{file}:{line}: this test can't tell where {path} leads")),
            Target::Item(_) | Target::Module(_) | Target::Outside => {}
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // The reader has eyes: what stands above something was seen to name something below.
    for above in table.iter().filter(|row| row.floor > 0) {
        let down = |named: &&Named| matches!(&named.target, Target::Item(to) if !above.has(to));
        assert!(named.iter().filter(down).any(|named| above.has(&named.file)), "{:?} names nothing?", above.places);
    }
}

#[test]
fn only_the_engine_and_what_stands_on_it_name_wgpu() {
    let table = table();
    let engine = row(&table, "src/gpu/mod.rs");
    let (_, named) = imports::read("src/lib.rs");
    let below = |file: &str| !engine.has(file) && row(&table, file).floor <= engine.floor;
    let says = |named: &&Named| named.path.iter().any(|name| name == "wgpu");
    let faults: Vec<String> = named
        .iter()
        .filter(says)
        .filter(|named| below(&named.file))
        .map(|named| format!("{}:{} names {}", named.file, named.line, named.path.join("::")))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(named.iter().any(|named| engine.has(&named.file) && says(&named)), "the engine does not name wgpu?");
}

/// What each file takes from each other, by names.
type Takes<'a> = BTreeMap<&'a str, BTreeMap<&'a str, BTreeSet<String>>>;

fn takes(named: &[Named]) -> Takes<'_> {
    let mut takes = Takes::new();
    for Named { file, path, handed_on, target, .. } in named {
        if let Target::Item(from) = target
            && from != file
            && !handed_on
        {
            takes.entry(file).or_default().entry(from).or_default().insert(path.join("::"));
        }
    }
    takes
}

/// The shortest way from a file by what it takes back to itself.
fn circle<'a>(takes: &Takes<'a>, file: &'a str) -> Option<Vec<&'a str>> {
    let mut ways = VecDeque::from([vec![file]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for &from in takes.get(way[way.len() - 1]).into_iter().flat_map(BTreeMap::keys) {
            if from == file {
                return Some([&way[..], &[file]].concat());
            }
            if seen.insert(from) {
                ways.push_back([&way[..], &[from]].concat());
            }
        }
    }
    None
}

#[test]
fn no_files_take_from_each_other() {
    let mut faults = Vec::new();
    let mut known: BTreeSet<&str> = CIRCLES.concat().into_iter().collect();
    for root in ["src/lib.rs", "cli/src/main.rs"] {
        let (files, named) = imports::read(root);
        let takes = takes(&named);
        let mut told = BTreeSet::new();
        for file in &files {
            let Some(circle) = circle(&takes, file) else { continue };
            if known.remove(file.as_str()) || told.contains(file.as_str()) {
                continue;
            }
            for pair in circle.windows(2) {
                let names: Vec<&str> = takes[pair[0]][pair[1]].iter().map(String::as_str).collect();
                faults.push(format!("{} takes {} from {}", pair[0], names.join(", "), pair[1]));
            }
            faults.push(format!("so {file} is in a circle\n"));
            told.extend(circle);
        }
    }
    faults.extend(known.into_iter().map(|file| format!("{file} is in no circle any more: take it off the list")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
