//! What a dropout takes and gives.

use super::operand::{Operand, float};
use crate::{
    Error, Result,
    tensor::{DType, Shape},
};

const OP: &str = "dropout";
/// Words of a seed.
pub(crate) const SEED_WORDS: usize = 4;

/// The dtype and shape of the result.
pub(super) fn infer(operands: &[Operand<'_>], p: f64) -> Result<Vec<(DType, Shape)>> {
    let ((dtype, shape), (seed_type, seed)) = (float(OP, "x", operands[0])?, operands[1]);
    match seed_type {
        DType::I32 | DType::U32 => {}
        DType::F32 | DType::F16 | DType::BF16 | DType::Bool => {
            return Err(Error::dtype(OP, "seed", seed_type, "i32 or u32"));
        }
    }
    if *seed != Shape::from([SEED_WORDS]) {
        let expected = "[4]: two words of the key (a seed) and two of the counter (a step's number)";
        return Err(Error::shape(OP, "seed", seed, expected));
    }
    if !(0.0..=1.0).contains(&p) {
        return Err(Error::op(OP, format!("p is {p}, expected a probability from 0 to 1")));
    }
    Ok(vec![(dtype, shape.clone())])
}
