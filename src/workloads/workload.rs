use std::collections::BTreeMap;

use crate::{DType, Data, Graph, Result, Tensor, ValueId};

/// How large the workloads are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// One small case of each kind: shows that it runs.
    Quick,
    /// What a software adapter does in minutes.
    Full,
    /// What fills a large GPU as well: seconds a run on anything less.
    Large,
}

/// A graph to be timed. Its values are drawn by [`Workload::inputs`] and [`Workload::parameters`].
#[derive(Clone, Debug)]
pub struct Workload {
    /// `family shape option`, such as `attention b1 h8 q256 k256 d64 causal`.
    pub name: String,
    /// What kind of work it is: the first word of the name.
    pub family: &'static str,
    /// The graph; its output is `y`, and there may be more.
    pub graph: Graph,
    /// Values that are not drawn: lengths, ids, positions.
    given: BTreeMap<String, Tensor>,
}

/// A workload under construction.
pub(super) struct Builder {
    pub(super) graph: Graph,
    given: BTreeMap<String, Tensor>,
}

impl Builder {
    /// An f32 input.
    pub(super) fn input(&mut self, name: &str, shape: &[usize]) -> Result<ValueId> {
        self.graph.input(name, DType::F32, shape)
    }

    /// An i32 input of these values.
    pub(super) fn integers(&mut self, name: &str, shape: &[usize], values: Vec<i32>) -> Result<ValueId> {
        self.given.insert(name.into(), Tensor::new(shape, values)?);
        self.graph.input(name, DType::I32, shape)
    }
}

/// Marsaglia's xorshift64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 32
    }

    /// In [−1, 1).
    pub(super) fn float(&mut self) -> f32 {
        (self.next() >> 8) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

impl Workload {
    pub(super) fn new(
        family: &'static str,
        shape: &str,
        build: impl FnOnce(&mut Builder) -> Result<ValueId>,
    ) -> Result<Self> {
        let mut builder = Builder { graph: Graph::new(), given: BTreeMap::new() };
        let y = build(&mut builder)?;
        let Builder { mut graph, given } = builder;
        graph.output("y", y)?;
        Ok(Workload { name: format!("{family} {shape}"), family, graph, given })
    }

    /// A graph of the caller's, to be timed on the values that are given for its inputs and parameters; others are drawn.
    pub fn of(name: impl Into<String>, graph: Graph, given: BTreeMap<String, Tensor>) -> Self {
        Workload { name: name.into(), family: "graph", graph, given }
    }

    /// A value for every input and parameter.
    ///
    /// # Errors
    /// As [`Workload::inputs`].
    pub fn values(&self) -> Result<Vec<(String, Tensor)>> {
        Ok([self.inputs()?, self.parameters()?].concat())
    }

    /// A value for every input, the same at each call: floats in [−1, 1), booleans of which three in four are true, and
    /// integers that make sense, or 0.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::Error::Limit) if one has more than 2³¹ − 1 elements.
    pub fn inputs(&self) -> Result<Vec<(String, Tensor)>> {
        self.draw(self.graph.inputs(), 1.0)
    }

    /// A value for every parameter, the same at each call: small, as trained weights are.
    ///
    /// # Errors
    /// As [`Workload::inputs`].
    pub fn parameters(&self) -> Result<Vec<(String, Tensor)>> {
        self.draw(self.graph.parameters(), 0.05)
    }

    /// The values that are given for states; others are 0 at first.
    pub fn states(&self) -> Vec<(String, Tensor)> {
        let states = self.graph.states().map(|(name, ..)| name.to_string());
        states.filter_map(|name| Some((name.clone(), self.given.get(&name)?.clone()))).collect()
    }

    fn draw<'a>(&self, values: impl Iterator<Item = (&'a str, ValueId)>, most: f32) -> Result<Vec<(String, Tensor)>> {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        values
            .map(|(name, value)| {
                if let Some(tensor) = self.given.get(name) {
                    return Ok((name.to_string(), tensor.clone()));
                }
                let shape = self.graph.shape(value);
                let n = shape.checked_elements("workload")?;
                let float = |_| most * random.float();
                let data = match self.graph.dtype(value) {
                    DType::F32 => Data::F32((0..n).map(float).collect()),
                    DType::F16 => Data::F16((0..n).map(float).map(half::f16::from_f32).collect()),
                    DType::BF16 => Data::BF16((0..n).map(float).map(half::bf16::from_f32).collect()),
                    DType::Bool => Data::Bool((0..n).map(float).map(|x| x > -0.5 * most).collect()),
                    DType::I32 => Data::I32(vec![0; n]),
                    DType::U32 => Data::U32(vec![0; n]),
                };
                Ok((name.to_string(), Tensor::new(shape, data)?))
            })
            .collect()
    }
}
