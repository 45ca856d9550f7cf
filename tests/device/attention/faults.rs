//! Lengths and offsets that do not fit: clamped, reported, and never an access outside.

use tilewise::{
    Tensor,
    graph::{Align, AttentionFault as Fault, AttentionOperand as A},
    reference::compare::Check,
};

use crate::common::{
    attention::{Case, Draw, i32s},
    gpu,
};

/// Lengths cut to the sequences between these starts.
pub(super) fn fitting(lengths: &Tensor, starts: &[i32]) -> Tensor {
    let lengths = lengths.as_i32().expect("i32").to_vec();
    i32s(&lengths.iter().zip(starts.windows(2)).map(|(&length, s)| length.clamp(0, s[1] - s[0])).collect::<Vec<_>>())
}

/// What the fault's bit is worth.
fn bits(faults: &[Fault]) -> i32 {
    faults.iter().map(|&fault| fault as i32).sum()
}

/// Runs `faulty`, whose results must be those of `fitting`; the faults of all its items together must be `faults`, and those of each
/// item what the reference says.
fn check(faulty: &Case, fitting: &Case, faults: &[Fault]) {
    for (case, faults) in [(faulty, faults), (fitting, &[][..])] {
        let status = case.expected(Check::Exact).results().nth(2).expect("the status").1.to_f64();
        assert_eq!(status.iter().fold(0, |all, &item| all | item as i32), bits(faults), "{}: {status:?}", case.name);
        for variant in faulty.variants(gpu()) {
            let mut results = case.run(variant, gpu()).expect("runs");
            let found = results.pop().expect("the status");
            let found: Vec<f64> = found.as_i32().expect("i32").iter().map(|&item| item.into()).collect();
            assert_eq!(found, status, "{variant}: {}", case.name);
            let expected = fitting.expected(Check::measured());
            for ((name, expected, bound), actual) in expected.results().zip(&results) {
                tilewise::reference::compare::compare(name, actual, expected, bound)
                    .unwrap_or_else(|mismatch| panic!("{variant}: {}: {mismatch}", case.name));
            }
        }
    }
}

fn batch(operand: A, given: &[i32], align: Align) -> Case {
    let mut case = Case::new(format!("{operand:?} {given:?}"), (4, 2, 1, 9, 33, 3, 4), &mut Draw::new(31));
    case.status = true;
    case.with(operand, i32s(given)).causal(align)
}

#[test]
fn lengths_are_clamped() {
    let of = |given: &[i32]| batch(A::KeyLengths, given, Align::BottomRight);
    check(&of(&[-1, 34, i32::MIN, i32::MAX]), &of(&[0, 33, 0, 33]), &[Fault::KeyLength]);
    let of = |given: &[i32]| batch(A::QueryLengths, given, Align::BottomRight);
    check(&of(&[-7, 10, i32::MIN, i32::MAX]), &of(&[0, 9, 0, 9]), &[Fault::QueryLength]);
}

#[test]
fn each_item_has_its_own_status() {
    let case = batch(A::KeyLengths, &[33, -1, 0, 34], Align::BottomRight).with(A::QueryLengths, i32s(&[9, 3, 10, 90]));
    for variant in case.variants(gpu()) {
        let results = case.run(variant, gpu()).expect("runs");
        let status = results.last().and_then(Tensor::as_i32).expect("i32").to_vec();
        assert_eq!(status, [0, 1, 2, 3], "{variant}");
        let text = Fault::describe(&status).expect("faults");
        assert!(text.ends_with("item 3: the key length is below 0 or over Tk; the query length is below 0 or over Tq"));
        assert_eq!(text.lines().count(), 3);
    }
}

#[test]
fn offsets_far_off_are_clamped() {
    let of = |given: &[i32]| batch(A::Offsets, given, Align::PerItem);
    check(&of(&[i32::MIN, i32::MAX, 3, -2]), &of(&[-9, 33, 3, -2]), &[Fault::Offset]);
    let windowed = |given: &[i32]| of(given).window(Some(4), None);
    check(&windowed(&[i32::MIN, i32::MAX, 3, -2]), &windowed(&[-9, 60, 3, -2]), &[Fault::Offset]);
}

/// Decreasing entries count as the highest before them; entries outside as the nearest inside.
#[test]
fn starts_that_decrease_or_lie_outside_are_clamped() {
    let of = |q: &[i32], k: &[i32]| {
        let mut case = Case::packed(format!("{q:?} {k:?}"), (q, k), (70, 2, 1, 90, 3, 4), &mut Draw::new(32));
        case.status = true;
        case.causal(Align::BottomRight)
    };
    let good = [0, 40, 60, 90];
    check(&of(&[0, 50, 30, 70], &good), &of(&[0, 50, 50, 70], &good), &[Fault::QueryOffsets]);
    check(&of(&[-5, 50, 60, 700], &good), &of(&[0, 50, 60, 70], &good), &[Fault::QueryOffsets]);
    check(&of(&[0, i32::MAX, i32::MIN, 3], &good), &of(&[0, 70, 70, 70], &good), &[Fault::QueryOffsets]);
    let good = [0, 5, 69, 70];
    check(&of(&good, &[0, 50, 30, 90]), &of(&good, &[0, 50, 50, 90]), &[Fault::KeyOffsets]);
    check(&of(&good, &[0, i32::MIN, 1000, 3]), &of(&good, &[0, 0, 90, 90]), &[Fault::KeyOffsets]);
    let both = [Fault::QueryOffsets, Fault::KeyOffsets];
    check(&of(&[9, 8, 7, 6], &[9, 8, 7, 6]), &of(&[9, 9, 9, 9], &[9, 9, 9, 9]), &both);
}

/// More sequences than the records' launch has invocations: each takes several.
#[test]
fn many_sequences() {
    let mut draw = Draw::new(33);
    let mut starts = |n: usize, most: usize| {
        let mut all = vec![0];
        for _ in 0..n {
            all.push(all[all.len() - 1] + draw.below(most) as i32);
        }
        all
    };
    for n in [63, 64, 65, 200] {
        let (q, k) = (starts(n, 4), starts(n, 6));
        let (rows, keys) = (q[n] as usize, k[n] as usize);
        let mut case = Case::packed(format!("{n} sequences"), (&q, &k), (rows, 2, 1, keys, 3, 4), &mut Draw::new(34));
        case.status = true;
        let case = case.causal(Align::BottomRight);
        check(&case, &case, &[]);
        // A dip in the middle is seen from every later run of entries.
        let mut dip = q.clone();
        dip[n / 2] = -1;
        let mut level = q.clone();
        level[n / 2] = q[n / 2 - 1];
        let of = |q: &[i32]| {
            let mut case = Case::packed("a dip", (q, &k), (rows, 2, 1, keys, 3, 4), &mut Draw::new(35));
            case.status = true;
            case
        };
        check(&of(&dip), &of(&level), &[Fault::QueryOffsets]);
    }
}
