use super::{
    attention::{FEATURES, Setup, build},
    case::{Cases, Draft},
};
use crate::{
    DType, Result, Tensor, ValueId,
    grad::gradients,
    graph::{Attention, AttentionOperand as A, Mask, Op, Reduce},
    reference::{Random, compare::Check},
};

const FAMILY: &str = "attention_grad";

/// Of the options, those that are taken in any case: softcap, causal with lengths, offsets by item, a window, a mask, a short one, biases
/// that are repeated along each axis, slopes, sinks, packed sequences, another layout, dtypes.
const QUICK: [usize; 16] = [1, 4, 7, 10, 14, 18, 19, 20, 21, 22, 26, 28, 29, 30, 31, 33];

pub(super) fn cases(mut all: Cases) -> Result<Cases> {
    // `[B, Hq, Hkv, Tq, Tk, D, Dv]`
    let sizes = all.choose(
        &[
            [1, 1, 1, 1, 1, 1, 1],
            [2, 3, 3, 5, 7, 4, 4],
            [1, 4, 2, 17, 33, 16, 16],
            [1, 2, 2, 67, 35, 32, 48],
            [1, 1, 1, 19, 5, 3, 40],
            [0, 2, 2, 3, 3, 4, 4],
            [1, 2, 2, 0, 3, 4, 4],
            [1, 2, 2, 3, 0, 4, 4],
            [1, 2, 2, 3, 4, 4, 0],
        ],
        &[
            [2, 4, 1, 16, 16, 64, 64],
            [1, 2, 1, 9, 70, 128, 128],
            [1, 1, 1, 9, 11, 256, 256],
            [1, 8, 8, 128, 128, 64, 64],
            [1, 2, 2, 257, 255, 64, 64],
            [2, 6, 3, 65, 129, 96, 96],
            [1, 1, 1, 131, 131, 160, 192],
            [1, 2, 1, 600, 600, 64, 64],
        ],
    );
    for [batch, heads, key_heads, queries, keys, width, value_width] in sizes {
        add(&mut all, "", &Setup { batch, heads, key_heads, queries, keys, width, value_width, ..Setup::default() })?;
    }
    // Keys of several sequences in a panel or tile.
    add(&mut all, "", &Setup { batch: 4, queries: 7, keys: 9, packed: true, ..Setup::default() })?;
    // Each option is in the tests of the kernels too.
    let few = FEATURES.into_iter().enumerate().filter(|(at, _)| all.is_full() || QUICK.contains(at));
    for (_, feature) in few.collect::<Vec<_>>() {
        for (queries, keys) in all.choose(&[(19, 35)], &[(67, 43), (1, 67)]) {
            let mut setup = Setup { batch: 2, heads: 4, key_heads: 2, queries, keys, ..Setup::default() };
            feature(&mut setup);
            add(&mut all, "option", &setup)?;
        }
    }
    for i in 0..if all.is_full() { 60 } else { 3 } {
        let setup = Setup::draw(&mut Random::new(all.seed.wrapping_mul(1000) + i));
        add(&mut all, &format!("drawn {i}"), &setup)?;
    }
    not_finite(&mut all)?;
    Ok(all)
}

fn add(all: &mut Cases, prefix: &str, setup: &Setup) -> Result<()> {
    let name = format!("{prefix} {}", setup.name());
    if all.cases.iter().any(|case| case.name == name.trim_start()) {
        return Ok(());
    }
    all.add(FAMILY, name.trim_start(), Check::Measured { magnitude: 1.0 }, |draft| {
        let results = build(draft, setup)?;
        grads(draft, results[0], results[1])
    })
}

/// The gradients of all float inputs, from drawn ones of out and lse.
fn grads(draft: &mut Draft, out: ValueId, lse: ValueId) -> Result<Vec<ValueId>> {
    let inputs: Vec<ValueId> = draft.graph.inputs().map(|(_, value)| value).collect();
    let floats: Vec<ValueId> = inputs.into_iter().filter(|&value| draft.graph.dtype(value).is_float()).collect();
    let mut loss = None;
    for (name, result) in [("dout", out), ("dlse", lse)] {
        let shape = draft.graph.shape(result).clone();
        let weights = draft.reals(name, DType::F32, shape, [-1.0, 1.0])?;
        let result = draft.graph.cast(result, DType::F32)?;
        let weighed = draft.graph.mul(result, weights)?;
        let sum = draft.graph.reduce(Reduce::Sum, weighed, &[], false)?;
        loss = Some(match loss {
            None => sum,
            Some(other) => draft.graph.add(other, sum)?,
        });
    }
    loss.map_or(Ok(Vec::new()), |loss| gradients(&mut draft.graph, loss, &floats))
}

/// What is not finite reaches those that see it, and nobody else.
fn not_finite(all: &mut Cases) -> Result<()> {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let quick = [(nan, "q"), (nan, "k"), (nan, "v"), (nan, "dout"), (inf, "v"), (-inf, "k")];
    // An element of a row; by a mask, a third of the pairs see each other.
    for (odd, operand) in all.choose(&quick, &[(inf, "q"), (inf, "k"), (inf, "dout"), (-inf, "q"), (-inf, "v")]) {
        all.add_not_finite(FAMILY, format!("{odd} in {operand}"), Check::measured(), |draft| {
            let mut rows = |name: &str, rows: usize| {
                let shape = [1, 2, rows, 20];
                let mut numbers: Vec<f64> = (0..40 * rows).map(|_| draft.random.real(-1.0, 1.0)).collect();
                if name == operand {
                    numbers[20 * (rows / 2) + 3] = odd;
                }
                draft.numbers(name, DType::F32, shape, &numbers)
            };
            let (q, k, v, dout) = (rows("q", 37)?, rows("k", 41)?, rows("v", 41)?, rows("dout", 37)?);
            let seen = (0..37 * 41).map(|at| (at / 41 + at % 41) % 3 == 0).collect::<Vec<_>>();
            let mask = draft.given("mask", Tensor::new([37, 41], seen)?)?;
            let results = draft.graph.attention_results(q, k, v, Mask::boolean(mask))?;
            let along = draft.graph.mul(results.out, dout)?;
            let delta = draft.graph.reduce(Reduce::Sum, along, &[-1], false)?;
            let numbers = [results.lse, delta].map(|x| draft.graph.reshape(x, [1, 1, 2, 37]));
            let [lse, delta] = numbers;
            let statistics = draft.graph.concat(&[lse?, delta?], 0)?;
            let options = Attention { operands: vec![A::Mask], ..Attention::default() };
            draft.graph.push(Op::AttentionGrad(options), &[q, k, v, mask, dout, statistics])
        })?;
    }
    Ok(())
}
