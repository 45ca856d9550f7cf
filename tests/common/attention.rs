//! Cases of attention: drawn operands in all kinds of layouts, run by a variant, compared with the reference.
#![allow(dead_code, reason = "each test uses a part")]

use tilewise::{
    DType, Layout, Shape, Tensor,
    gpu::Gpu,
    graph::{Align, Attention, AttentionOperand as A, Op, Window},
    kernel::{AttentionProblem, Kernel, Problem},
    reference::compare::{Check, Expected},
};

/// Every variant, whatever the adapter.
pub(crate) const VARIANTS: [&str; 3] = ["plain", "tiled", "split_kv"];

/// Small numbers from a seed (xorshift, Marsaglia 2003).
#[derive(Clone, Debug)]
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    /// 0 to before `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n.max(1) as u64) as usize
    }

    /// −1 to 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.bits() % 20_001) as f32 / 10_000.0 - 1.0
    }

    pub(crate) fn floats(&mut self, shape: impl Into<Shape>, scale: f32) -> Tensor {
        let shape = shape.into();
        let values: Vec<f32> = (0..count(&shape)).map(|_| scale * self.unit()).collect();
        tensor(shape, values)
    }

    /// Whole numbers from −most to most.
    pub(crate) fn integers(&mut self, shape: impl Into<Shape>, most: usize) -> Tensor {
        let shape = shape.into();
        let values: Vec<f32> = (0..count(&shape)).map(|_| self.below(2 * most + 1) as f32 - most as f32).collect();
        tensor(shape, values)
    }

    /// True for about `percent` of the elements.
    pub(crate) fn bools(&mut self, shape: impl Into<Shape>, percent: usize) -> Tensor {
        let shape = shape.into();
        let values: Vec<bool> = (0..count(&shape)).map(|_| self.below(100) < percent).collect();
        tensor(shape, values)
    }
}

fn count(shape: &Shape) -> usize {
    shape.elements().expect("small")
}

pub(crate) fn tensor(shape: impl Into<Shape>, data: impl Into<tilewise::Data>) -> Tensor {
    Tensor::new(shape, data).expect("as many elements as the shape has")
}

pub(crate) fn i32s(values: &[i32]) -> Tensor {
    tensor([values.len()], values.to_vec())
}

/// How the elements of an operand lie in its buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lie {
    /// `[B, H, T, D]`
    #[default]
    Dense,
    /// `[B, T, H, D]`: what a projection gives.
    HeadsInner,
    /// `[B, H, D, T]`: the last axis is not contiguous.
    Columns,
    /// `[B, H, T, D]` with gaps after each row, head and item, not from the start of the buffer.
    Gaps,
    /// `[B, H, T, D]`, the rows of each head in reverse.
    Backwards,
}

impl Lie {
    pub(crate) const ALL: [Lie; 5] = [Lie::Dense, Lie::HeadsInner, Lie::Columns, Lie::Gaps, Lie::Backwards];

    /// The layout of elements of this shape (rank 4, or rank 3 without B, heads behind rows).
    fn layout(self, shape: &Shape) -> Layout {
        let rank = shape.rank();
        let mut order: Vec<usize> = (0..rank).collect();
        match self {
            Lie::HeadsInner => order.swap(rank - 3, rank - 2),
            Lie::Columns => order.swap(rank - 2, rank - 1),
            Lie::Dense | Lie::Gaps | Lie::Backwards => {}
        }
        let gap = usize::from(self == Lie::Gaps);
        let mut strides = vec![0isize; rank];
        let mut step = 1;
        for &axis in order.iter().rev() {
            strides[axis] = step as isize;
            step *= shape[axis].max(1) + gap;
        }
        let mut offset = 5 * gap;
        if self == Lie::Backwards && !shape.contains(&0) {
            let rows = rank - 2;
            offset = (shape[rows] - 1) * strides[rows] as usize;
            strides[rows] = -strides[rows];
        }
        Layout { shape: shape.clone(), strides, offset }
    }

    /// The tensor as a buffer that lies so. Gaps hold NaN, or true.
    pub(crate) fn store(self, tensor: &Tensor) -> (Tensor, Layout) {
        let layout = self.layout(tensor.shape());
        let places = places(&layout);
        let size = places.iter().max().map_or(1, |&last| last + 1);
        macro_rules! scattered {
            ($values:expr, $gap:expr) => {{
                let mut buffer = vec![$gap; size];
                for (&place, &value) in places.iter().zip($values) {
                    buffer[place] = value;
                }
                Tensor::new([size], buffer)
            }};
        }
        let buffer = match tensor.data() {
            tilewise::Data::F32(values) => scattered!(values, f32::NAN),
            tilewise::Data::F16(values) => scattered!(values, half::f16::NAN),
            tilewise::Data::BF16(values) => scattered!(values, half::bf16::NAN),
            tilewise::Data::I32(values) => scattered!(values, i32::MIN),
            tilewise::Data::U32(values) => scattered!(values, u32::MAX),
            tilewise::Data::Bool(values) => scattered!(values, true),
        };
        (buffer.expect("as long as its shape"), layout)
    }
}

/// The place of each element in the buffer, in row-major order.
fn places(layout: &Layout) -> Vec<usize> {
    let mut all = vec![layout.offset as isize];
    for (&size, &stride) in layout.shape.iter().zip(&layout.strides) {
        all = all.iter().flat_map(|&base| (0..size as isize).map(move |i| base + i * stride)).collect();
    }
    all.into_iter().map(|place| place as usize).collect()
}

/// Attention with operands.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) options: Attention,
    pub(crate) q: Tensor,
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
    /// The operands after q, k and v.
    pub(crate) extra: Vec<Tensor>,
    /// Of q, k, v, and mask and bias.
    pub(crate) lies: [Lie; 4],
    /// Of out; a dense one.
    pub(crate) out: Lie,
    pub(crate) lse: bool,
    pub(crate) status: bool,
}

/// Sizes: B, Hq, Hkv, Tq, Tk, D, Dv.
pub(crate) type Sizes = (usize, usize, usize, usize, usize, usize, usize);

impl Case {
    /// Drawn q, k and v, scores of a few units, no options.
    pub(crate) fn new(name: impl Into<String>, (b, hq, hkv, tq, tk, d, dv): Sizes, draw: &mut Draw) -> Self {
        let scale = 4.0 / (d as f32).sqrt().sqrt();
        Case {
            name: name.into(),
            options: Attention::default(),
            q: draw.floats([b, hq, tq, d], scale),
            k: draw.floats([b, hkv, tk, d], scale),
            v: draw.floats([b, hkv, tk, dv], 1.0),
            extra: Vec::new(),
            lies: [Lie::Dense; 4],
            out: Lie::Dense,
            lse: true,
            status: false,
        }
    }

    /// Packed sequences: lengths of queries and keys, in `rows` and `keys` rows of buffer.
    pub(crate) fn packed(
        name: impl Into<String>,
        (q_starts, k_starts): (&[i32], &[i32]),
        (rows, hq, hkv, keys, d, dv): (usize, usize, usize, usize, usize, usize),
        draw: &mut Draw,
    ) -> Self {
        let mut case = Case::new(name, (1, 1, 1, 0, 0, 1, 1), draw);
        let scale = 4.0 / (d as f32).sqrt().sqrt();
        case.q = draw.floats([rows, hq, d], scale);
        case.k = draw.floats([keys, hkv, d], scale);
        case.v = draw.floats([keys, hkv, dv], 1.0);
        case.with(A::QueryOffsets, i32s(q_starts)).with(A::KeyOffsets, i32s(k_starts))
    }

    pub(crate) fn causal(mut self, align: Align) -> Self {
        self.options.causal = true;
        self.options.align = align;
        self
    }

    pub(crate) fn window(mut self, left: Option<u32>, right: Option<u32>) -> Self {
        self.options.window = Window { left, right };
        self
    }

    pub(crate) fn with(mut self, operand: A, tensor: Tensor) -> Self {
        self.options.operands.push(operand);
        self.extra.push(tensor);
        self
    }

    pub(crate) fn problem(&self) -> (AttentionProblem, Vec<Tensor>) {
        let [q_lie, k_lie, v_lie, score_lie] = self.lies;
        let (mut buffers, mut layouts) = (Vec::new(), Vec::new());
        let lies = [q_lie, k_lie, v_lie].into_iter().chain(self.options.operands.iter().map(|kind| match kind {
            A::Mask | A::Bias => score_lie,
            _ => Lie::Dense,
        }));
        for (tensor, lie) in [&self.q, &self.k, &self.v].into_iter().chain(&self.extra).zip(lies) {
            let lie = if tensor.shape().rank() < 3 && lie != Lie::Gaps { Lie::Dense } else { lie };
            let (buffer, layout) = lie.store(tensor);
            buffers.push(buffer);
            layouts.push(layout);
        }
        let operands = layouts.split_off(3);
        let [q, k, v] = layouts.try_into().expect("three");
        let mut problem = AttentionProblem::new(self.options.clone(), q, k, v, operands);
        problem.out = self.out.layout(problem.out_shape());
        problem.lse = self.lse;
        problem.status = self.status;
        (problem, buffers)
    }

    pub(crate) fn kernel(&self, variant: &str, gpu: &Gpu) -> tilewise::Result<Kernel> {
        self.problem().0.kernel(variant, gpu.profile())
    }

    /// out (in the order of its axes), lse and status, as far as they are asked for.
    pub(crate) fn run_kernel(&self, kernel: &Kernel, gpu: &Gpu) -> tilewise::Result<Vec<Tensor>> {
        let (problem, buffers) = self.problem();
        let mut outputs = vec![(DType::F32, problem.out_shape().clone())];
        if self.lse {
            outputs.push((DType::F32, problem.lse_shape()));
        }
        if self.status {
            outputs.push((DType::I32, [1].into()));
        }
        let mut results = gpu.run_kernel(kernel, &buffers.iter().collect::<Vec<_>>(), &outputs)?;
        let stored = results[0].as_f32().expect("out is f32");
        let values: Vec<f32> = places(&problem.out).into_iter().map(|place| stored[place]).collect();
        results[0] = tensor(problem.out_shape(), values);
        Ok(results)
    }

    pub(crate) fn run(&self, variant: &str, gpu: &Gpu) -> tilewise::Result<Vec<Tensor>> {
        self.run_kernel(&self.kernel(variant, gpu)?, gpu)
    }

    /// What the reference says.
    pub(crate) fn expected(&self, check: Check) -> Expected {
        let operands: Vec<&Tensor> = [&self.q, &self.k, &self.v].into_iter().chain(&self.extra).collect();
        Expected::of_op(&Op::Attention(self.options.clone()), &operands, check).expect("a valid case")
    }

    /// Runs a kernel that stands for this case, and compares. The largest observed / allowed, or what differs.
    pub(crate) fn check_kernel(&self, kernel: &Kernel, gpu: &Gpu, check: Check) -> Result<f64, String> {
        self.compare(self.run_kernel(kernel, gpu), check)
    }

    fn compare(&self, results: tilewise::Result<Vec<Tensor>>, check: Check) -> Result<f64, String> {
        let mut results = results.map_err(|error| error.to_string())?;
        results.truncate(1 + usize::from(self.lse));
        let mut worst = 0f64;
        for ((name, expected, bound), actual) in self.expected(check).results().zip(&results) {
            let comparison = tilewise::reference::compare::compare(name, actual, expected, bound);
            worst = worst.max(comparison.map_err(|mismatch| mismatch.to_string())?.ratio);
        }
        Ok(worst)
    }

    /// Runs a variant, and compares.
    ///
    /// # Panics
    /// If they differ.
    pub(crate) fn check(&self, variant: &str, gpu: &Gpu, check: Check) {
        match self.compare(self.run(variant, gpu), check) {
            Ok(ratio) => eprintln!("{variant:>9} {ratio:.3} of the bound: {}", self.name),
            Err(message) => panic!("{variant}: {}\n{:#?}\n{message}", self.name, self.problem().0),
        }
    }

    /// [`Case::check`] for every variant.
    pub(crate) fn check_all(&self, gpu: &Gpu, check: Check) {
        for variant in VARIANTS {
            self.check(variant, gpu, check);
        }
    }
}
