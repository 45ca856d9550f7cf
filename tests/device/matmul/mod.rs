//! Every variant of matmul against the reference: first on data whose results are exact, then within bounds.

mod coop;
mod panel;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use half::{bf16, f16};
use proptest::prelude::*;
use tilewise::{
    DType, Graph, Layout, Tensor,
    gpu::Gpu,
    graph::{Binary, Unary},
    kernel::{
        AdapterKind, Candidate, CooperativeMatrix, Epilogue, MatmulDTypes, MatmulProblem, Problem, Profile, Verdict,
    },
    reference::compare::{Check, Expected},
};

use crate::common::{
    checked_gpu, gpu,
    matmul::variants,
    rows::{Draw, Lie, View, profiles},
    view::translates,
};

/// A problem and its operands.
#[derive(Clone, Debug)]
struct Case {
    a: View,
    b: View,
    scale: Option<f32>,
    bias: Option<View>,
    activation: Option<Unary>,
    residual: Option<View>,
    out: DType,
}

impl Case {
    fn new(a: View, b: View) -> Self {
        Case { a, b, scale: None, bias: None, activation: None, residual: None, out: DType::F32 }
    }

    /// Dense operands of small integers.
    fn exact(draw: &mut Draw, a: &[usize], b: &[usize]) -> Self {
        Case::new(integers(draw, a, Lie::Dense), integers(draw, b, Lie::Dense))
    }

    fn problem(&self) -> MatmulProblem {
        let layout = |view: &Option<View>| view.as_ref().map(|view| view.layout.clone());
        let epilogue = Epilogue {
            scale: self.scale,
            bias: layout(&self.bias),
            activation: self.activation,
            residual: layout(&self.residual),
        };
        let dtype = |view: &Option<View>| view.as_ref().map_or(DType::F32, |view| view.buffer.dtype());
        let dtypes = MatmulDTypes {
            a: self.a.buffer.dtype(),
            b: self.b.buffer.dtype(),
            bias: dtype(&self.bias),
            residual: dtype(&self.residual),
            out: self.out,
        };
        let problem = MatmulProblem::new(&self.a.layout, &self.b.layout, epilogue).expect("the shapes fit");
        problem.stored_as(dtypes).expect("all are floats")
    }

    fn inputs(&self) -> Vec<&Tensor> {
        [Some(&self.a), Some(&self.b), self.bias.as_ref(), self.residual.as_ref()]
            .into_iter()
            .flatten()
            .map(|view| &view.buffer)
            .collect()
    }

    /// The same as a graph.
    fn expected(&self, check: Check) -> Expected {
        let mut g = Graph::new();
        let mut inputs = BTreeMap::new();
        let mut input = |g: &mut Graph, name: &str, view: &View| {
            let tensor = view.read();
            let value = g.input(name, tensor.dtype(), tensor.shape()).expect("an input");
            inputs.insert(name.to_string(), tensor);
            g.cast(value, DType::F32).expect("f32 holds it")
        };
        let (a, b) = (input(&mut g, "a", &self.a), input(&mut g, "b", &self.b));
        let mut x = g.matmul(a, b).expect("a product");
        if let Some(scale) = self.scale {
            let scale = g.constant(Tensor::scalar(scale)).expect("a scalar");
            x = g.binary(Binary::Mul, x, scale).expect("a scalar");
        }
        if let Some(bias) = &self.bias {
            let bias = input(&mut g, "bias", bias);
            x = g.binary(Binary::Add, x, bias).expect("it broadcasts");
        }
        if let Some(activation) = self.activation {
            x = g.unary(activation, x).expect("a float");
        }
        if let Some(residual) = &self.residual {
            let residual = input(&mut g, "residual", residual);
            x = g.binary(Binary::Add, x, residual).expect("it broadcasts");
        }
        let x = g.cast(x, self.out).expect("a float");
        g.output("out", x).expect("an output");
        Expected::of_graph(&g, &inputs, check).expect("the reference takes it")
    }

    /// Runs every variant, those for software adapters and those for GPUs, and compares.
    fn check(&self, check: Check) {
        self.check_variants(check, |_| true);
    }

    /// Runs variants that between them use all of the text that the files share. To be used where what varies is only
    /// there: compiling each variant anew is what these tests take their time for.
    fn check_shared(&self, check: Check) {
        self.check_variants(check, |variant| ["plain", "register", "tiled_32x32"].contains(&variant));
    }

    /// Runs one variant of each shader, another at each turn: those of one shader differ in constants, and compiling is what
    /// these tests take their time for. To be used where there are several turns, which between them run every variant.
    fn check_in_turn(&self, turn: usize, check: Check) {
        let problem = self.problem();
        let mut shaders: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for profile in profiles(gpu()) {
            for candidate in problem.candidates(&profile).iter().filter(|candidate| candidate.is_usable()) {
                let shader = match candidate.variant {
                    "split_k" => "tiled",
                    variant => variant.split('_').next().unwrap_or(variant),
                };
                shaders.entry(shader).or_default().insert(candidate.variant);
            }
        }
        let chosen: Vec<&str> = shaders.values().filter_map(|of| of.iter().nth(turn % of.len()).copied()).collect();
        self.check_variants(check, |variant| chosen.contains(&variant));
    }

    fn check_variants(&self, check: Check, wanted: impl Fn(&str) -> bool) {
        let (problem, expected) = (self.problem(), self.expected(check));
        let outputs = [(self.out, problem.output_shape().clone())];
        let mut done = BTreeSet::new();
        for profile in profiles(gpu()) {
            for Candidate { variant, verdict } in problem.candidates(&profile) {
                let label = format!("{} {variant}", problem.summary());
                if let Verdict::Refused(reason) = verdict {
                    assert!(may_refuse(variant, &reason, &profile), "{label}: refused: {reason}");
                    assert!(problem.kernel(variant, &profile).is_err(), "{label}: was refused");
                    continue;
                }
                if !wanted(variant) || !done.insert(variant) {
                    continue;
                }
                let kernel = problem.kernel(variant, &profile).unwrap_or_else(|error| panic!("{label}: {error}"));
                kernel.launches.iter().for_each(|launch| translates(&launch.source));
                let results = gpu().run_kernel(&kernel, &self.inputs(), &outputs);
                let results = results.unwrap_or_else(|error| panic!("{label}: {error}\n{self:?}"));
                match expected.compare(&results) {
                    Ok(close) => eprintln!("{label}: {}", close[0]),
                    Err(wrong) => panic!("{label}: {wrong}\n{problem:?}"),
                }
            }
        }
        assert!(done.contains("plain"), "{}: plain runs everywhere", problem.summary());
    }
}

/// Whether this is a reason for which a variant may refuse a problem.
fn may_refuse(variant: &str, reason: &str, profile: &Profile) -> bool {
    let subgroup = profile.subgroup.is_some_and(|(least, most)| least == most && [4, 8, 16].contains(&least));
    match variant {
        "plain" => false,
        _ if reason.starts_with("K = 0:") => true,
        "vec" => reason.starts_with("M = "),
        "subgroup" => {
            reason.starts_with("M = ")
                || reason.starts_with("takes subgroups of one size") && profile.fixed_subgroup().is_none()
                || reason.starts_with("takes up to 4 rows and a b") && profile.kind == AdapterKind::Gpu
        }
        "coop_16x16" | "coop_8x8" => {
            reason.starts_with("takes f16 operands")
                || reason.starts_with("the device has no ") && cooperative(variant, profile).is_none()
        }
        "split_k" => reason.contains("too short a sum"),
        "panel_deep" if reason.starts_with("K = ") => reason.contains("for sums of"),
        "panel_deep" if reason == "panel is as deep" => true,
        "panel" | "panel_deep" => profile.kind == AdapterKind::Gpu || !subgroup,
        "panel_uniform" => profile.kind == AdapterKind::Gpu,
        _ => false,
    }
}

/// The cooperative matrices of a variant, if the device has them.
fn cooperative(variant: &str, profile: &Profile) -> Option<CooperativeMatrix> {
    let size = if variant == "coop_16x16" { 16 } else { 8 };
    let matrix = CooperativeMatrix::square(size, [DType::F16, DType::F32]);
    profile.cooperative_matrices.contains(&matrix).then_some(matrix)
}

fn floats(draw: &mut Draw, shape: &[usize], lie: Lie) -> View {
    View::new(shape, lie, |n| draw.floats(n).into())
}

fn integers(draw: &mut Draw, shape: &[usize], lie: Lie) -> View {
    View::new(shape, lie, |n| draw.integers(n, 6).into())
}

#[test]
fn sizes() {
    let mut draw = Draw::new(1);
    let tiles = [1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 67, 127, 128, 129];
    let mut sizes: Vec<[usize; 3]> =
        tiles.iter().flat_map(|&s| [[s, 13, 9], [11, s, 6], [6, 10, s], [s, s, s]]).collect();
    sizes.extend([
        [259, 131, 67],
        [5, 259, 131],
        [12, 36, 515],
        [1, 1, 2053],
        [1, 771, 1030],
        [8, 68, 516],
        [35, 35, 35],
    ]);
    for [m, n, k] in sizes {
        Case::exact(&mut draw, &[m, k], &[k, n]).check(Check::Exact);
    }
}

#[test]
fn floats_are_within_bounds() {
    let mut draw = Draw::new(2);
    for [m, n, k] in [[3, 5, 7], [1, 64, 512], [37, 29, 301], [64, 64, 64], [8, 100, 260], [130, 132, 128]] {
        let case = Case::new(floats(&mut draw, &[m, k], Lie::Dense), floats(&mut draw, &[k, n], Lie::Dense));
        case.check(Check::measured());
    }
}

#[test]
fn batches_broadcast_both_ways() {
    let mut draw = Draw::new(3);
    let shapes: [(&[usize], &[usize]); 10] = [
        (&[3, 9, 5], &[3, 5, 7]),
        (&[3, 9, 5], &[5, 7]),
        (&[9, 5], &[3, 5, 7]),
        (&[2, 3, 9, 5], &[3, 5, 7]),
        (&[3, 9, 5], &[2, 1, 5, 7]),
        (&[2, 1, 9, 5], &[1, 3, 5, 7]),
        (&[2, 1, 2, 9, 5], &[3, 1, 5, 7]),
        (&[1, 2, 1, 3, 9, 5], &[2, 1, 2, 1, 5, 7]),
        (&[5, 1, 1, 6], &[5, 1, 6, 1]),
        (&[70, 2, 4], &[70, 4, 3]),
    ];
    for (turn, (a, b)) in shapes.into_iter().enumerate() {
        Case::exact(&mut draw, a, b).check_in_turn(turn, Check::Exact);
    }
}

#[test]
fn operands_may_lie_in_any_way() {
    let mut draw = Draw::new(4);
    // Sizes in whole words of four, and not.
    for (turn, [batch, m, n, k]) in [[2, 12, 20, 16], [3, 9, 7, 5]].into_iter().enumerate() {
        for (i, a) in Lie::ALL.into_iter().enumerate() {
            for (j, b) in [Lie::ALL[(i + 1) % 6], Lie::ALL[(i + 3) % 6]].into_iter().enumerate() {
                let (a, b) = (integers(&mut draw, &[batch, m, k], a), integers(&mut draw, &[batch, k, n], b));
                // Each variant meets each way of lying, as a or as b.
                Case::new(a, b).check_in_turn(turn + i + j, Check::Exact);
            }
        }
    }
}

#[test]
fn transposed_by_strides() {
    let mut draw = Draw::new(5);
    for [m, n, k] in [[20, 36, 68], [5, 129, 67], [66, 40, 33]] {
        for transposed in 1..4 {
            let mut operand = |rows: usize, columns: usize, transposed: bool| {
                let sizes = if transposed { [2, columns, rows] } else { [2, rows, columns] };
                let mut view = integers(&mut draw, &sizes, Lie::Dense);
                if transposed {
                    view.layout = view.layout.permute(&[0, 2, 1]);
                }
                view
            };
            let (a, b) = (operand(m, k, transposed & 1 == 1), operand(k, n, transposed & 2 == 2));
            Case::new(a, b).check(Check::Exact);
        }
    }
}

#[test]
fn permuted_heads() {
    let mut draw = Draw::new(6);
    // [B, T, H, D] as a projection gives it: q·kᵀ and p·v per head.
    let mut q = integers(&mut draw, &[2, 11, 3, 8], Lie::Dense);
    q.layout = q.layout.permute(&[0, 2, 1, 3]);
    let mut k = integers(&mut draw, &[2, 13, 3, 8], Lie::Dense);
    let mut v = k.clone();
    k.layout = k.layout.permute(&[0, 2, 3, 1]);
    v.layout = v.layout.permute(&[0, 2, 1, 3]);
    Case::new(q, k).check(Check::Exact);
    let p = integers(&mut draw, &[2, 3, 11, 13], Lie::Dense);
    Case::new(p, v).check(Check::Exact);
}

#[test]
fn each_part_of_the_epilogue_alone_and_with_the_others() {
    let mut draw = Draw::new(7);
    for (turn, parts) in [1, 2, 4, 8, 3, 6, 9, 15usize].into_iter().enumerate() {
        // In whole words of four, and not; few rows and many.
        let [m, n, k] = if parts.count_ones() % 2 == 0 { [7, 36, 40] } else { [19, 21, 33] };
        let on = |bit: usize| parts >> bit & 1 == 1;
        let mut case = Case::exact(&mut draw, &[2, m, k], &[2, k, n]);
        case.scale = on(0).then_some(0.5);
        case.bias = on(1).then(|| integers(&mut draw, &[n], Lie::Dense));
        case.activation = on(2).then_some(Unary::Relu);
        case.residual = on(3).then(|| integers(&mut draw, &[2, m, n], Lie::Dense));
        case.check_in_turn(turn, Check::Exact);
    }
}

#[test]
fn bias_and_residual_broadcast_from_the_right() {
    let mut draw = Draw::new(8);
    let shapes: [&[usize]; 9] =
        [&[], &[1], &[12], &[10, 1], &[10, 12], &[3, 1, 1], &[2, 1, 10, 12], &[1, 3, 10, 12], &[2, 3, 10, 12]];
    for (i, &bias) in shapes.iter().enumerate() {
        for b in [&[8, 12][..], &[3, 8, 12]] {
            let mut case = Case::exact(&mut draw, &[2, 3, 10, 8], b);
            let lie = Lie::ALL[i % 6];
            case.bias = Some(integers(&mut draw, bias, if bias.is_empty() { Lie::Dense } else { lie }));
            case.residual = Some(integers(&mut draw, shapes[8 - i], Lie::Dense));
            case.check_shared(Check::Exact);
        }
    }
}

#[test]
fn activations() {
    let mut draw = Draw::new(9);
    let functions =
        Unary::ALL.into_iter().filter(|f| !matches!(f, Unary::Not | Unary::Log | Unary::Sqrt | Unary::Rsqrt));
    for (i, function) in functions.filter(|f| !matches!(f, Unary::Reciprocal | Unary::Round | Unary::Sign)).enumerate()
    {
        let n = 12 + i % 2;
        let mut case = Case::new(floats(&mut draw, &[9, 16], Lie::Dense), floats(&mut draw, &[16, n], Lie::Dense));
        case.activation = Some(function);
        case.bias = Some(floats(&mut draw, &[n], Lie::Dense));
        // Floor and ceil of integers, where rounding decides nothing.
        if matches!(function, Unary::Floor | Unary::Ceil) {
            let bias = case.bias.take();
            case = Case { bias, ..Case::exact(&mut draw, &[9, 16], &[16, n]) };
            case.activation = Some(function);
        }
        case.check_shared(Check::measured());
    }
}

/// The same numbers in another dtype, which has to hold them.
fn stored(mut view: View, dtype: DType) -> View {
    let data = view.buffer.as_f32().expect("f32");
    let shape = view.buffer.shape();
    let buffer = match dtype {
        DType::F16 => Tensor::new(shape, data.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>()),
        DType::BF16 => Tensor::new(shape, data.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>()),
        _ => Ok(view.buffer.clone()),
    };
    view.buffer = buffer.expect("as many elements");
    view
}

const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

#[test]
fn every_mix_of_dtypes_is_read_and_written_as_it_lies() {
    let mut draw = Draw::new(14);
    // Rows of the result in whole words of four, of two, and rows that share words; one row that ends within a word; a column.
    let sizes = [[6, 36, 40], [35, 34, 33], [9, 13, 70], [1, 77, 131], [33, 1, 12], [66, 129, 64], [131, 40, 150]];
    let mixes = FLOATS.iter().flat_map(|&a| FLOATS.map(|b| [a, b])).filter(|mix| *mix != [DType::F32; 2]);
    for (i, [a, b]) in mixes.cycle().take(2 * sizes.len()).enumerate() {
        let [m, n, k] = sizes[i % sizes.len()];
        // 16-bit results of most, f32 of some.
        let out = [a, b, DType::F16][i % 3];
        let mut case = Case::new(
            stored(integers(&mut draw, &[2, m, k], Lie::ALL[i % 6]), a),
            stored(integers(&mut draw, &[k, n], Lie::ALL[(i / 2) % 6]), b),
        );
        (case.scale, case.out) = (Some(0.5), out);
        case.bias = Some(stored(integers(&mut draw, &[n], Lie::Dense), b));
        case.residual = Some(stored(integers(&mut draw, &[2, m, n], Lie::Dense), out));
        case.check_shared(Check::Exact);
    }
}

#[test]
fn every_variant_reads_and_writes_narrow_dtypes() {
    let mut draw = Draw::new(16);
    for (i, [m, n, k]) in [[6, 36, 520], [35, 34, 36], [3, 13, 72]].into_iter().enumerate() {
        let (a, b) = (integers(&mut draw, &[m, k], Lie::Dense), integers(&mut draw, &[k, n], Lie::Dense));
        let mut case = Case::new(stored(a, FLOATS[i]), stored(b, FLOATS[(i + 1) % 3]));
        (case.out, case.scale) = (FLOATS[1 + i % 2], Some(0.5));
        case.check(Check::Exact);
    }
}

#[test]
fn narrow_floats_are_within_bounds() {
    let mut draw = Draw::new(15);
    for dtype in [DType::F16, DType::BF16] {
        for [m, n, k] in [[1, 64, 512], [40, 32, 300]] {
            let mut case = Case::new(
                stored(floats(&mut draw, &[m, k], Lie::Dense), dtype),
                stored(floats(&mut draw, &[n, k], Lie::Dense), dtype),
            );
            case.b.layout = Layout::contiguous([n, k]).permute(&[1, 0]);
            case.out = dtype;
            case.check(Check::measured());
        }
    }
}

#[test]
fn sums_of_nothing_are_zero() {
    let mut draw = Draw::new(10);
    let mut case = Case::exact(&mut draw, &[2, 3, 0], &[0, 5]);
    case.check(Check::Exact);
    case.scale = Some(3.0);
    case.bias = Some(integers(&mut draw, &[5], Lie::Dense));
    case.residual = Some(integers(&mut draw, &[3, 5], Lie::Dense));
    case.check(Check::Exact);
}

#[test]
fn empty_results() {
    let mut draw = Draw::new(11);
    let shapes: [(&[usize], &[usize]); 5] = [
        (&[0, 4], &[4, 5]),
        (&[3, 4], &[4, 0]),
        (&[0, 3, 4], &[4, 5]),
        (&[2, 1, 3, 4], &[2, 0, 4, 5]),
        (&[0, 0], &[0, 0]),
    ];
    for (a, b) in shapes {
        let case = Case::exact(&mut draw, a, b);
        case.check(Check::Exact);
        let problem = case.problem();
        for candidate in problem.candidates(gpu().profile()).iter().filter(|candidate| candidate.is_usable()) {
            let kernel = problem.kernel(candidate.variant, gpu().profile()).expect("it is usable");
            assert!(kernel.launches.iter().all(|launch| launch.grid.contains(&0)), "{}", candidate.variant);
        }
    }
}

#[test]
fn long_grids_are_folded() {
    let mut draw = Draw::new(12);
    let mut narrow = gpu().profile().clone();
    narrow.limits.workgroups_per_dimension = 11;
    for [m, n, k] in [[35, 131, 40], [67, 260, 33], [5, 1000, 70]] {
        let case = Case::exact(&mut draw, &[m, k], &[k, n]);
        let (problem, expected) = (case.problem(), case.expected(Check::Exact));
        for variant in variants() {
            let Ok(kernel) = problem.kernel(variant, &narrow) else {
                continue;
            };
            let [x, y, z] = kernel.launches[0].grid;
            assert!(x <= 11 && y <= 11 && z == 1);
            let results = gpu().run_kernel(&kernel, &case.inputs(), &[(DType::F32, problem.output_shape().clone())]);
            expected.compare(&results.expect("it runs")).unwrap_or_else(|wrong| panic!("{variant}: {wrong}"));
        }
    }
}

#[test]
fn checked_and_trusted_shaders_give_the_same_bits() {
    let mut draw = Draw::new(13);
    let sizes = [
        ([70, 67, 300], DType::F32),
        ([7, 36, 260], DType::F32),
        ([3, 41, 33], DType::F32),
        ([66, 34, 300], DType::F16),
        ([7, 36, 260], DType::F16),
        ([5, 37, 35], DType::BF16),
    ];
    for (([m, n, k], dtype), lie) in sizes.into_iter().flat_map(|size| [(size, Lie::Dense), (size, Lie::Turned)]) {
        let mut operand = |shape: &[usize], lie: Lie| stored(floats(&mut draw, shape, lie), dtype);
        let mut case = Case::new(operand(&[m, k], Lie::Dense), operand(&[k, n], lie));
        (case.bias, case.out) = (Some(operand(&[n], Lie::Dense)), dtype);
        let problem = case.problem();
        let outputs = [(dtype, problem.output_shape().clone())];
        // The other shaders are never trusted; of those that are, `subgroup` has a text for each lie of b.
        let trusted = |v: &&str| if lie == Lie::Dense { !["plain", "register"].contains(v) } else { *v == "subgroup" };
        for variant in variants().into_iter().filter(trusted) {
            let Ok(kernel) = problem.kernel(variant, gpu().profile()) else {
                continue;
            };
            let bits = |gpu: &Gpu| gpu.run_kernel(&kernel, &case.inputs(), &outputs).expect("it runs");
            assert_eq!(bits(gpu())[0].as_bytes(), bits(checked_gpu())[0].as_bytes(), "{variant} {}", problem.summary());
        }
    }
}

fn lies() -> impl Strategy<Value = Lie> {
    proptest::sample::select(Lie::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn drawn_at_random(
        [m, n, k] in [1usize..80, 1..80, 0..140],
        batch in proptest::collection::vec((1usize..4, 0usize..3), 0..3),
        (a_lie, b_lie) in (lies(), lies()),
        (bias, residual, relu, scale) in (0usize..4, 0usize..4, any::<bool>(), any::<bool>()),
        seed: u64,
    ) {
        let mut draw = Draw::new(seed);
        // Each batch axis is missing a size in a (1), in b (2), or in neither (0).
        let narrow = |which: usize| batch.iter().map(move |&(size, in_one)| if in_one == which { 1 } else { size });
        let shape = |which: usize, tail: [usize; 2]| narrow(which).chain(tail).collect::<Vec<_>>();
        let (a, b) = (integers(&mut draw, &shape(1, [m, k]), a_lie), integers(&mut draw, &shape(2, [k, n]), b_lie));
        let mut case = Case::new(a, b);
        let full = shape(3, [m, n]);
        let tail = |axes: usize| full[full.len().saturating_sub(axes)..].to_vec();
        case.bias = (bias > 0).then(|| integers(&mut draw, &tail(bias), b_lie));
        case.residual = (residual > 0).then(|| integers(&mut draw, &tail(residual), a_lie));
        case.activation = relu.then_some(Unary::Relu);
        case.scale = scale.then_some(2.0);
        case.check_in_turn((seed % 64) as usize, Check::Exact);
    }
}
