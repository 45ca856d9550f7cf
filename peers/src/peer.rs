//! What a library has to do to be timed.

use crate::case::Case;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A library that is compared.
pub trait Peer {
    /// Its name and version.
    fn name(&self) -> String;

    /// What it runs on.
    fn device(&self) -> String;

    /// A case with its operands in place; `None` if the library can't do it.
    fn load(&self, case: &Case, operands: &[Vec<f32>]) -> Result<Option<Box<dyn Runner>>>;
}

/// A case that is loaded.
pub trait Runner {
    /// Runs it so many times and waits for the end of the last; every result is computed.
    fn run(&mut self, times: usize) -> Result<()>;

    /// The result, to be compared.
    fn output(&mut self) -> Result<Vec<f32>>;
}

/// The version of a dependency, from the lock file.
pub fn version(package: &str) -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{package}\"\n")));
    let version = entry.and_then(|entry| entry.lines().find_map(|line| line.strip_prefix("version = ")));
    version.map_or("unknown", |text| text.trim_matches('"'))
}
