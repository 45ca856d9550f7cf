//! What is no problem, and what is said then.

use tilewise::{
    DType, Layout, Shape,
    graph::{Binary, Unary},
    kernel::{Arg, Candidate, Dropping, Instr, PointwiseProblem, Problem, Profile},
};

fn problem(operands: &[DType], dtype: DType, body: Vec<Instr>) -> PointwiseProblem {
    let shape = Shape::from([2, 3]);
    let operands = operands.iter().map(|&dtype| (dtype, Layout::contiguous(&shape))).collect();
    PointwiseProblem::new(shape, dtype, operands, body)
}

fn message(problem: &PointwiseProblem) -> String {
    problem.kernel("plain", &Profile::portable()).expect_err("it must be refused").to_string()
}

#[test]
fn faults_of_a_dropout_are_named() {
    let (x, seed) = (Arg::Operand(0), Arg::Operand(1));
    let four = |operands: &[(DType, &[usize])], body: Vec<Instr>| {
        let operands = operands.iter().map(|&(dtype, shape)| (dtype, Layout::contiguous(shape))).collect();
        message(&PointwiseProblem::new([2, 3], DType::F32, operands, body))
    };
    let half = Dropping { p: 0.5, stream: 0 };
    let drop = |x, seed| vec![Instr::Dropout(half, x, seed)];
    let wide: &[usize] = &[2, 3];
    assert_eq!(
        four(&[(DType::F32, wide), (DType::U32, wide)], drop(x, seed)),
        "pointwise: `x1`, a seed, is u32 [2, 3], expected i32 or u32 [4], read as nothing else"
    );
    assert_eq!(
        four(&[(DType::F32, wide), (DType::F32, &[4])], drop(x, seed)),
        "pointwise: `x1`, a seed, is f32 [4], expected i32 or u32 [4], read as nothing else"
    );
    let mut body = vec![Instr::Cast(DType::F32, seed)];
    body.extend(drop(Arg::Instr(0), seed));
    assert_eq!(
        four(&[(DType::F32, wide), (DType::U32, &[4])], body),
        "pointwise: `x1`, a seed, is u32 [4], expected i32 or u32 [4], read as nothing else"
    );
    assert_eq!(
        four(&[(DType::I32, wide), (DType::U32, &[4])], drop(x, seed)),
        "dropout: `x` is i32, expected f32, f16 or bf16"
    );
    assert_eq!(
        four(&[(DType::F32, wide)], vec![Instr::Cast(DType::U32, x), Instr::Dropout(half, x, Arg::Instr(0))]),
        "pointwise: instruction 1 has instruction 0 for a seed, expected an operand"
    );
    assert_eq!(
        four(&[(DType::F32, wide)], drop(x, Arg::Scalar(DType::F32, 1.0))),
        "dropout: `seed` is f32, expected i32 or u32"
    );
    assert_eq!(
        four(&[(DType::F32, wide), (DType::U32, &[4])], vec![Instr::Dropout(Dropping { p: 1.5, stream: 0 }, x, seed)]),
        "dropout: p is 1.5, expected a probability from 0 to 1"
    );
}

#[test]
fn faults_are_named() {
    let x = Arg::Operand(0);
    let f32s = |body| message(&problem(&[DType::F32, DType::I32], DType::F32, body));
    assert_eq!(f32s(vec![]), "pointwise: the chain has no instruction; a copy is a problem of its own");
    assert_eq!(
        f32s(vec![Instr::Unary(Unary::Neg, Arg::Operand(2))]),
        "pointwise: instruction 0 reads operand 2, there are 2"
    );
    assert_eq!(
        f32s(vec![Instr::Unary(Unary::Neg, Arg::Instr(0))]),
        "pointwise: instruction 0 reads instruction 0, which is not before it"
    );
    assert_eq!(
        f32s(vec![Instr::Binary(Binary::Add, x, Arg::Operand(1))]),
        "add: `a` is f32 and `b` is i32, expected one dtype"
    );
    assert_eq!(f32s(vec![Instr::Binary(Binary::And, x, x)]), "and: `a` is f32, expected bool");
    assert_eq!(f32s(vec![Instr::Unary(Unary::Exp, Arg::Operand(1))]), "exp: `x` is i32, expected f32, f16 or bf16");
    assert_eq!(f32s(vec![Instr::Unary(Unary::Not, x)]), "not: `x` is f32, expected bool");
    assert_eq!(f32s(vec![Instr::Where(x, x, x)]), "where: `condition` is f32, expected bool");
    assert_eq!(
        f32s(vec![Instr::Binary(Binary::Less, x, x)]),
        "pointwise: the last instruction gives bool, the output is f32; a cast is an instruction"
    );
    let mut wrong = problem(&[DType::F32], DType::F32, vec![Instr::Unary(Unary::Neg, x)]);
    wrong.shape = Shape::from([3, 2]);
    assert_eq!(
        message(&wrong),
        "pointwise: `x0` has shape [2, 3], expected [3, 2], the output's (see Layout::broadcast)"
    );
    let many = problem(&[DType::F32; 8], DType::F32, vec![Instr::Unary(Unary::Neg, x)]);
    assert_eq!(message(&many), "pointwise: operands: 8 is over the limit of 7; split the chain");
    let mut in_place = problem(&[DType::F16], DType::F32, vec![Instr::Cast(DType::F32, x)]);
    in_place.set_in_place(0);
    assert!(message(&in_place).contains("the output can't take over the buffer of `x0`"), "{}", message(&in_place));
}

#[test]
fn limits_refuse() {
    let x = Arg::Operand(0);
    let full = problem(&[DType::F32; 7], DType::F32, vec![Instr::Unary(Unary::Neg, x)]);
    let mut profile = Profile::portable();
    assert!(full.candidates(&profile).iter().all(Candidate::is_usable));
    profile.limits.storage_buffers = 7;
    assert!(full.candidates(&profile).iter().all(|candidate| !candidate.is_usable()));
    let error = full.kernel("plain", &profile).expect_err("eight buffers").to_string();
    assert_eq!(error, "pointwise: no variant can run here: plain: needs 8 storage buffers, the limit is 7");
    profile = Profile::portable();
    profile.limits.workgroup_invocations = 128;
    let error = full.kernel("plain", &profile).expect_err("256 invocations").to_string();
    assert_eq!(error, "pointwise: no variant can run here: plain: needs 256 invocations a workgroup, the limit is 128");
    let error = full.kernel("fancy", &profile).expect_err("no such variant").to_string();
    assert_eq!(error, "pointwise: there is no variant `fancy`; there is `plain`");
}
