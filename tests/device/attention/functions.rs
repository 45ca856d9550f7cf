//! Functions of scores that the caller gives.

use tilewise::{
    Tensor,
    graph::{Align, AttentionOperand as A, MaskMod, ScoreMod},
    reference::compare::Check,
};

use crate::common::{
    attention::{Case, Draw, Sizes, i32s, tensor},
    gpu,
};

fn scored(mut case: Case, function: tilewise::Result<ScoreMod>) -> Case {
    case.options.score_mods.push(function.unwrap_or_else(|e| panic!("{e}")));
    case
}

fn masked(mut case: Case, function: tilewise::Result<MaskMod>) -> Case {
    case.options.mask_mods.push(function.unwrap_or_else(|e| panic!("{e}")));
    case
}

const SIZES: Sizes = (2, 4, 2, 19, 45, 5, 6);

/// Each field of the pair reaches the function, and means what the reference says.
#[test]
fn every_field() {
    let mut draw = Draw::new(61);
    type Twin = fn(&tilewise::graph::Scored<'_>) -> f64;
    let fields: [(&str, Twin); 8] = [
        ("score + f32(b)", |s| s.score + f64::from(s.b)),
        ("score * f32(h + 1)", |s| s.score * f64::from(s.h + 1)),
        ("score + f32(h_kv * j)", |s| s.score + f64::from(s.h_kv * s.j)),
        ("score - f32(i % 3 * j)", |s| s.score - f64::from(s.i % 3 * s.j)),
        ("score * f32(j)", |s| s.score * f64::from(s.j)),
        ("score + f32((j - position) * 2)", |s| s.score + f64::from((s.j - s.position) * 2)),
        ("score + f32(q_len % 3 * j)", |s| s.score + f64::from(s.q_len % 3 * s.j)),
        ("score - f32(k_len - j)", |s| s.score - f64::from(s.k_len - s.j)),
    ];
    let (q, k) = ([0, 5, 5, 18, 19], [0, 20, 23, 23, 45]);
    for (text, twin) in fields {
        let case = Case::routed(text, SIZES, &mut draw)
            .with(A::KeyLengths, i32s(&[45, 30]))
            .with(A::QueryLengths, i32s(&[11, 19]))
            .causal(Align::BottomRight);
        scored(case, ScoreMod::new(text, twin)).check_all(gpu(), Check::Exact);
        let packed = Case::packed(format!("{text} packed"), (&q, &k), (19, 4, 2, 45, 5, 6), &mut draw);
        let packed = packed.causal(Align::BottomRight).window(Some(30), None);
        scored(packed, ScoreMod::new(text, twin)).check_all(gpu(), Check::Measured { magnitude: 64.0 });
    }
}

#[test]
fn real_functions_are_within_bounds() {
    let mut draw = Draw::new(62);
    let case = |name: &str, draw: &mut Draw| Case::new(name, SIZES, draw);
    let tanh = ScoreMod::new("30.0 * tanh(score / 30.0)", |s| 30.0 * (s.score / 30.0).tanh());
    scored(case("a cap of one's own", &mut draw), tanh).check_all(gpu(), Check::measured());
    let far = ScoreMod::new("score - 0.1 * f32(abs(i - j))", |s| s.score - 0.1 * f64::from((s.i - s.j).abs()));
    let one = scored(case("distance", &mut draw), far);
    one.check_all(gpu(), Check::measured());
    let half = ScoreMod::new("if h % 2 == 0 {\n  return score;\n}\nreturn score * 0.5;", |s| {
        if s.h % 2 == 0 { s.score } else { s.score * 0.5 }
    });
    // One after the other, in their order, and after softcap, bias and ALiBi.
    let mut all = scored(one, half).with(A::Bias, draw.floats([19, 45], 1.0)).with(A::Slopes, draw.floats([4], 0.5));
    all.options.softcap = Some(3.0);
    all.check_all(gpu(), Check::measured());
    let wide = masked(all, MaskMod::new("(i + j) % 3 != 0", |s| (s.i + s.j) % 3 != 0));
    masked(wide, MaskMod::new("j / 8 <= i / 8", |s| s.j / 8 <= s.i / 8)).check_all(gpu(), Check::measured());
}

/// A predicate is no big negative number: a row that sees nothing is exactly 0.
#[test]
fn rows_that_a_function_hides_are_zero() {
    let mut draw = Draw::new(63);
    let none = masked(Case::new("no row", SIZES, &mut draw), MaskMod::new("false", |_| false));
    let some = masked(Case::new("odd rows", SIZES, &mut draw), MaskMod::new("i % 2 == 0", |s| s.i % 2 == 0));
    let table = tensor([2], vec![0.0, f32::NEG_INFINITY]);
    let infinite = ScoreMod::new("score + table[i % 2]", |s| s.score + s.table(s.i % 2));
    let infinite = scored(Case::new("−∞ from a table", SIZES, &mut draw), infinite).with(A::ScoreTable, table);
    for (case, hidden) in [(none, 1), (some, 2), (infinite, 2)] {
        for variant in case.variants(gpu()) {
            let results = case.run(variant, gpu()).expect("runs");
            let bits = |at: usize| results[at].as_f32().expect("f32").iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let (out, lse) = (bits(0), bits(1));
            for row in (0..lse.len()).filter(|row| (row % 19 + 1) % hidden == 0) {
                assert_eq!(lse[row], f32::MIN.to_bits(), "{variant}: {}", case.name);
                assert!(out[row * 6..][..6].iter().all(|&x| x == 0), "{variant}: {}", case.name);
            }
        }
        case.check_all(gpu(), Check::measured());
    }
}

/// An index out of range takes the nearest element, on the device as in the twin.
#[test]
fn tables_are_never_left() {
    let mut draw = Draw::new(64);
    let case = Case::routed("table", SIZES, &mut draw).with(A::ScoreTable, draw.integers([3, 7], 9));
    let far = ScoreMod::new("score + table[(j - 20) * 100000000] + table[i + j - 9]", |s| {
        s.score + s.table((s.j - 20).wrapping_mul(100_000_000)) + s.table(s.i + s.j - 9)
    });
    scored(case, far).check_all(gpu(), Check::Exact);
}

/// The comparison is with the twin: one that computes something else is noticed.
#[test]
fn a_wrong_twin_is_noticed() {
    let mut draw = Draw::new(65);
    let wrong = ScoreMod::new("score - 0.1 * f32(abs(i - j))", |s| s.score - 0.11 * f64::from((s.i - s.j).abs()));
    let case = scored(Case::new("wrong", SIZES, &mut draw), wrong);
    let hides = masked(Case::new("wrong mask", SIZES, &mut draw), MaskMod::new("j < 44 || i > 0", |_| true));
    for variant in case.variants(gpu()) {
        for case in [&case, &hides] {
            let kernel = case.kernel(variant, gpu()).expect("fits");
            let message = case.check_kernel(&kernel, gpu(), Check::measured()).expect_err("must differ");
            assert!(message.contains("allowed"), "{variant}: {message}");
        }
    }
}

/// The reference says which function lacks a twin, and the device doesn't mind.
#[test]
fn without_a_twin_only_the_device_runs() {
    let mut draw = Draw::new(66);
    let plain = Case::new("no twin", SIZES, &mut draw);
    let case = scored(plain.clone(), ScoreMod::wgsl("score * 0.5"));
    let mut halved = plain;
    halved.options.scale = Some(0.5 / 5f32.sqrt());
    let op = tilewise::graph::Op::Attention(case.options.clone());
    let operands: Vec<&Tensor> = [&case.q, &case.k, &case.v].into();
    let error = tilewise::reference::compare::Expected::of_op(&op, &operands, Check::Exact).expect_err("no twin");
    assert_eq!(
        error.to_string(),
        "attention: the score function `score * 0.5` has no twin in Rust, which the reference needs; `Graph::attach` gives it one"
    );
    for variant in case.variants(gpu()) {
        let results = case.run(variant, gpu()).expect("runs");
        for ((name, expected, bound), actual) in halved.expected(Check::measured()).results().zip(&results) {
            tilewise::reference::compare::compare(name, actual, expected, bound).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}
