//! Cases: small graphs with inputs, to hold kernels against the reference.
//!
//! ```
//! use tilewise::verify::cases::{self, Level};
//! for case in cases::of_family("softmax", Level::Quick, 1)? {
//!     let outputs = tilewise::reference::evaluate(&case.graph, &case.inputs)?; // or what is to be tested
//!     case.expected()?.compare_named(&outputs).map_err(|m| format!("{case}: {m}"))?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Sizes are ugly on purpose: 0, 1, primes, one less and one more than a tile, two tiles and three. Data is exact first
//! (small integers, whose results every order of additions gets right to the bit), then random.

mod append;
mod attention;
mod attention_merge;
mod case;
mod copy;
mod dequantize;
mod gather;
mod matmul;
mod norm;
mod pointwise;
mod reduce;
mod rotary;
mod softmax;

use case::Cases;
pub use case::{Case, Level};

use crate::{Error, Result};

/// The families that have cases.
pub const FAMILIES: [&str; 15] = [
    "matmul",
    "attention",
    "attention_merge",
    "norm",
    "softmax",
    "reduce",
    "argmax",
    "pointwise",
    "copy",
    "concat",
    "pad",
    "dequantize",
    "gather",
    "rotary",
    "append",
];

/// The cases of a family. Another seed draws other numbers, and other options where those are drawn.
pub fn of_family(family: &str, level: Level, seed: u64) -> Result<Vec<Case>> {
    let all = Cases::new(level, seed);
    let cases = match family {
        "matmul" => matmul::cases(all),
        "attention" => attention::cases(all),
        "attention_merge" => attention_merge::cases(all),
        "norm" => norm::cases(all),
        "softmax" => softmax::cases(all),
        "reduce" => reduce::reduce_cases(all),
        "argmax" => reduce::argmax_cases(all),
        "pointwise" => pointwise::cases(all),
        "copy" => copy::copy_cases(all),
        "concat" => copy::concat_cases(all),
        "pad" => copy::pad_cases(all),
        "dequantize" => dequantize::cases(all),
        "gather" => gather::cases(all),
        "rotary" => rotary::cases(all),
        "append" => append::cases(all),
        _ => Err(Error::op("cases", format!("there is no family `{family}`; there are {}", FAMILIES.join(", ")))),
    }?;
    Ok(cases.cases)
}

/// The cases of every family.
pub fn all(level: Level, seed: u64) -> Result<Vec<Case>> {
    let families = FAMILIES.iter().map(|family| of_family(family, level, seed)).collect::<Result<Vec<_>>>()?;
    Ok(families.into_iter().flatten().collect())
}
