//! Weights in four or eight bits, with a scale for each row or for groups of a row.

use std::fmt;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use super::{DType, Data, Shape, Tensor};
use crate::{Error, Result};

/// The width of a quantised number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Bits {
    /// 0 … 15, eight to a word.
    #[serde(rename = "4")]
    Four,
    /// 0 … 255, four to a word.
    #[serde(rename = "8")]
    Eight,
}

impl Bits {
    /// The number of bits.
    pub const fn count(self) -> u32 {
        match self {
            Bits::Four => 4,
            Bits::Eight => 8,
        }
    }

    /// The largest number.
    pub const fn largest(self) -> u32 {
        (1 << self.count()) - 1
    }

    /// The zero point where none is given: the middle of the range.
    pub const fn middle(self) -> u32 {
        1 << (self.count() - 1)
    }

    /// Numbers in a 32-bit word; the first in the lowest bits.
    pub const fn per_word(self) -> usize {
        32 / self.count() as usize
    }
}

/// The layout of a quantised weight `[rows, columns]`:
/// `w[n, k] = scale[n, k / group] · (q[n, k] − zero[n, k / group])`.
///
/// | tensor | dtype | shape |
/// |---|---|---|
/// | q | 32-bit words | `[rows, words]`: each row in whole groups and words; what is past `columns` is not read |
/// | scale | f32, f16 or bf16 | `[rows, groups]` |
/// | zero | 32-bit words | `[⌈rows · groups / numbers in a word⌉]`: in the order of `scale`, packed as q |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Packing {
    /// Bits of a number.
    pub bits: Bits,
    /// Columns that share a scale: a power of two from 16 on. `None`: all of a row.
    #[serde(default)]
    pub group: Option<usize>,
    /// Whether there are zero points. Without, zero is 8 or 128, in the middle.
    #[serde(default)]
    pub zero: bool,
    /// Columns of the weight.
    pub columns: usize,
}

impl Packing {
    /// Whether kernels take this packing.
    ///
    /// ```
    /// use tilewise::quantize::Quantization;
    /// assert!(Quantization::int4(32).packing(128).check().is_ok());
    /// let error = Quantization::int4(24).packing(128).check().unwrap_err();
    /// assert_eq!(error.to_string(), "dequantize: a group of 24 columns, expected a power of two from 16 on");
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if a group is no power of two from 16 on, if there are zero points but no groups, or if there are more than
    /// 2³⁰ columns.
    pub fn check(&self) -> Result<()> {
        let fail = |message: String| Err(Error::op("dequantize", message));
        // Rows are rounded up to whole groups.
        let most = 1 << 30;
        if self.columns > most || self.group.is_some_and(|group| group > most) {
            let group = self.group.map_or(String::new(), |group| format!(" in groups of {group}"));
            return fail(format!("{} columns{group}, expected at most {most}", self.columns));
        }
        match self.group {
            Some(group) if group < 16 || !group.is_power_of_two() => {
                fail(format!("a group of {group} columns, expected a power of two from 16 on"))
            }
            None if self.zero => fail(
                "zero points need groups of columns (32, 64 or 128 are usual), and there is one scale a row".into(),
            ),
            _ => Ok(()),
        }
    }

    /// Numbers of a row in memory: its columns in whole groups and words.
    pub fn pitch(&self) -> usize {
        self.columns.next_multiple_of(self.group.unwrap_or(self.bits.per_word()))
    }

    /// Words of a row.
    pub fn words(&self) -> usize {
        self.pitch() / self.bits.per_word()
    }

    /// Scales of a row.
    pub fn groups(&self) -> usize {
        self.group.map_or(1, |group| self.columns.div_ceil(group))
    }

    /// Bytes of a weight with this many rows and scales of this dtype.
    pub fn bytes(&self, rows: usize, scales: DType) -> u64 {
        let zeros = if self.zero { self.zero_words(rows) } else { 0 };
        (4 * (rows * self.words() + zeros) + rows * self.groups() * scales.bytes()) as u64
    }

    /// Words of the zero points of this many rows.
    pub fn zero_words(&self, rows: usize) -> usize {
        (rows * self.groups()).div_ceil(self.bits.per_word())
    }
}

/// `int4:128+zero`: bits, group and zero points.
impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "int{}", self.bits.count())?;
        if let Some(group) = self.group {
            write!(f, ":{group}")?;
        }
        if self.zero { write!(f, "+zero") } else { Ok(()) }
    }
}

/// A way to quantise weights: what [`Packing`] says, and the dtype of the scales.
///
/// The rounding is to nearest, so each weight is off by at most half its scale (and one rounding of f32). With zero
/// points a scale is 1/15 or 1/255 of the span of its group's weights, 0 included; without, 1/7 or 1/127 of the largest
/// magnitude.
///
/// ```
/// use tilewise::{Tensor, quantize::Quantization};
/// let weight = Tensor::new([2, 4], vec![0.5f32, -1.0, 0.25, 0.0, 3.0, -7.0, 1.0, 2.0])?;
/// let quantized = Quantization::int8().quantize(&weight)?;
/// assert_eq!(quantized.scale.as_f32(), Some(&[1.0 / 127.0, 7.0 / 127.0][..]));
/// let near = quantized.dequantize()?;
/// for (w, near) in weight.as_f32().into_iter().flatten().zip(near.as_f32().into_iter().flatten()) {
///     assert!((w - near).abs() <= 3.5 / 127.0 * 1.001);
/// }
/// # Ok::<(), tilewise::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quantization {
    /// Bits of a number.
    pub bits: Bits,
    /// Columns that share a scale: a power of two from 16 on. `None`: all of a row.
    pub group: Option<usize>,
    /// Zero points, so that a group's numbers span from its least to its largest weight.
    pub zero: bool,
    /// The dtype of the scales, f32, f16 or bf16. Narrow ones are rounded up, so that no weight is out of reach.
    pub scales: DType,
}

/// A quantised weight: the tensors that [`Packing`] describes.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedWeight {
    /// The layout of the numbers.
    pub packing: Packing,
    /// The numbers.
    pub words: Tensor,
    /// The scales.
    pub scale: Tensor,
    /// The zero points, if the packing has them.
    pub zero: Option<Tensor>,
}

impl Quantization {
    /// Eight bits, one scale a row.
    pub fn int8() -> Self {
        Quantization { bits: Bits::Eight, group: None, zero: false, scales: DType::F32 }
    }

    /// Four bits, a scale for each `group` columns.
    pub fn int4(group: usize) -> Self {
        Quantization { bits: Bits::Four, group: Some(group), zero: false, scales: DType::F32 }
    }

    /// A scale for each `group` columns.
    pub fn group(self, group: usize) -> Self {
        Quantization { group: Some(group), ..self }
    }

    /// With zero points.
    pub fn asymmetric(self) -> Self {
        Quantization { zero: true, ..self }
    }

    /// Scales of this dtype.
    pub fn scales(self, dtype: DType) -> Self {
        Quantization { scales: dtype, ..self }
    }

    /// The layout of a weight with this many columns.
    pub fn packing(&self, columns: usize) -> Packing {
        let Quantization { bits, group, zero, .. } = *self;
        Packing { bits, group, zero, columns }
    }

    /// Quantises a float weight `[rows, columns]`, as a linear layer has it: `[out, in]`.
    ///
    /// ```
    /// use tilewise::{Tensor, quantize::Quantization};
    /// let weight = Tensor::new([1, 4], vec![1.27f32, -0.64, 0.0, 0.01])?;
    /// let quantized = Quantization::int8().quantize(&weight)?;
    /// // 127, −64, 0 and 1, counted from 128; the first in the lowest bits.
    /// assert_eq!(quantized.words.as_u32(), Some(&[u32::from_le_bytes([255, 64, 128, 129])][..]));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the weight doesn't have two axes, is no float, or has an infinity or NaN; if the scales are no
    /// float or can't hold a scale; and as [`Packing::check`].
    pub fn quantize(&self, weight: &Tensor) -> Result<QuantizedWeight> {
        const OP: &str = "quantize";
        let &[rows, columns] = &weight.shape()[..] else {
            return Err(Error::op(OP, format!("the weight is {}, expected [rows, columns]", weight.shape())));
        };
        let stranger = |name: &str, dtype: DType| Error::dtype(OP, name, dtype, "f32, f16 or bf16");
        for (name, dtype) in [("weight", weight.dtype()), ("scales", self.scales)] {
            if !dtype.is_float() {
                return Err(stranger(name, dtype));
            }
        }
        let packing = self.packing(columns);
        packing.check()?;
        let weights = weight.to_f64();
        if let Some(at) = weights.iter().position(|w| !w.is_finite()) {
            let message = format!("weight [{}, {}] is {}", at / columns, at % columns, weights[at]);
            return Err(Error::op(OP, message));
        }
        let (groups, group) = (packing.groups(), self.group.unwrap_or(columns));
        let mut words = vec![0u32; rows * packing.words()];
        let mut zeros = vec![0u32; packing.zero_words(rows)];
        let mut scales = Vec::with_capacity(rows * groups);
        for (n, row) in weights.chunks_exact(columns.max(1)).enumerate() {
            for g in 0..groups {
                let first = g * group;
                let part = &row[first..columns.min(first + group)];
                let (scale, zero) = self.scale_of(part)?;
                if self.zero {
                    put(&mut zeros, self.bits, n * groups + g, zero);
                }
                for (i, &w) in part.iter().enumerate() {
                    let steps = if scale == 0.0 { 0.0 } else { (w / scale).round_ties_even() };
                    let number = (steps + f64::from(zero)).clamp(0.0, f64::from(self.bits.largest()));
                    put(&mut words, self.bits, n * packing.pitch() + first + i, number as u32);
                }
                scales.push(scale);
            }
        }
        let scale = Data::floats(self.scales, scales.into_iter()).ok_or_else(|| stranger("scales", self.scales))?;
        let zeros = self.zero.then(|| Tensor::new([zeros.len()], zeros)).transpose()?;
        Ok(QuantizedWeight {
            packing,
            words: Tensor::new([rows, packing.words()], words)?,
            scale: Tensor::new([rows, groups], scale)?,
            zero: zeros,
        })
    }

    /// The scale and the zero point of a group, the scale as it will be stored.
    fn scale_of(&self, weights: &[f64]) -> Result<(f64, u32)> {
        let low = weights.iter().copied().fold(0.0, f64::min);
        let high = weights.iter().copied().fold(0.0, f64::max);
        let (span, steps) =
            if self.zero { (high - low, self.bits.largest()) } else { (high.max(-low), self.bits.middle() - 1) };
        let scale = self.stored_scale(span / f64::from(steps));
        if !scale.is_finite() {
            let message = format!("weights up to {} need a scale that {} can't hold", high.max(-low), self.scales);
            return Err(Error::op("quantize", message));
        }
        let zero = match self.zero {
            _ if scale == 0.0 => self.bits.middle(),
            true => (-low / scale).round_ties_even() as u32,
            false => self.bits.middle(),
        };
        Ok((scale, zero))
    }

    /// The least number of the scales' dtype that is not below `scale`; f32 is near enough as it is.
    fn stored_scale(&self, scale: f64) -> f64 {
        match self.scales {
            DType::F16 => {
                let near = f16::from_f64(scale);
                let bits = near.to_bits() + u16::from(near.to_f64() < scale);
                f16::from_bits(bits).to_f64()
            }
            DType::BF16 => {
                let near = bf16::from_f64(scale);
                let bits = near.to_bits() + u16::from(near.to_f64() < scale);
                bf16::from_bits(bits).to_f64()
            }
            // What is no float was refused before.
            DType::F32 | DType::I32 | DType::U32 | DType::Bool => f64::from(scale as f32),
        }
    }
}

impl QuantizedWeight {
    /// The weight `[rows, columns]` that it stands for, in f32.
    ///
    /// ```
    /// use tilewise::{Tensor, quantize::Quantization};
    /// let weight = Tensor::new([1, 4], vec![1.27f32, -0.64, 0.0, 0.01])?;
    /// let near = Quantization::int8().quantize(&weight)?.dequantize()?;
    /// assert!(near.to_f64().iter().zip(weight.to_f64()).all(|(near, w)| (near - w).abs() < 1e-6));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the tensors don't have the dtypes and shapes that the packing asks for, and as
    /// [`Packing::check`].
    pub fn dequantize(&self) -> Result<Tensor> {
        let rows = self.check()?;
        let Packing { bits, group, columns, .. } = self.packing;
        let groups = self.packing.groups();
        let (words, scale) = (self.words.as_u32().unwrap_or_default(), self.scale.to_f64());
        let zeros = self.zero.as_ref().and_then(Tensor::as_u32);
        let weight = (0..rows * columns).map(|at| {
            let (n, k) = (at / columns, at % columns);
            let g = n * groups + group.map_or(0, |group| k / group);
            let zero = zeros.map_or(bits.middle(), |zeros| take(zeros, bits, g));
            let steps = f64::from(take(words, bits, n * self.packing.pitch() + k)) - f64::from(zero);
            (scale[g] * steps) as f32
        });
        Tensor::new(Shape::from([rows, columns]), weight.collect::<Vec<_>>())
    }

    /// The number of rows, if the tensors are what the packing asks for: the fields are public.
    fn check(&self) -> Result<usize> {
        const OP: &str = "dequantize";
        let packing = self.packing;
        packing.check()?;
        let rows = self.words.shape().first().copied().unwrap_or(0);
        if packing.zero != self.zero.is_some() {
            let given = if packing.zero { "missing" } else { "given" };
            return Err(Error::op(OP, format!("the packing is {packing}, and zero points are {given}")));
        }
        let scale = if self.scale.dtype().is_float() { self.scale.dtype() } else { DType::F32 };
        let expected = [
            ("words", Some(&self.words), DType::U32, Shape::from([rows, packing.words()])),
            ("scale", Some(&self.scale), scale, Shape::from([rows, packing.groups()])),
            ("zero", self.zero.as_ref(), DType::U32, Shape::from([packing.zero_words(rows)])),
        ];
        for (name, tensor, dtype, shape) in expected {
            if let Some(tensor) = tensor
                && (tensor.dtype(), tensor.shape()) != (dtype, &shape)
            {
                let given = format!("{} {}", tensor.dtype(), tensor.shape());
                return Err(Error::op(OP, format!("`{name}` is {given}, {packing} needs {dtype} {shape}")));
            }
        }
        Ok(rows)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        let tensors = [Some(&self.words), Some(&self.scale), self.zero.as_ref()];
        tensors.into_iter().flatten().map(|tensor| tensor.as_bytes().len()).sum()
    }
}

fn put(words: &mut [u32], bits: Bits, at: usize, number: u32) {
    words[at / bits.per_word()] |= number << (bits.count() as usize * (at % bits.per_word()));
}

fn take(words: &[u32], bits: Bits, at: usize) -> u32 {
    (words[at / bits.per_word()] >> (bits.count() as usize * (at % bits.per_word()))) & bits.largest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_that_are_not_those_of_the_packing_are_refused() {
        let weight = Tensor::new([3, 40], vec![0.5f32; 120]).expect("fits");
        let good = Quantization::int4(32).asymmetric().quantize(&weight).expect("finite");
        good.dequantize().expect("as it was made");
        let other = |change: fn(&mut QuantizedWeight)| {
            let mut weight = good.clone();
            change(&mut weight);
            weight.dequantize().expect_err("does not fit").to_string()
        };
        type Change = fn(&mut QuantizedWeight);
        let cases: [(Change, &str); 6] = [
            (|w| w.words = Tensor::scalar(1.0), "`words` is f32 [], int4:32+zero needs u32 [0, 8]"),
            (|w| w.scale = Tensor::scalar(1.0), "`scale` is f32 [], int4:32+zero needs f32 [3, 2]"),
            (|w| w.zero = Some(w.words.clone()), "`zero` is u32 [3, 8], int4:32+zero needs u32 [1]"),
            (|w| w.zero = None, "the packing is int4:32+zero, and zero points are missing"),
            (|w| w.packing.group = Some(0), "a group of 0 columns"),
            (|w| w.packing.columns = 65, "`words` is u32 [3, 8], int4:32+zero needs u32 [3, 12]"),
        ];
        for (change, expected) in cases {
            let message = other(change);
            assert!(message.contains(expected), "{message}");
        }
    }
}
