//! Long and drawn expressions, and chains that overwrite an operand.

use proptest::prelude::*;
use tilewise::{
    DType, Layout, Shape, Tensor,
    graph::{Binary, Unary},
    kernel::{Arg, Instr, Kernel, PointwiseProblem, Problem, buffer_bytes},
    lower::{Buffer, BufferId, Program, Role, Step},
    reference::compare::Bound,
};

use super::{check_exact, check_within, dense, extra};
use crate::common::{
    gpu,
    view::{self, Rng, small, tensor},
};

#[test]
fn gelu_of_a_sum_with_bias_and_residual() {
    let mut rng = Rng(21);
    let n = 1537;
    let mut draw = || tensor(DType::F32, [n], &(0..n).map(|_| rng.unit() * 8.0 - 4.0).collect::<Vec<_>>());
    let (x, bias, residual) = (draw(), draw(), draw());
    let body = vec![
        Instr::Binary(Binary::Add, Arg::Operand(0), Arg::Operand(1)),
        Instr::Unary(Unary::Gelu, Arg::Instr(0)),
        Instr::Binary(Binary::Mul, Arg::Instr(1), Arg::Scalar(DType::F32, 0.125)),
        Instr::Binary(Binary::Add, Arg::Instr(2), Arg::Operand(2)),
    ];
    let problem = dense(&[&x, &bias, &residual], DType::F32, body);
    let looser = extra(&problem);
    let found =
        check_within(&problem, &[&x, &bias, &residual], |wide, plain| Bound::measured(wide, plain, looser, 8.0));
    println!("{found}");
}

#[test]
fn a_chain_of_sixty_instructions() {
    let mut rng = Rng(22);
    let x = small(&mut rng, DType::F32, &[77].into());
    let mut body = vec![Instr::Binary(Binary::Add, Arg::Operand(0), Arg::Scalar(DType::F32, 1.0))];
    for n in 0..60 {
        let scalar = Arg::Scalar(DType::F32, f64::from(n % 5) - 2.0);
        let function = if n % 2 == 0 { Binary::Add } else { Binary::Max };
        body.push(Instr::Binary(function, Arg::Instr(n as usize), scalar));
    }
    check_exact(&dense(&[&x], DType::F32, body), &[&x]);
}

/// A program that copies `inputs[overwritten]` to a buffer, runs the problem there in place, and copies the result out.
fn in_place_program(problem: &PointwiseProblem, overwritten: usize, inputs: &[&Tensor]) -> Program {
    let profile = gpu().profile();
    let variant = problem.candidates(profile)[0].variant;
    let copy = |dtype: DType| {
        let operands = vec![(dtype, Layout::contiguous(&problem.shape))];
        let body = vec![Instr::Cast(dtype, Arg::Operand(0))];
        PointwiseProblem::new(&problem.shape, dtype, operands, body).kernel(variant, profile).expect("it can run")
    };
    let mut buffers = Vec::new();
    let mut add = |dtype: DType, role: Role| {
        let bytes = buffer_bytes(dtype, problem.shape.elements().expect("small"));
        buffers.push(Buffer { name: format!("b{}", buffers.len()), dtype, shape: problem.shape.clone(), bytes, role });
        BufferId(buffers.len() - 1)
    };
    let given: Vec<BufferId> =
        inputs.iter().enumerate().map(|(n, x)| add(x.dtype(), Role::Input(format!("x{n}")))).collect();
    let dtype = inputs[overwritten].dtype();
    let (before, after) = (add(dtype, Role::Temporary(0)), add(problem.dtype, Role::Temporary(0)));
    let out = add(problem.dtype, Role::Output("out".into()));
    let step = |kernel: Kernel, inputs: Vec<BufferId>, output: BufferId, in_place: Option<usize>| Step {
        key: String::new(),
        family: "pointwise",
        variant,
        reason: String::new(),
        candidates: Vec::new(),
        summary: String::new(),
        covers: Vec::new(),
        kernel,
        inputs,
        outputs: vec![output],
        workspace: Vec::new(),
        in_place,
    };
    let mut operands = given.clone();
    operands[overwritten] = before;
    let kernel = problem.kernel(variant, profile).expect("it can run");
    let steps = vec![
        step(copy(dtype), vec![given[overwritten]], before, None),
        step(kernel, operands, after, Some(overwritten)),
        step(copy(problem.dtype), vec![after], out, None),
    ];
    let bytes = buffers[before.0].bytes;
    Program { buffers, allocations: vec![bytes], steps, submissions: Vec::new(), notes: Vec::new(), unfused_bytes: 0 }
}

#[test]
fn an_output_takes_over_an_operand() {
    let mut rng = Rng(23);
    for n in [1, 4, 131] {
        let shape = Shape::from([n]);
        for (first, second, output) in [
            (DType::F32, DType::F32, DType::F32),
            (DType::I32, DType::F32, DType::F32),
            (DType::F32, DType::Bool, DType::I32),
            (DType::F16, DType::F32, DType::BF16),
            (DType::Bool, DType::F32, DType::Bool),
        ] {
            let (x, y) = (small(&mut rng, first, &shape), small(&mut rng, second, &shape));
            let body = vec![
                Instr::Cast(DType::F32, Arg::Operand(0)),
                Instr::Cast(DType::F32, Arg::Operand(1)),
                Instr::Binary(Binary::Sub, Arg::Instr(0), Arg::Instr(1)),
                Instr::Cast(output, Arg::Instr(2)),
            ];
            let mut problem = dense(&[&x, &y], output, body);
            let expected = view::run(&problem, &[&x, &y], output, &shape);
            for input in 0..2 {
                let same_size = [first, second][input].bytes() == output.bytes();
                assert_eq!(problem.allows_in_place(input), same_size);
                if same_size {
                    problem.set_in_place(input);
                    let program = in_place_program(&problem, input, &[&x, &y]);
                    let mut run = gpu().load(&program, tilewise::gpu::Parameters::new()).expect("it loads");
                    let outputs = run.run(&[("x0", &x), ("x1", &y)]).expect("it runs");
                    assert_eq!(outputs["out"], expected, "{first} {second} {output} over input {input}, {n} elements");
                    problem.in_place = None;
                }
            }
        }
    }
}

#[test]
fn only_a_dense_operand_of_its_size_can_be_taken_over() {
    let shape = Shape::from([4, 6]);
    let operands = vec![
        (DType::F32, Layout::contiguous([6]).broadcast(&shape)),
        (DType::F32, Layout::contiguous([6, 4]).permute(&[1, 0])),
        (DType::F32, Layout::contiguous([5, 6]).slice(&[1, 0], &[1, 1], &shape)),
        (DType::F16, Layout::contiguous(&shape)),
        (DType::U32, Layout::contiguous(&shape)),
    ];
    let body = vec![Instr::Unary(Unary::Neg, Arg::Operand(0))];
    let problem = PointwiseProblem::new(&shape, DType::F32, operands, body);
    assert_eq!([0, 1, 2, 3, 4, 5].map(|n| problem.allows_in_place(n)), [false, false, false, false, true, false]);
}

/// An expression that uses every operand: instructions over what is there so far, of matching dtypes.
fn drawn_body(rng: &mut Rng, operands: &[DType], length: usize) -> (Vec<Instr>, DType) {
    let mut body: Vec<Instr> = Vec::new();
    let mut values: Vec<(Arg, DType)> =
        operands.iter().enumerate().map(|(n, &dtype)| (Arg::Operand(n), dtype)).collect();
    while body.len() < length {
        let (x, dtype) = values[rng.below(values.len())];
        let same: Vec<Arg> = values.iter().filter(|(_, other)| *other == dtype).map(|&(arg, _)| arg).collect();
        let y = if rng.below(4) == 0 { Arg::Scalar(dtype, rng.below(3) as f64) } else { rng.of(&same) };
        let conditions: Vec<Arg> = values.iter().filter(|(_, d)| *d == DType::Bool).map(|&(arg, _)| arg).collect();
        let (instr, result) = match rng.below(6) {
            0 => {
                let to = rng.of(&DType::ALL);
                (Instr::Cast(to, x), to)
            }
            1 if !conditions.is_empty() => (Instr::Where(rng.of(&conditions), x, y), dtype),
            2 | 1 if dtype != DType::Bool => {
                // Those that keep small integers small and exact.
                let functions = [Unary::Abs, Unary::Sign, Unary::Relu];
                (Instr::Unary(rng.of(&functions), x), dtype)
            }
            3 if dtype != DType::Bool => {
                let functions = [Binary::Equal, Binary::Less, Binary::LessEqual, Binary::Greater, Binary::NotEqual];
                (Instr::Binary(rng.of(&functions), x, y), DType::Bool)
            }
            _ if dtype == DType::Bool => {
                let functions = [Binary::And, Binary::Or, Binary::Xor, Binary::Equal, Binary::NotEqual];
                (Instr::Binary(rng.of(&functions), x, y), DType::Bool)
            }
            // Not in u32, where a difference wraps around to what floats can't hold.
            4 if dtype != DType::U32 => {
                let sum = Instr::Binary(rng.of(&[Binary::Add, Binary::Sub]), x, y);
                body.push(sum);
                // Keeps chains of sums small.
                let limit = Arg::Scalar(dtype, 100.0);
                body.push(Instr::Binary(Binary::Min, Arg::Instr(body.len() - 1), limit));
                let limit = Arg::Scalar(dtype, -100.0);
                (Instr::Binary(Binary::Max, Arg::Instr(body.len() - 1), limit), dtype)
            }
            _ => (Instr::Binary(rng.of(&[Binary::Max, Binary::Min]), x, y), dtype),
        };
        body.push(instr);
        values.push((Arg::Instr(body.len() - 1), result));
    }
    let dtype = values[values.len() - 1].1;
    (body, dtype)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn drawn_expressions(seed in any::<u64>()) {
        let mut rng = Rng(seed);
        let dtypes: Vec<DType> = (0..1 + rng.below(7)).map(|_| rng.of(&DType::ALL)).collect();
        let shape = Shape::from([1 + rng.below(70)]);
        let tensors: Vec<Tensor> = dtypes.iter().map(|&dtype| small(&mut rng, dtype, &shape)).collect();
        let length = 1 + rng.below(20);
        let (body, dtype) = drawn_body(&mut rng, &dtypes, length);
        let tensors: Vec<&Tensor> = tensors.iter().collect();
        check_exact(&dense(&tensors, dtype, body), &tensors);
    }
}
