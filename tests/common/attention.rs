//! Cases of attention: drawn operands in all kinds of layouts, run by a variant, compared with the reference.

use tilewise::{
    DType, Graph, Layout, Shape, Tensor,
    gpu::Gpu,
    graph::{Align, Attention, AttentionOperand as A, Mask, MaskMod, Op, ScoreMod, Window},
    kernel::{AttentionDTypes, AttentionProblem, CooperativeMatrix, Kernel, Problem, Profile},
    reference::compare::{Check, Expected},
};

/// Every variant; [`Case::takes`] says which of them a device can run.
pub(crate) const VARIANTS: [&str; 8] =
    ["plain", "tiled", "split_kv", "panel", "panel_deep", "block_mask", COOPERATIVE[0], COOPERATIVE[1]];

/// The variants on cooperative matrices, which take f16 and only that.
pub(crate) const COOPERATIVE: [&str; 2] = ["coop_16x16", "coop_8x8"];

/// Whether the device has the matrices of such a variant.
pub(crate) fn has_matrices(variant: &str, profile: &Profile) -> bool {
    let size = if variant == COOPERATIVE[0] { 16 } else { 8 };
    profile.cooperative_matrices.contains(&CooperativeMatrix::square(size, [DType::F16, DType::F32]))
}

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

fn as_dtype(tensor: &Tensor, dtype: DType) -> Tensor {
    let values = tensor.as_f32().expect("f32").iter();
    match dtype {
        DType::F16 => self::tensor(tensor.shape(), values.map(|&x| half::f16::from_f32(x)).collect::<Vec<_>>()),
        DType::BF16 => self::tensor(tensor.shape(), values.map(|&x| half::bf16::from_f32(x)).collect::<Vec<_>>()),
        _ => tensor.clone(),
    }
}

fn widened(tensor: &Tensor) -> Tensor {
    self::tensor(tensor.shape(), tensor.to_f64().into_iter().map(|x| x as f32).collect::<Vec<_>>())
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

/// The bias with −∞ in about `percent` of its elements.
pub(crate) fn hiding(bias: &Tensor, percent: usize, draw: &mut Draw) -> Tensor {
    let shape = bias.shape().clone();
    let values = bias.as_f32().expect("f32").iter();
    let values: Vec<f32> = values.map(|&x| if draw.below(100) < percent { f32::NEG_INFINITY } else { x }).collect();
    tensor(shape, values)
}

/// Options, each of which can be laid over a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    TopLeft,
    BottomRight,
    OffsetBack,
    OffsetAhead,
    PerItem,
    WindowLeft,
    WindowBoth,
    Mask,
    ShortMask,
    Bias,
    KeyLengths,
    QueryLengths,
    Slopes,
    Sinks,
    Softcap,
    Scale,
    ScoreMod,
    MaskMod,
}

impl Kind {
    pub(crate) const ALL: [Kind; 18] = [
        Kind::TopLeft,
        Kind::BottomRight,
        Kind::OffsetBack,
        Kind::OffsetAhead,
        Kind::PerItem,
        Kind::WindowLeft,
        Kind::WindowBoth,
        Kind::Mask,
        Kind::ShortMask,
        Kind::Bias,
        Kind::KeyLengths,
        Kind::QueryLengths,
        Kind::Slopes,
        Kind::Sinks,
        Kind::Softcap,
        Kind::Scale,
        Kind::ScoreMod,
        Kind::MaskMod,
    ];

    /// Whether results of [`Case::routed`] stay exact.
    pub(crate) fn is_exact(self) -> bool {
        self != Kind::Softcap && self != Kind::Sinks
    }

    /// Whether both can be laid over one case.
    pub(crate) fn goes_with(self, other: Kind) -> bool {
        let group = |kind: Kind| match kind {
            Kind::TopLeft | Kind::BottomRight | Kind::OffsetBack | Kind::OffsetAhead | Kind::PerItem => 0,
            Kind::WindowLeft | Kind::WindowBoth => 1,
            Kind::Mask | Kind::ShortMask => 2,
            other => 3 + other as usize,
        };
        group(self) != group(other)
    }

    /// Whether it can be laid over packed sequences as it is.
    pub(crate) fn fits_packed(self) -> bool {
        !matches!(self, Kind::Mask | Kind::ShortMask | Kind::Bias | Kind::KeyLengths | Kind::QueryLengths)
    }

    pub(crate) fn apply(self, mut case: Case, draw: &mut Draw) -> Case {
        let items = case.items();
        let (q, k) = (case.q.shape(), case.k.shape());
        let (heads, tq, tk) = (q[q.rank() - 3], q[q.rank() - 2], k[k.rank() - 2]);
        let (heads, tk) = if q.rank() == 3 { (tq, k[0]) } else { (heads, tk) };
        let mut per_item =
            |lowest: i32, most: usize| i32s(&(0..items).map(|_| lowest + draw.below(most) as i32).collect::<Vec<_>>());
        match self {
            Kind::TopLeft => case.causal(Align::TopLeft),
            Kind::BottomRight => case.causal(Align::BottomRight),
            Kind::OffsetBack => case.causal(Align::Offset(-3)),
            Kind::OffsetAhead => case.causal(Align::Offset(4)),
            Kind::PerItem => {
                let offsets = per_item(-8, 17);
                case.with(A::Offsets, offsets).causal(Align::PerItem)
            }
            Kind::WindowLeft => case.window(Some(3), None),
            Kind::WindowBoth => case.window(Some(2), Some(5)),
            Kind::Mask => case.with(A::Mask, draw.bools([items, heads, tq, tk], 50)),
            Kind::ShortMask => case.with(A::Mask, draw.bools([tq, tk / 2 + 1], 70)),
            Kind::Bias => {
                let bias = draw.integers([items, heads, tq, tk], 9);
                case.with(A::Bias, hiding(&bias, 40, draw))
            }
            Kind::KeyLengths => {
                let lengths = per_item(0, tk + 1);
                case.with(A::KeyLengths, lengths)
            }
            Kind::QueryLengths => {
                let lengths = per_item(0, tq + 1);
                case.with(A::QueryLengths, lengths)
            }
            Kind::Slopes => {
                let slopes: Vec<f32> = (0..heads).map(|h| 0.25 * (h % 4) as f32 - 0.5).collect();
                case.with(A::Slopes, tensor([heads], slopes))
            }
            Kind::Sinks => {
                let sinks: Vec<f32> = (0..heads).map(|h| 0.5 * (h % 5) as f32 - 1.0).collect();
                case.with(A::Sinks, tensor([heads], sinks))
            }
            Kind::Softcap => {
                case.options.softcap = Some(2.0);
                case
            }
            Kind::Scale => {
                case.options.scale = Some(2.0);
                case
            }
            Kind::ScoreMod => {
                // A table of the distance, by head: whole numbers, and some −∞.
                let table = draw.integers([heads, 9], 9);
                let function =
                    ScoreMod::new("let at = h * 9 + clamp(j - position, -4, 4) + 4;\nreturn score + table[at];", |s| {
                        s.score + s.table(s.h * 9 + (s.j - s.position).clamp(-4, 4) + 4)
                    });
                case.options.score_mods.push(function.expect("compiles"));
                case.with(A::ScoreTable, hiding(&table, 10, draw))
            }
            Kind::MaskMod => {
                // Keys of the query's own document, and the first of each item's.
                let function = MaskMod::new("table[j] == table[(i + b + h_kv) % q_len] || j == k_len - 1", |s| {
                    s.table(s.j) == s.table((s.i + s.b + s.h_kv) % s.q_len) || s.j == s.k_len - 1
                });
                case.options.mask_mods.push(function.expect("compiles"));
                case.with(A::MaskTable, draw.integers([tk.max(1)], 1))
            }
        }
    }
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

    /// Scores at least 128 apart, so that each row gives exactly the value of the best key that it sees, and lse its score.
    pub(crate) fn routed(name: impl Into<String>, sizes: Sizes, draw: &mut Draw) -> Self {
        let mut case = Case::new(name, sizes, draw);
        let (b, hq, hkv, tq, tk, d, dv) = sizes;
        let mut q = vec![0.0f32; b * hq * tq * d];
        for row in q.chunks_mut(d.max(1)) {
            row[draw.below(d)] = [1.0, -1.0][draw.below(2)];
        }
        let mut k = vec![0.0f32; b * hkv * tk * d];
        for head in k.chunks_mut((tk * d).max(1)) {
            for column in 0..d {
                let mut ranks: Vec<usize> = (0..tk).collect();
                for j in (1..tk).rev() {
                    ranks.swap(j, draw.below(j + 1));
                }
                ranks.into_iter().enumerate().for_each(|(j, rank)| head[j * d + column] = 128.0 * rank as f32);
            }
        }
        case.options.scale = Some(1.0);
        case.q = tensor([b, hq, tq, d], q);
        case.k = tensor([b, hkv, tk, d], k);
        case.v = draw.integers([b, hkv, tk, dv], 999);
        case
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

    /// The same case with k and v in pages of `rows` rows, which lie anywhere: keys of an item are as many as before, and the last
    /// page may be partly filled. With `share`, all items read the pages of item 0.
    pub(crate) fn paged(&self, rows: usize, share: bool, draw: &mut Draw) -> Self {
        let mut case = self.clone();
        let [items, heads, keys, _] = case.k.shape()[..] else { panic!("rank 4") };
        if case.options.input_of(A::KeyLengths).is_none() {
            case = case.with(A::KeyLengths, i32s(&vec![keys as i32; items]));
        }
        let each = keys.div_ceil(rows) + 1;
        let spare = 3;
        let owned = if share { items.min(1) } else { items };
        let count = owned * each + spare;
        let mut order: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            order.swap(i, draw.below(i + 1));
        }
        let page = |b: usize, n: usize| order[(if share { 0 } else { b }) * each + n];
        let paged = |x: &Tensor| {
            let (data, width) = (x.as_f32().expect("f32"), x.shape()[3]);
            let mut pages = vec![77.0f32; count * rows * heads * width];
            for (b, h, j) in (0..owned * heads * keys).map(|e| (e / heads / keys, e / keys % heads, e % keys)) {
                let to = ((page(b, j / rows) * rows + j % rows) * heads + h) * width;
                pages[to..to + width].copy_from_slice(&data[((b * heads + h) * keys + j) * width..][..width]);
            }
            tensor([count, rows, heads, width], pages)
        };
        (case.k, case.v) = (paged(&self.k), paged(&self.v));
        // The entry past the keys is looked at by nobody.
        let entry = |e: usize| if e % each < keys.div_ceil(rows) { page(e / each, e % each) as i32 } else { -1 };
        let table: Vec<i32> = (0..items * each).map(entry).collect();
        case.name = format!("{}, paged by {rows}{}", case.name, if share { ", shared" } else { "" });
        case.with(A::BlockTable, tensor([items, each], table))
    }

    /// Another last operand.
    pub(crate) fn with_last(mut self, tensor: Tensor) -> Self {
        self.extra.pop();
        self.extra.push(tensor);
        self
    }

    /// q, k, v and the bias stored so, each rounded.
    pub(crate) fn stored(mut self, [q, k, v, bias]: [DType; 4]) -> Self {
        (self.q, self.k, self.v) = (as_dtype(&self.q, q), as_dtype(&self.k, k), as_dtype(&self.v, v));
        if let Some(input) = self.options.input_of(A::Bias) {
            self.extra[input - 3] = as_dtype(&self.extra[input - 3], bias);
        }
        self
    }

    /// B, or the number of packed sequences.
    fn items(&self) -> usize {
        match self.options.input_of(A::QueryOffsets) {
            Some(input) => self.extra[input - 3].len() - 1,
            None => self.q.shape()[0],
        }
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
        let bias = self.options.input_of(A::Bias).map_or(DType::F32, |input| self.extra[input - 3].dtype());
        let [q, k, v] = [&self.q, &self.k, &self.v].map(Tensor::dtype);
        problem.dtypes = AttentionDTypes { q, k, v, bias, out: q };
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
        let mut outputs = vec![(problem.dtypes.out, problem.out_shape().clone())];
        if self.lse {
            outputs.push((DType::F32, problem.lse_shape()));
        }
        if self.status {
            outputs.push((DType::I32, problem.status_shape()));
        }
        let mut results = gpu.run_kernel(kernel, &buffers.iter().collect::<Vec<_>>(), &outputs)?;
        let places = places(&problem.out);
        macro_rules! gathered {
            ($values:expr) => {
                tensor(problem.out_shape(), places.iter().map(|&place| $values[place]).collect::<Vec<_>>())
            };
        }
        results[0] = match results[0].data() {
            tilewise::Data::F32(values) => gathered!(values),
            tilewise::Data::F16(values) => gathered!(values),
            tilewise::Data::BF16(values) => gathered!(values),
            other => panic!("out is {:?}", other),
        };
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
    pub(crate) fn check(&self, variant: &str, gpu: &Gpu, mut check: Check) {
        if let (Check::Measured { magnitude }, true) = (&mut check, COOPERATIVE.contains(&variant)) {
            // The weights are rounded as out is, but that by which they are multiplied is v.
            *magnitude = self.v.to_f64().into_iter().fold(*magnitude, |most, v| most.max(v.abs()));
        }
        match self.compare(self.run(variant, gpu), check) {
            Ok(ratio) => eprintln!("{variant:>9} {ratio:.3} of the bound: {}", self.name),
            Err(message) => panic!("{variant}: {}\n{:#?}\n{message}", self.name, self.problem().0),
        }
    }

    /// Whether a variant takes the case: a panel needs columns that registers hold, and subgroups of one known size; a block mask a
    /// mask; cooperative matrices columns as well, and f16; a row of `plain` is variables of an invocation.
    pub(crate) fn takes(&self, variant: &str, profile: &Profile) -> bool {
        let width = |tensor: &Tensor| tensor.shape().last().copied().unwrap_or(0);
        let (least, most) = (width(&self.q).min(width(&self.v)), width(&self.q).max(width(&self.v)));
        let columns = least > 0 && most <= 256;
        let fixed = profile.subgroup.is_some_and(|(least, most)| least == most);
        match variant {
            "panel" => fixed && columns,
            // For large problems: it says itself which.
            "panel_deep" => {
                let candidates = self.problem().0.candidates(profile);
                candidates.iter().any(|candidate| candidate.variant == variant && candidate.is_usable())
            }
            _ if COOPERATIVE.contains(&variant) => {
                fixed && columns && has_matrices(variant, profile) && self.is_halves()
            }
            "block_mask" => self.options.operands.contains(&A::Mask),
            "plain" => most <= 960,
            _ => true,
        }
    }

    /// The variants that take the case on this device.
    pub(crate) fn variants(&self, gpu: &Gpu) -> impl Iterator<Item = &'static str> {
        VARIANTS.into_iter().filter(|variant| self.takes(variant, gpu.profile()))
    }

    /// [`Case::check`] for every variant that takes it; and in f16 for those that take nothing else, where the device has them.
    pub(crate) fn check_all(&self, gpu: &Gpu, check: Check) {
        for variant in self.variants(gpu) {
            self.check(variant, gpu, check);
        }
        if !self.is_halves() {
            self.check_halves(gpu, check);
        }
    }

    fn is_halves(&self) -> bool {
        [&self.q, &self.k, &self.v].iter().all(|tensor| tensor.dtype() == DType::F16)
    }

    /// The case in f16, by the variants on cooperative matrices that the device has.
    pub(crate) fn check_halves(&self, gpu: &Gpu, check: Check) {
        if !COOPERATIVE.iter().any(|variant| has_matrices(variant, gpu.profile())) {
            return;
        }
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|tensor| as_dtype(&widened(tensor), DType::F16));
        let case = Case { q, k, v, ..self.clone() };
        for variant in case.variants(gpu).filter(|variant| COOPERATIVE.contains(variant)) {
            case.check(variant, gpu, check);
        }
    }
}

/// Attention of one item as a graph: `q`, `k` and `v` of as many tokens, and `y`.
pub(crate) fn graph(tokens: usize, heads: usize, width: usize, mask: Mask) -> Graph {
    let mut g = Graph::new();
    let mut operand = |name: &str| g.input(name, DType::F32, [1, heads, tokens, width]).expect("fits");
    let (q, k, v) = (operand("q"), operand("k"), operand("v"));
    let y = g.attention(q, k, v, mask).expect("fits");
    g.output("y", y).expect("a new name");
    g
}
