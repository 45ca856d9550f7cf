//! What a library has to do to be timed.

use std::collections::BTreeMap;

use crate::case::{Case, Operand};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A library that is compared.
pub trait Peer {
    /// Its name and version.
    fn name(&self) -> String;

    /// What it runs on.
    fn device(&self) -> String;

    /// The adapter's name, if it runs on one.
    fn adapter(&self) -> Option<String> {
        None
    }

    /// A case with its operands in place; `None` if the library can't do it. Weights may be laid out as it likes them.
    fn load(&self, case: &Case, operands: Operands) -> Result<Option<Box<dyn Runner>>>;
}

/// A case that is loaded.
pub trait Runner {
    /// Runs it so many times and waits for the end of the last; every result is computed.
    fn run(&mut self, times: usize) -> Result<()>;

    /// The result, to be compared.
    fn output(&mut self) -> Result<Vec<f32>>;
}

/// The operands of a case by name.
pub struct Operands(BTreeMap<String, Operand>);

impl Operands {
    pub fn new(operands: Vec<Operand>) -> Self {
        Operands(operands.into_iter().map(|operand| (operand.name.clone(), operand)).collect())
    }

    /// Takes one out.
    pub fn take(&mut self, name: &str) -> Result<Operand> {
        self.0.remove(name).ok_or_else(|| format!("there is no operand {name}").into())
    }

    /// Those that were not taken.
    pub fn rest(self) -> impl Iterator<Item = Operand> {
        self.0.into_values()
    }

    /// Takes the lengths out, and gives the mask that they come to: `[batch, keys]`, whether a key is there.
    pub fn present(&mut self, keys: usize) -> Result<Vec<bool>> {
        let lengths = self.take("lengths")?.values;
        Ok(lengths.iter().flat_map(|&length| (0..keys).map(move |key| (key as f32) < length)).collect())
    }
}

/// A matrix on its side: libraries that multiply `x · w` want `[inputs, outputs]`.
pub fn transposed(matrix: Operand) -> Operand {
    let [rows, columns] = [matrix.shape[0], matrix.shape[1]];
    let values = (0..rows * columns).map(|at| matrix.values[at % rows * columns + at / rows]).collect();
    Operand { shape: vec![columns, rows], values, ..matrix }
}

/// The version of a dependency, from the lock file.
pub fn version(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{package}\"\n")));
    let version = entry.and_then(|entry| entry.lines().find_map(|line| line.strip_prefix("version = ")));
    version.map_or("unknown", |text| text.trim_matches('"'))
}
