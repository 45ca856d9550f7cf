use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use crate::DType;

/// The arithmetic of an evaluation: `f64` for the reference, `f32` for the plain evaluation it is measured against.
///
/// The `f32` evaluation rounds after every operation, and to its dtype where a value is stored. The `f64` evaluation
/// rounds nothing but casts.
pub trait Real:
    Copy
    + Debug
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Neg<Output = Self>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + AddAssign
{
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// The nearest number of this type.
    fn of(x: f64) -> Self;
    /// The same number as f64.
    fn wide(self) -> f64;
    /// The result as a value of `dtype` holds it.
    fn stored(self, dtype: DType) -> Self;
    /// eˣ
    fn exp(self) -> Self;
    /// ln x
    fn ln(self) -> Self;
    /// ln(1 + x)
    fn ln_1p(self) -> Self;
    /// √x
    fn sqrt(self) -> Self;
    /// xʸ
    fn powf(self, y: Self) -> Self;
    /// tanh x
    fn tanh(self) -> Self;
    /// sin x
    fn sin(self) -> Self;
    /// cos x
    fn cos(self) -> Self;
    /// The error function, 2/√π · ∫₀ˣ e^(−t²) dt.
    fn erf(self) -> Self;
    /// 1 − erf x, accurate where erf x is near 1.
    fn erfc(self) -> Self;
    /// |x|
    fn abs(self) -> Self;
    /// ⌊x⌋
    fn floor(self) -> Self;
    /// ⌈x⌉
    fn ceil(self) -> Self;
    /// The nearest integer, halves to even.
    fn round(self) -> Self;

    /// Whether it is no number.
    fn is_nan(self) -> bool {
        self.wide().is_nan()
    }

    /// The larger of two, and a NaN if one of them is.
    fn larger(self, other: Self) -> Self {
        if self > other || self.is_nan() { self } else { other }
    }

    /// The smaller of two, and a NaN if one of them is.
    fn smaller(self, other: Self) -> Self {
        if self < other || self.is_nan() { self } else { other }
    }
}

macro_rules! real {
    ($t:ty, $erf:path, $erfc:path, $stored:expr) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            fn of(x: f64) -> Self {
                x as $t
            }
            fn wide(self) -> f64 {
                f64::from(self)
            }
            fn stored(self, dtype: DType) -> Self {
                $stored(self, dtype)
            }
            fn exp(self) -> Self {
                <$t>::exp(self)
            }
            fn ln(self) -> Self {
                <$t>::ln(self)
            }
            fn ln_1p(self) -> Self {
                <$t>::ln_1p(self)
            }
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            fn powf(self, y: Self) -> Self {
                <$t>::powf(self, y)
            }
            fn tanh(self) -> Self {
                <$t>::tanh(self)
            }
            fn sin(self) -> Self {
                <$t>::sin(self)
            }
            fn cos(self) -> Self {
                <$t>::cos(self)
            }
            fn erf(self) -> Self {
                $erf(self)
            }
            fn erfc(self) -> Self {
                $erfc(self)
            }
            fn abs(self) -> Self {
                <$t>::abs(self)
            }
            fn floor(self) -> Self {
                <$t>::floor(self)
            }
            fn ceil(self) -> Self {
                <$t>::ceil(self)
            }
            fn round(self) -> Self {
                <$t>::round_ties_even(self)
            }
        }
    };
}

real!(f64, libm::erf, libm::erfc, |x: f64, _| x);
real!(f32, libm::erff, libm::erfcf, |x: f32, dtype| round_to(f64::from(x), dtype) as f32);

/// The nearest number that a floating-point dtype can hold, in one rounding, ties to even; for other dtypes the number.
pub(super) fn round_to(x: f64, dtype: DType) -> f64 {
    // Bits of precision, the exponent of the smallest normal number, and the largest number.
    let (precision, least, largest) = match dtype {
        DType::F16 => (11, -14, 65504.0),
        DType::BF16 => (8, -126, f64::from(half::bf16::MAX)),
        DType::F32 => return f64::from(x as f32),
        DType::I32 | DType::U32 | DType::Bool => return x,
    };
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let exponent = (((x.to_bits() >> 52) & 0x7ff) as i32 - 1023).max(least);
    let spacing = f64::powi(2.0, exponent - (precision - 1));
    let rounded = (x / spacing).round_ties_even() * spacing;
    if rounded.abs() > largest { f64::INFINITY.copysign(x) } else { rounded }
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    #[test]
    fn every_narrow_number_and_every_midpoint_rounds_to_even() {
        let check = |dtype, bits: u16, value: f64, next: f64| {
            assert_eq!(round_to(value, dtype), value, "{dtype} {bits:#x}");
            if next.is_finite() {
                let even = if bits & 1 == 0 { value } else { next };
                let middle = (value + next) / 2.0;
                assert_eq!(round_to(middle, dtype), even, "{dtype} {bits:#x}");
                assert_eq!(round_to(middle.next_up(), dtype), next, "{dtype} {bits:#x}");
                assert_eq!(round_to(-middle.next_down(), dtype), -value, "{dtype} {bits:#x}");
            }
        };
        for bits in 0..f16::INFINITY.to_bits() {
            check(DType::F16, bits, f16::from_bits(bits).to_f64(), f16::from_bits(bits + 1).to_f64());
        }
        for bits in 0..bf16::INFINITY.to_bits() {
            check(DType::BF16, bits, bf16::from_bits(bits).to_f64(), bf16::from_bits(bits + 1).to_f64());
        }
        assert_eq!(round_to(65519.99, DType::F16), 65504.0);
        assert_eq!(round_to(-65520.0, DType::F16), f64::NEG_INFINITY);
        assert!(round_to(f64::NAN, DType::F16).is_nan());
    }
}
