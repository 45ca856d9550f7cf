//! Rotary positions and the ways to stretch them.

use std::f64::consts::TAU;

use crate::{Error, Graph, Result, Shape, Tensor, ValueId};

/// Rotary positions (Su et al., 2021): pair i of a head's first R features turns by the angle `p · f_i` at position p, with
/// `f_i = base^(−2i/R)` before scaling.
///
/// ```
/// use tilewise::nn::{Rope, RopeScaling};
/// let rope = Rope::new(10_000.0);
/// assert_eq!(rope.frequencies(4, 1)?, [1.0, 0.01]);
/// let squeezed = Rope { scaling: RopeScaling::Linear { factor: 2.0 }, ..rope };
/// assert_eq!(squeezed.frequencies(4, 1)?, [0.5, 0.005]);
/// # Ok::<(), tilewise::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// 10,000 in the paper; more for longer contexts (`rope_theta`).
    pub base: f64,
    /// The part of a head's features that turns: R = ⌊part · D⌋, the first ones; the others stay (`partial_rotary_factor`).
    pub part: f64,
    /// How frequencies are changed for sequences longer than those of the training.
    pub scaling: RopeScaling,
}

/// How the frequencies of rotary positions are changed for long sequences: `rope_type` in files of `transformers`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all (`default`).
    None,
    /// All positions are squeezed: `f_i / factor` (Chen et al., 2023).
    Linear {
        /// How much longer sequences may be.
        factor: f64,
    },
    /// The base grows with the length L of the sequence (`dynamic`, "NTK-aware"):
    /// `base · (factor · max(L, original)/original − factor + 1)^(R/(R − 2))`.
    ///
    /// All tokens turn by the base of the whole sequence. What a cache holds was turned by an earlier one, so a
    /// [`Generator`](crate::nn::generate::Generator) goes as far as `original`, where the base is still the first.
    Dynamic {
        /// How fast it grows.
        factor: f64,
        /// Tokens of the training's sequences.
        original: usize,
    },
    /// Slow pairs are squeezed, fast ones are not, and those between go from one to the other (Llama 3.1). With the wavelength
    /// `w = 2π/f`: `f/factor` for `w > original/low`, `f` for `w < original/high`, else
    /// `(1 − s)·f/factor + s·f` with `s = (original/w − low)/(high − low)`.
    Llama3 {
        /// How much slow pairs are squeezed.
        factor: f64,
        /// `low_freq_factor`.
        low: f64,
        /// `high_freq_factor`.
        high: f64,
        /// Tokens of the training's sequences.
        original: usize,
    },
    /// YaRN (Peng et al., 2023): the same by the number of a pair. Pair i is `(1 − r)·f + r·f/factor` with
    /// `r = clamp((i − a)/(b − a), 0, 1)`; a and b are the pairs that turn `fast` and `slow` times in `original` tokens, and
    /// cosines and sines are multiplied by `attention`.
    Yarn {
        /// How much slow pairs are squeezed.
        factor: f64,
        /// Tokens of the training's sequences.
        original: usize,
        /// Turns from which a pair stays as it is (`beta_fast`); 32 in the paper.
        fast: f64,
        /// Turns up to which a pair is squeezed by all of `factor` (`beta_slow`); 1 in the paper.
        slow: f64,
        /// The factor on cosines and sines; `0.1·ln(factor) + 1` in the paper.
        attention: f64,
        /// Whether a and b are rounded to whole pairs (`truncate`), as in the paper's code.
        whole: bool,
    },
}

const OP: &str = "rope";

impl Rope {
    /// All of a head's features, without scaling.
    pub fn new(base: f64) -> Self {
        Rope { base, part: 1.0, scaling: RopeScaling::None }
    }

    /// R: how many of a head's features turn.
    pub fn turned(&self, head: usize) -> usize {
        (self.part * head as f64) as usize
    }

    /// The most tokens of a sequence for which the frequencies are those of its beginning; `None` if that is any number.
    pub fn steady(&self) -> Option<usize> {
        match self.scaling {
            RopeScaling::Dynamic { original, .. } => Some(original),
            RopeScaling::None | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } | RopeScaling::Yarn { .. } => {
                None
            }
        }
    }

    /// The factor on cosines and sines.
    pub fn attention(&self) -> f64 {
        match self.scaling {
            RopeScaling::Yarn { attention, .. } => attention,
            RopeScaling::None
            | RopeScaling::Linear { .. }
            | RopeScaling::Dynamic { .. }
            | RopeScaling::Llama3 { .. } => 1.0,
        }
    }

    /// The angle per position of each of the R/2 pairs of a head of so many features, in sequences of so many tokens.
    ///
    /// ```
    /// use tilewise::nn::{Rope, RopeScaling};
    /// let scaling = RopeScaling::Dynamic { factor: 2.0, original: 8 };
    /// let rope = Rope { scaling, ..Rope::new(100.0) };
    /// assert_eq!(rope.frequencies(4, 8)?, Rope::new(100.0).frequencies(4, 8)?);
    /// assert_eq!(rope.frequencies(4, 16)?, Rope::new(100.0 * 3f64.powi(2)).frequencies(4, 16)?);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if R is odd or more than the head has, or if a number is not one that can be computed with: a base,
    /// factor or length that is not above 0, bounds in the wrong order.
    pub fn frequencies(&self, head: usize, tokens: usize) -> Result<Vec<f64>> {
        self.check(head)?;
        let turned = self.turned(head);
        let width = turned as f64;
        let pairs = 0..turned / 2;
        let plain = |base: f64, i: usize| base.powf(-2.0 * i as f64 / width);
        let f = |i: usize| plain(self.base, i);
        Ok(match self.scaling {
            RopeScaling::None => pairs.map(f).collect(),
            RopeScaling::Linear { factor } => pairs.map(|i| f(i) / factor).collect(),
            RopeScaling::Dynamic { factor, original } => {
                let length = tokens.max(original) as f64 / original as f64;
                let base = self.base * (factor * length - (factor - 1.0)).powf(width / (width - 2.0));
                pairs.map(|i| plain(base, i)).collect()
            }
            RopeScaling::Llama3 { factor, low, high, original } => {
                let original = original as f64;
                let scaled = |f: f64| {
                    let wavelength = TAU / f;
                    if wavelength > original / low {
                        f / factor
                    } else if wavelength < original / high {
                        f
                    } else {
                        let s = (original / wavelength - low) / (high - low);
                        (1.0 - s) * f / factor + s * f
                    }
                };
                pairs.map(|i| scaled(f(i))).collect()
            }
            RopeScaling::Yarn { factor, original, fast, slow, whole, .. } => {
                // The pair that turns so many times in the training's sequences.
                let pair = |turns: f64| width * (original as f64 / (turns * TAU)).ln() / (2.0 * self.base.ln());
                let (from, to) = (pair(fast), pair(slow));
                let (from, to) = if whole { (from.floor(), to.ceil()) } else { (from, to) };
                let (from, to) = (from.max(0.0), to.min(width - 1.0));
                // As in the paper's code, where both are one pair.
                let to = if from == to { to + 0.001 } else { to };
                let ramp = |i: usize| ((i as f64 - from) / (to - from)).clamp(0.0, 1.0);
                pairs.map(|i| (1.0 - ramp(i)) * f(i) + ramp(i) * f(i) / factor).collect()
            }
        })
    }

    /// Cosines and sines `[positions, R/2]` for [`Graph::rotary`], of sequences of so many tokens: computed in f64, stored
    /// in f32.
    ///
    /// ```
    /// # use tilewise::{Graph, nn::Rope, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let [cos, _] = Rope::new(10_000.0).tables(&mut g, 4, 1, 1)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(cos).to_f64(), [1.0, 1.0]); // position 0
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Rope::frequencies`]; [`Error::Limit`] if there are more than 2³¹ − 1 elements.
    pub fn tables(&self, g: &mut Graph, head: usize, positions: usize, tokens: usize) -> Result<[ValueId; 2]> {
        let frequencies = self.frequencies(head, tokens)?;
        // Before they are computed: the config of a model may say any number of positions.
        Shape::from([positions, frequencies.len()]).checked_elements(OP)?;
        let factor = self.attention();
        let mut table = |f: fn(f64) -> f64| {
            let row = |p: usize| frequencies.iter().map(move |frequency| (factor * f(p as f64 * frequency)) as f32);
            g.constant(Tensor::new([positions, frequencies.len()], (0..positions).flat_map(row).collect::<Vec<_>>())?)
        };
        Ok([table(f64::cos)?, table(f64::sin)?])
    }

    /// An error unless heads of this size can turn so.
    pub(crate) fn check(&self, head: usize) -> Result<()> {
        let fail = |message: String| Err(Error::op(OP, message));
        let &Rope { base, part, scaling } = self;
        let turned = self.turned(head);
        if !(part > 0.0 && part <= 1.0) || turned == 0 || !turned.is_multiple_of(2) {
            return fail(format!(
                "rotary positions turn pairs: {turned} features of {head} (a part of {part}), expected an even number above 0"
            ));
        }
        let above = |name: &str, number: f64| {
            if number > 0.0 && number.is_finite() {
                Ok(())
            } else {
                fail(format!("{name} is {number}, expected more than 0"))
            }
        };
        let tokens = |original: usize| above("the length of the training's sequences", original as f64);
        above("the base", base)?;
        match scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } => above("the factor", factor),
            RopeScaling::Dynamic { factor, original } => {
                tokens(original)?;
                if !(factor >= 1.0 && factor.is_finite()) {
                    return fail(format!("the factor of a growing base is {factor}, expected at least 1"));
                }
                Ok(())
            }
            RopeScaling::Llama3 { factor, low, high, original } => {
                tokens(original)?;
                above("the factor", factor)?;
                above("the factor of low frequencies", low)?;
                if !(high > low && high.is_finite()) {
                    return fail(format!(
                        "the factor of high frequencies is {high}, expected more than that of low ones, {low}"
                    ));
                }
                Ok(())
            }
            RopeScaling::Yarn { factor, original, fast, slow, attention, .. } => {
                tokens(original)?;
                above("the factor", factor)?;
                above("the factor on cosines and sines", attention)?;
                above("the number of slow turns", slow)?;
                if !(fast >= slow && fast.is_finite()) {
                    return fail(format!(
                        "the number of fast turns is {fast}, expected at least that of slow ones, {slow}"
                    ));
                }
                if base == 1.0 {
                    return fail("a base of 1 turns all pairs alike: nothing tells fast ones from slow ones".into());
                }
                Ok(())
            }
        }
    }
}
