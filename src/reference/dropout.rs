//! Dropout, and the random words that it draws. Twins: `src/kernel/pointwise/`, `shaders/shared/philox.wesl`,
//! `tests/device/dropout.rs`.

use super::{Array, Real, Value, shapes::result_shape};
use crate::{DType, Error, Result, graph::Op};

/// Multipliers of the words 0 and 2, and what the words of the key grow by.
const MULTIPLIERS: [u64; 2] = [0xd251_1f53, 0xcd9e_8d57];
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// Four random words of a counter and a key: Philox 4×32-10 (Salmon et al., 2011), lowest words first, as Random123 has it.
///
/// ```
/// use tilewise::reference::philox;
/// assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
/// ```
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut counter, mut key) = (counter, key);
    for _ in 0..10 {
        let [first, second] = [MULTIPLIERS[0] * u64::from(counter[0]), MULTIPLIERS[1] * u64::from(counter[2])];
        let (high, low) = (|wide: u64| (wide >> 32) as u32, |wide: u64| wide as u32);
        counter = [high(second) ^ counter[1] ^ key[0], low(second), high(first) ^ counter[3] ^ key[1], low(first)];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// `x_i·keep_i/(1 − p)`: element i is kept if its word is not under p·2³², rounded. See [`Op::Dropout`].
///
/// ```
/// use tilewise::reference::{Array, Value, dropout};
/// let x = Array::new([5], vec![1.0, 2.0, 3.0, 4.0, 5.0])?;
/// let seed = Value::<f64>::U32(Array::new([4], vec![0; 4])?);
/// // The words are 0x6627…, 0xe169…, 0xbc57…, 0x9b00…, and 0xf8e4… for the second block: the first is under ½.
/// assert_eq!(dropout(&x, &seed, 0.5, 0)?.data(), [0.0, 4.0, 6.0, 8.0, 10.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if the seed is not i32 or u32 `[4]`, or if p is no number from 0 to 1.
pub fn dropout<R: Real>(x: &Array<R>, seed: &Value<R>, p: f64, stream: u32) -> Result<Array<R>> {
    let op = Op::Dropout { p, stream };
    result_shape(&op, &[(DType::F32, x.shape()), (seed.dtype(), seed.shape())])?;
    let seed: Vec<u32> = match seed {
        Value::U32(seed) => seed.data().to_vec(),
        Value::I32(seed) => seed.data().iter().map(|&word| word as u32).collect(),
        Value::Float { .. } | Value::Bool(_) => {
            return Err(Error::dtype(op.name(), "seed", seed.dtype(), "i32 or u32"));
        }
    };
    let key = [seed[0], seed[1]];
    let threshold = (p * 4_294_967_296.0).round();
    let factor = if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 };
    let blocks = x.data().chunks(4).zip(0u32..);
    let y = blocks.flat_map(|(block, number)| {
        let words = philox([number, stream, seed[2], seed[3]], key);
        block.iter().zip(words).map(move |(&x, word)| x * R::of(if f64::from(word) < threshold { 0.0 } else { factor }))
    });
    Array::new(x.shape().clone(), y.collect())
}
