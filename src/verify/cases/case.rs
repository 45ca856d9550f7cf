use std::{collections::BTreeMap, fmt};

use crate::{
    DType, Graph, Result, Shape, Tensor, ValueId,
    reference::{
        Random, Value,
        compare::{Check, Expected},
    },
};

/// A graph with inputs, and how its outputs are to be compared with the reference.
#[derive(Clone, Debug)]
pub struct Case {
    /// The kernel family that the case is about.
    pub family: &'static str,
    /// What is special about it, unique in the family.
    pub name: String,
    /// What to compute.
    pub graph: Graph,
    /// Its inputs and parameters, by name.
    pub inputs: BTreeMap<String, Tensor>,
    /// How to compare.
    pub check: Check,
    /// Whether it is about NaN and infinities: devices that assume finite numbers
    /// ([`Profile::assumes_finite`](crate::kernel::Profile::assumes_finite)) are not asked.
    pub not_finite: bool,
}

impl Case {
    /// The reference's results, and the bounds around them.
    ///
    /// # Errors
    /// As [`Expected::of_graph`].
    pub fn expected(&self) -> Result<Expected> {
        Expected::of_graph(&self.graph, &self.inputs, self.check)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.family, self.name)
    }
}

/// How many cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Each kernel, option and edge at least once, in small.
    Quick,
    /// Also larger sizes, and options combined, in order and at random.
    Full,
}

/// The cases that a generator has made so far.
pub(super) struct Cases {
    level: Level,
    pub(super) seed: u64,
    pub(super) cases: Vec<Case>,
}

impl Cases {
    pub(super) fn new(level: Level, seed: u64) -> Self {
        Cases { level, seed, cases: Vec::new() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.level == Level::Full
    }

    /// `quick`, and `more` on the full level.
    pub(super) fn choose<T: Clone>(&self, quick: &[T], more: &[T]) -> Vec<T> {
        if self.is_full() { [quick, more].concat() } else { quick.to_vec() }
    }

    /// Adds a case: `build` makes the graph and its inputs, and says what the outputs are.
    pub(super) fn add(
        &mut self,
        family: &'static str,
        name: impl Into<String>,
        check: Check,
        build: impl FnOnce(&mut Draft) -> Result<Vec<ValueId>>,
    ) -> Result<()> {
        let name = name.into();
        // Numbers depend on the seed and the name alone, so that a new case changes no other (FNV-1a).
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let random = Random::new(self.seed ^ hash);
        let mut draft = Draft { random, graph: Graph::new(), inputs: BTreeMap::new() };
        for (i, value) in build(&mut draft)?.into_iter().enumerate() {
            draft.graph.output(format!("y{i}"), value)?;
        }
        self.cases.push(Case { family, name, graph: draft.graph, inputs: draft.inputs, check, not_finite: false });
        Ok(())
    }

    /// Likewise, a case about what is not finite.
    pub(super) fn add_not_finite(
        &mut self,
        family: &'static str,
        name: impl Into<String>,
        check: Check,
        build: impl FnOnce(&mut Draft) -> Result<Vec<ValueId>>,
    ) -> Result<()> {
        self.add(family, format!("not finite: {}", name.into()), check, build)?;
        self.cases.iter_mut().next_back().into_iter().for_each(|case| case.not_finite = true);
        Ok(())
    }
}

/// Rows of [`Draft::odd_rows`]: whole vectors of four across them.
pub(super) const ODD_ROWS: usize = 12;
/// Widths of rows that every variant takes, whole vectors or not.
pub(super) const ODD_WIDTHS: [usize; 4] = [3, 68, 131, 1028];

/// A case in the making.
pub(super) struct Draft {
    pub(super) random: Random,
    pub(super) graph: Graph,
    pub(super) inputs: BTreeMap<String, Tensor>,
}

impl Draft {
    /// An input with this content.
    pub(super) fn given(&mut self, name: &str, tensor: Tensor) -> Result<ValueId> {
        let value = self.graph.input(name, tensor.dtype(), tensor.shape())?;
        self.inputs.insert(name.into(), tensor);
        Ok(value)
    }

    /// An input with these numbers, rounded to the dtype.
    pub(super) fn numbers(
        &mut self,
        name: &str,
        dtype: DType,
        shape: impl Into<Shape>,
        numbers: &[f64],
    ) -> Result<ValueId> {
        self.given(name, Value::<f64>::from_f64(dtype, shape.into(), numbers).to_tensor()?)
    }

    /// A parameter with numbers from −1 to 1.
    pub(super) fn weight(&mut self, name: &str, dtype: DType, shape: impl Into<Shape>) -> Result<ValueId> {
        let tensor = self.random.tensor(dtype, shape, -1.0, 1.0)?;
        let value = self.graph.parameter(name, dtype, tensor.shape())?;
        self.inputs.insert(name.into(), tensor);
        Ok(value)
    }

    /// An input with numbers from `low` to `high`.
    pub(super) fn reals(
        &mut self,
        name: &str,
        dtype: DType,
        shape: impl Into<Shape>,
        [low, high]: [f64; 2],
    ) -> Result<ValueId> {
        let tensor = self.random.tensor(dtype, shape, low, high)?;
        self.given(name, tensor)
    }

    /// An input `[ODD_ROWS, width]`, or turned `[width, ODD_ROWS]`: of each row of numbers from −4 to 4 other places hold what is
    /// not finite, a NaN of either sign, an infinity, or both; some hold none.
    pub(super) fn odd_rows(&mut self, name: &str, dtype: DType, width: usize, turned: bool) -> Result<ValueId> {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let last = width - 1;
        let rows: [&[(usize, f64)]; ODD_ROWS] = [
            &[(0, nan)],
            &[(last, nan)],
            &[(last / 2, -nan), (last, nan)],
            &[],
            &[(last / 2, inf)],
            &[(last / 3, -inf), (0, -inf)],
            &[(last, inf), (0, -inf)],
            &[(last / 2, nan), (last / 3, inf)],
            &[(last / 2, -inf), (last, nan)],
            &[],
            // All of it, below.
            &[(0, nan)],
            &[(0, -inf)],
        ];
        let mut numbers = vec![0.0; ODD_ROWS * width];
        for (row, places) in rows.iter().enumerate() {
            for column in 0..width {
                // All of the last rows is as its first element.
                let place = places.iter().rfind(|(at, _)| *at == column || row + 2 >= ODD_ROWS);
                let number = place.map_or_else(|| self.random.real(-4.0, 4.0), |(_, number)| *number);
                numbers[if turned { column * ODD_ROWS + row } else { row * width + column }] = number;
            }
        }
        let shape = if turned { [width, ODD_ROWS] } else { [ODD_ROWS, width] };
        self.numbers(name, dtype, shape, &numbers)
    }

    /// An input with whole numbers from `low` to `high`, both included.
    pub(super) fn wholes(
        &mut self,
        name: &str,
        dtype: DType,
        shape: impl Into<Shape>,
        [low, high]: [i64; 2],
    ) -> Result<ValueId> {
        let tensor = self.random.wholes(dtype, shape, low, high)?;
        self.given(name, tensor)
    }
}
