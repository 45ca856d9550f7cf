use half::{bf16, f16};

use crate::{DType, Data, Result, Shape, Tensor};

/// Random numbers that are the same everywhere for one seed: SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Random { state: seed }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A whole number from `low` to `high`, both included.
    pub fn whole(&mut self, low: i64, high: i64) -> i64 {
        let span = (high - low).max(0) as u64 + 1;
        low + (self.bits() % span) as i64
    }

    /// A size from `low` to `high`, both included.
    pub fn size(&mut self, low: usize, high: usize) -> usize {
        self.whole(low as i64, high as i64) as usize
    }

    /// True once in `n` draws.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.bits().is_multiple_of(n.max(1))
    }

    /// One of these.
    ///
    /// # Panics
    /// If there are none.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.size(0, of.len() - 1)]
    }

    /// A number from `low` up to `high`.
    pub fn real(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * ((self.bits() >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// A tensor of numbers from `low` to `high`, rounded to the dtype; for booleans, true every second time.
    ///
    /// ```
    /// use tilewise::{DType, reference::Random};
    /// let x = Random::new(7).tensor(DType::F32, [3], -1.0, 1.0)?;
    /// assert!(x.to_f64().iter().all(|x| x.abs() <= 1.0));
    /// assert_eq!(x, Random::new(7).tensor(DType::F32, [3], -1.0, 1.0)?);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) if there are more than 2³¹ − 1 elements.
    pub fn tensor(&mut self, dtype: DType, shape: impl Into<Shape>, low: f64, high: f64) -> Result<Tensor> {
        let shape = shape.into();
        let n = shape.checked_elements("random tensor")?;
        self.fill(dtype, shape, n, |random| random.real(low, high))
    }

    /// A tensor of whole numbers from `low` to `high`, both included.
    ///
    /// ```
    /// use tilewise::{DType, reference::Random};
    /// let x = Random::new(7).wholes(DType::BF16, [100], 1, 3)?;
    /// assert!(x.to_f64().iter().all(|x| [1.0, 2.0, 3.0].contains(x)));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) if there are more than 2³¹ − 1 elements.
    pub fn wholes(&mut self, dtype: DType, shape: impl Into<Shape>, low: i64, high: i64) -> Result<Tensor> {
        let shape = shape.into();
        let n = shape.checked_elements("random tensor")?;
        self.fill(dtype, shape, n, |random| random.whole(low, high) as f64)
    }

    fn fill(&mut self, dtype: DType, shape: Shape, n: usize, mut draw: impl FnMut(&mut Self) -> f64) -> Result<Tensor> {
        let numbers = (0..n).map(|_| draw(self));
        let data: Data = match dtype {
            DType::F32 => numbers.map(|x| x as f32).collect::<Vec<_>>().into(),
            DType::F16 => numbers.map(f16::from_f64).collect::<Vec<_>>().into(),
            DType::BF16 => numbers.map(bf16::from_f64).collect::<Vec<_>>().into(),
            DType::I32 => numbers.map(|x| x as i32).collect::<Vec<_>>().into(),
            DType::U32 => numbers.map(|x| x as u32).collect::<Vec<_>>().into(),
            DType::Bool => (0..n).map(|_| self.one_in(2)).collect::<Vec<_>>().into(),
        };
        Tensor::new(shape, data)
    }
}
