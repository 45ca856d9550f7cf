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
        self.cases.push(Case { family, name, graph: draft.graph, inputs: draft.inputs, check });
        Ok(())
    }
}

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
