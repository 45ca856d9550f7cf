//! Cases: small graphs with inputs, to compare kernels with the reference.
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
mod attention_grad;
mod attention_merge;
mod case;
mod copy;
mod cross_entropy;
mod dequantize;
mod gather;
mod matmul;
mod norm;
mod pointwise;
mod reduce;
mod rotary;
mod scatter_add;
mod softmax;

use case::Cases;
pub use case::{Case, Level};

use crate::{
    Error, Result,
    kernel::{FAMILIES, Family},
};

/// The cases of a family. Another seed draws other numbers, and other options where those are drawn.
///
/// # Errors
/// [`Error::Op`] if there is no family of this name.
pub fn of_family(family: &str, level: Level, seed: u64) -> Result<Vec<Case>> {
    let all = Cases::new(level, seed);
    let Some(family) = Family::named(family) else {
        return Err(Error::op("cases", format!("there is no family `{family}`; there are {}", FAMILIES.join(", "))));
    };
    let cases = match family {
        Family::Append => append::cases(all),
        Family::Argmax => reduce::argmax_cases(all),
        Family::Attention => attention::cases(all),
        Family::AttentionGrad => attention_grad::cases(all),
        Family::AttentionMerge => attention_merge::cases(all),
        Family::Concat => copy::concat_cases(all),
        Family::Copy => copy::copy_cases(all),
        Family::CrossEntropy => cross_entropy::cases(all),
        Family::Dequantize => dequantize::cases(all),
        Family::Gather => gather::cases(all),
        Family::Matmul => matmul::cases(all),
        Family::Norm => norm::cases(all),
        Family::Pad => copy::pad_cases(all),
        Family::Pointwise => pointwise::cases(all),
        Family::Reduce => reduce::reduce_cases(all),
        Family::Rotary => rotary::cases(all),
        Family::ScatterAdd => scatter_add::cases(all),
        Family::Softmax => softmax::cases(all),
    }?;
    Ok(cases.cases)
}

/// The cases of every family.
///
/// # Errors
/// None: it returns a `Result` because the graphs are built with a builder that can fail.
pub fn all(level: Level, seed: u64) -> Result<Vec<Case>> {
    let families = FAMILIES.iter().map(|family| of_family(family, level, seed)).collect::<Result<Vec<_>>>()?;
    Ok(families.into_iter().flatten().collect())
}
