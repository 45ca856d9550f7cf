//! Graphs from a list of random numbers, so that a failing one shrinks with its list.

use std::collections::BTreeMap;

use tilewise::{
    DType, Data, Graph, Result, Shape, Tensor, ValueId,
    graph::{AttentionArgs, Binary, Mask, Op, Reduce, Unary},
};

/// A graph, and a tensor for each of its inputs and parameters.
pub(crate) struct RandomGraph {
    pub(crate) graph: Graph,
    pub(crate) tensors: BTreeMap<String, Tensor>,
}

/// A graph of a few operations on small tensors, all kinds of operations mixed. Values stay of moderate size, and what
/// depends on a comparison of floats compares only inputs, so that any two correct evaluations agree closely.
pub(crate) fn random_graph(numbers: &[u32]) -> RandomGraph {
    let mut builder = Builder {
        graph: Graph::new(),
        tensors: BTreeMap::new(),
        numbers: numbers.iter().copied(),
        floats: Vec::new(),
        state: numbers.iter().fold(1, |hash: u64, &n| (hash ^ u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    };
    builder.build().unwrap_or_else(|e| panic!("{e}"));
    let Builder { graph, tensors, .. } = builder;
    RandomGraph { graph, tensors }
}

struct Builder<I> {
    graph: Graph,
    tensors: BTreeMap<String, Tensor>,
    numbers: I,
    /// The f32 values so far.
    floats: Vec<ValueId>,
    state: u64,
}

impl<I: Iterator<Item = u32>> Builder<I> {
    fn build(&mut self) -> Result<()> {
        for _ in 0..2 {
            let shape = self.shape(2, 4);
            self.source(DType::F32, &shape)?;
        }
        while let Some(kind) = self.numbers.next() {
            let value = self.operation(kind)?;
            if self.graph.dtype(value) == DType::F32 {
                self.floats.push(value);
            }
        }
        // The last value, and one from the middle, which is then read inside the graph too.
        let last = self.floats[self.floats.len() - 1];
        self.graph.output("last", last)?;
        let other = self.pick();
        self.graph.output("other", other)
    }

    fn below(&mut self, n: usize) -> usize {
        self.numbers.next().map_or(0, |number| number as usize % n)
    }

    fn pick(&mut self) -> ValueId {
        let back = self.below(self.floats.len().min(4));
        self.floats[self.floats.len() - 1 - back]
    }

    /// A float of this rank or more; a new input if there is none near.
    fn pick_rank(&mut self, rank: usize) -> Result<ValueId> {
        let value = self.pick();
        if self.graph.shape(value).rank() >= rank {
            return Ok(value);
        }
        let shape = self.shape(rank, rank);
        self.source(DType::F32, &shape)
    }

    fn shape(&mut self, least: usize, most: usize) -> Vec<usize> {
        let rank = least + self.below(most - least + 1);
        (0..rank).map(|_| 1 + self.below(5)).collect()
    }

    fn next_unit(&mut self) -> f32 {
        // Marsaglia's xorshift64.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// A new input or parameter.
    fn source(&mut self, dtype: DType, shape: &[usize]) -> Result<ValueId> {
        let n = shape.iter().product();
        let data: Data = match dtype {
            DType::I32 => (0..n).map(|_| (self.next_unit() * 8.0) as i32).collect::<Vec<_>>().into(),
            DType::Bool => Data::Bool((0..n).map(|_| self.next_unit() > -0.5).collect()),
            _ => (0..n).map(|_| self.next_unit()).collect::<Vec<f32>>().into(),
        };
        let name = format!("t{}", self.tensors.len());
        self.tensors.insert(name.clone(), Tensor::new(shape, data)?);
        let parameter = self.below(2) == 1;
        let g = &mut self.graph;
        let value = if parameter { g.parameter(&name, dtype, shape) } else { g.input(&name, dtype, shape) }?;
        if dtype == DType::F32 {
            self.floats.push(value);
        }
        Ok(value)
    }

    /// A source that broadcasts to a shape.
    fn broadcasting(&mut self, shape: &Shape) -> Result<ValueId> {
        let keep = self.below(shape.rank() + 1);
        let mut sizes = shape[keep..].to_vec();
        for size in &mut sizes {
            if self.below(3) == 0 {
                *size = 1;
            }
        }
        self.source(DType::F32, &sizes)
    }

    fn operation(&mut self, kind: u32) -> Result<ValueId> {
        const UNARIES: [Unary; 10] = [
            Unary::Neg,
            Unary::Abs,
            Unary::Tanh,
            Unary::Sigmoid,
            Unary::Relu,
            Unary::Gelu,
            Unary::GeluTanh,
            Unary::Silu,
            Unary::Sin,
            Unary::Softplus,
        ];
        const BINARIES: [Binary; 5] = [Binary::Add, Binary::Mul, Binary::Sub, Binary::Max, Binary::Min];
        match kind % 22 {
            0 | 1 => {
                let (function, x) = (UNARIES[self.below(UNARIES.len())], self.pick());
                self.graph.unary(function, x)
            }
            2 | 3 => {
                let (function, a, b) = (BINARIES[self.below(BINARIES.len())], self.pick(), self.pick());
                let fits = self.graph.shape(a).broadcast(self.graph.shape(b)).is_some();
                let b = if fits { b } else { self.broadcasting(&self.graph.shape(a).clone())? };
                self.graph.binary(function, a, b)
            }
            4 | 5 => {
                let x = self.pick();
                let (factor, function) = ([0.5, 1.0, 2.0][self.below(3)], BINARIES[self.below(2)]);
                let factor = self.graph.scalar(factor, x)?;
                self.graph.binary(function, x, factor)
            }
            6 => {
                let x = self.pick();
                let shape = self.graph.shape(x).clone();
                let mask = self.source(DType::Bool, &shape)?;
                let other = self.broadcasting(&shape)?;
                self.graph.select(mask, x, other)
            }
            7 | 8 => self.matmul(),
            9 => {
                let x = self.pick_rank(1)?;
                let (inner, outer) = (self.graph.shape(x).last().copied().unwrap_or(1), 1 + self.below(6));
                let (w, b) = (self.source(DType::F32, &[outer, inner])?, self.source(DType::F32, &[outer])?);
                let y = self.graph.linear(x, w, Some(b))?;
                let y = if self.below(2) == 0 { y } else { self.graph.gelu(y)? };
                let residual = self.source(DType::F32, &self.graph.shape(y).clone())?;
                if self.below(2) == 0 { Ok(y) } else { self.graph.add(y, residual) }
            }
            10 => {
                let x = self.pick_rank(1)?;
                let shape = self.graph.shape(x).clone();
                let sum = if self.below(2) == 0 {
                    x
                } else {
                    let other = self.source(DType::F32, &shape)?;
                    self.graph.add(x, other)?
                };
                let width = shape.last().copied().unwrap_or(1);
                let w = self.source(DType::F32, &[width])?;
                if self.below(2) == 0 {
                    let b = self.source(DType::F32, &[width])?;
                    self.graph.layer_norm(sum, Some(w), Some(b), 1e-2)
                } else {
                    self.graph.rms_norm(sum, Some(w), 1e-2)
                }
            }
            11 => {
                let x = self.pick_rank(1)?;
                let axis = self.below(self.graph.shape(x).rank()) as isize;
                if self.below(2) == 0 { self.graph.softmax(x, axis) } else { self.graph.log_softmax(x, axis) }
            }
            12 => {
                let x = self.pick_rank(1)?;
                let function = Reduce::ALL[self.below(4)];
                let (axis, keep) = (self.below(self.graph.shape(x).rank()) as isize, self.below(2) == 0);
                self.graph.reduce(function, x, &[axis], keep)
            }
            13 => {
                let x = self.source(DType::F32, &[3, 4])?;
                let index = self.graph.argmax(x, 1, false)?;
                let data = self.pick_rank(1)?;
                let axis = self.below(self.graph.shape(data).rank()) as isize;
                self.graph.gather(data, index, axis)
            }
            14 => {
                let x = self.pick_rank(2)?;
                let rank = self.graph.shape(x).rank();
                let mut order: Vec<usize> = (0..rank).collect();
                order.rotate_left(self.below(rank));
                if self.below(2) == 0 {
                    order.swap(rank - 2, rank - 1);
                }
                self.graph.permute(x, &order)
            }
            15 => {
                let x = self.pick();
                let shape = self.graph.shape(x);
                let n: usize = shape.iter().product();
                let divisor = [1, 2, 3, 4][self.below(4)];
                let shape = if n.is_multiple_of(divisor) { vec![divisor, n / divisor] } else { vec![n] };
                self.graph.reshape(x, shape)
            }
            16 => {
                let x = self.pick_rank(1)?;
                let shape = self.graph.shape(x).clone();
                let (mut starts, mut sizes, mut steps) = (Vec::new(), Vec::new(), Vec::new());
                for &size in shape.iter() {
                    let (start, step) = (self.below(size), [1isize, 2, -1][self.below(3)]);
                    let room = if step > 0 { size - 1 - start } else { start };
                    starts.push(start);
                    sizes.push(1 + room / step.unsigned_abs());
                    steps.push(step);
                }
                Ok(self.graph.push(Op::Slice { starts, sizes, steps }, &[x])?[0])
            }
            17 => {
                let x = self.pick_rank(1)?;
                let axis = self.below(self.graph.shape(x).rank());
                let mut shape = self.graph.shape(x).to_vec();
                shape[axis] = 1 + self.below(3);
                let other = self.source(DType::F32, &shape)?;
                self.graph.concat(&[x, other, x], axis as isize)
            }
            18 => {
                let x = self.pick();
                let shape: Vec<usize> = std::iter::once(2).chain(self.graph.shape(x).iter().copied()).collect();
                self.graph.broadcast(x, shape)
            }
            19 => {
                let x = self.pick_rank(1)?;
                let frame: Vec<(usize, usize)> =
                    (0..self.graph.shape(x).rank()).map(|_| (self.below(3), self.below(2))).collect();
                self.graph.pad(x, &frame, 0.25)
            }
            20 => self.attention(),
            _ => {
                let x = self.pick();
                let narrow = [DType::F16, DType::BF16][self.below(2)];
                let x = self.graph.cast(x, narrow)?;
                let x = self.graph.tanh(x)?;
                self.graph.cast(x, DType::F32)
            }
        }
    }

    fn matmul(&mut self) -> Result<ValueId> {
        let a = self.pick_rank(2)?;
        let shape = self.graph.shape(a).clone();
        let rank = shape.rank();
        let transpose_a = self.below(2) == 1;
        let inner = shape[if transpose_a { rank - 2 } else { rank - 1 }];
        let (outer, transpose_b) = (1 + self.below(6), self.below(2) == 1);
        let b = if transpose_b { [outer, inner] } else { [inner, outer] };
        let batched = rank == 3 && self.below(2) == 1;
        let b = if batched { vec![shape[0], b[0], b[1]] } else { b.to_vec() };
        let b = self.source(DType::F32, &b)?;
        Ok(self.graph.push(Op::Matmul { transpose_a, transpose_b }, &[a, b])?[0])
    }

    /// Attention over a value as [B, T, E], half of the time written out, merged again.
    fn attention(&mut self) -> Result<ValueId> {
        let x = self.pick_rank(1)?;
        let n: usize = self.graph.shape(x).iter().product();
        let t = [1, 2, 3][self.below(3)];
        let x = if n.is_multiple_of(2 * t) {
            self.graph.reshape(x, [1, t, n / t])?
        } else {
            self.source(DType::F32, &[1, t, 4])?
        };
        let width = self.graph.shape(x)[2];
        let keys = self.source(DType::F32, &[1, 4, width])?;
        let (q, k) = (self.graph.split_heads(x, 2)?, self.graph.split_heads(keys, 2)?);
        let mask = self.source(DType::Bool, &[t, 4])?;
        let out = if self.below(2) == 0 {
            self.graph.attention(q, k, k, AttentionArgs { mask: Mask::boolean(mask), ..AttentionArgs::default() })?
        } else {
            let g = &mut self.graph;
            let scores = g.matmul_transposed(q, k)?;
            let (scale, hidden) = (g.scalar(0.5, scores)?, g.scalar(f64::NEG_INFINITY, scores)?);
            let scores = g.mul(scores, scale)?;
            let scores = g.select(mask, scores, hidden)?;
            let weights = g.softmax(scores, -1)?;
            g.matmul(weights, k)?
        };
        self.graph.merge_heads(out)
    }
}
