use tilewise::{
    Data, Graph, Result, Tensor, ValueId,
    graph::{Align, AttentionArgs, Mask, Op},
    reference::Random,
};

use super::difference::{Operand, between, check, fixed, whole};

type Args = Box<dyn FnOnce(&[ValueId]) -> AttentionArgs>;
type Setting = Box<dyn FnOnce(AttentionArgs, &[ValueId]) -> AttentionArgs>;
type Part = Box<dyn FnOnce(&[ValueId]) -> Mask>;

/// Attention with options drawn from a seed, each alone and in combinations.
struct Drawn {
    operands: Vec<Operand>,
    args: Args,
    what: String,
}

fn drawn(seed: u64) -> Drawn {
    let mut random = Random::new(seed);
    let (b, hkv, group) = (random.size(1, 2), random.size(1, 2), random.size(1, 2));
    let (tq, tk, d, dv) = (random.size(1, 3), random.size(1, 4), random.size(1, 3), random.size(1, 2));
    let hq = hkv * group;
    let mut operands = vec![
        between([b, hq, tq, d], -1.0, 1.0, seed + 1),
        between([b, hkv, tk, d], -1.0, 1.0, seed + 2),
        between([b, hkv, tk, dv], -1.0, 1.0, seed + 3),
    ];
    let mut what = format!("seed {seed}: b {b} hq {hq} hkv {hkv} {tq}×{tk} d {d} dv {dv}");
    let mut steps: Vec<Setting> = Vec::new();
    let align = match random.size(0, 2) {
        0 => Align::TopLeft,
        1 => Align::BottomRight,
        _ => Align::Offset(random.whole(-2, 2) as i32),
    };
    let mut mask = Mask::aligned(align);
    if random.one_in(3) {
        what += " causal";
        mask = mask & Mask::causal(align);
    }
    if random.one_in(4) {
        what += " window";
        mask = mask & Mask::window(1, random.size(0, 1) as u32, align);
    }
    let mut add = |operand: Operand| {
        operands.push(operand);
        operands.len() - 1
    };
    let mut parts: Vec<Part> = Vec::new();
    if random.one_in(3) {
        what += " boolean";
        let shape = random.pick(&[[1, 1], [1, 2]]);
        let shape = [if shape[1] == 1 { 1 } else { hq }, tq, tk];
        let data = (0..shape.iter().product()).map(|_| !random.one_in(3)).collect();
        let at = add(fixed(Tensor::new(shape, Data::Bool(data)).expect("fits")));
        parts.push(Box::new(move |x| Mask::boolean(x[at])));
    }
    if random.one_in(2) {
        let shape = match random.size(0, 3) {
            0 => vec![tq, tk],
            1 => vec![hq, 1, tk],
            2 => vec![b, 1, tq, 1],
            // Shorter than Tk: it masks the keys past its end.
            _ => vec![tq, tk.saturating_sub(1).max(1)],
        };
        what += &format!(" bias {shape:?}");
        let at = add(between(shape, -1.0, 1.0, seed + 4));
        parts.push(Box::new(move |x| Mask::bias(x[at])));
    }
    if random.one_in(3) {
        what += " lengths";
        let lengths: Vec<i32> = (0..b).map(|_| random.whole(0, tk as i64) as i32).collect();
        let at = add(whole([b], &lengths));
        parts.push(Box::new(move |x| Mask::key_lengths(x[at])));
    }
    if random.one_in(4) {
        what += " query lengths";
        let lengths: Vec<i32> = (0..b).map(|_| random.whole(0, tq as i64) as i32).collect();
        let at = add(whole([b], &lengths));
        parts.push(Box::new(move |x| Mask::query_lengths(x[at])));
    }
    if random.one_in(3) {
        what += " slopes";
        let at = add(between([hq], 0.0, 1.0, seed + 5));
        steps.push(Box::new(move |args, x| AttentionArgs { slopes: Some(x[at]), ..args }));
    }
    if random.one_in(3) {
        what += " sinks";
        let at = add(between([hq], -1.0, 1.0, seed + 6));
        steps.push(Box::new(move |args, x| AttentionArgs { sinks: Some(x[at]), ..args }));
    }
    if random.one_in(3) {
        what += " softcap";
        steps.push(Box::new(|args, _| AttentionArgs { softcap: Some(1.5), ..args }));
    }
    if random.one_in(3) {
        what += " scale";
        steps.push(Box::new(|args, _| AttentionArgs { scale: Some(0.75), ..args }));
    }
    let args = move |x: &[ValueId]| {
        let mask = parts.into_iter().fold(mask, |mask, part| mask & part(x));
        steps.into_iter().fold(AttentionArgs::from(mask), |args, step| step(args, x))
    };
    Drawn { operands, args: Box::new(args), what }
}

#[test]
fn every_option_alone_and_in_combinations() {
    for seed in 0..200 {
        let Drawn { operands, args, what } = drawn(1000 * seed);
        check(&what, &operands, |g, x| Ok(vec![g.attention(x[0], x[1], x[2], args(x))?]));
    }
}

/// Sequences end to end, each of which sees its own keys only; some are empty, and some rows are of none.
#[test]
fn packed_sequences() {
    for seed in 0..120 {
        let mut random = Random::new(7000 + seed);
        let (hkv, group, sequences) = (random.size(1, 2), random.size(1, 2), random.size(1, 3));
        let (hq, d, dv) = (hkv * group, random.size(1, 3), random.size(1, 2));
        let mut starts = || {
            let mut at = random.size(0, 1) as i32;
            let mut all = vec![at];
            for _ in 0..sequences {
                at += random.size(0, 3) as i32;
                all.push(at);
            }
            (at as usize + random.size(0, 1), all)
        };
        let ((tq, q_starts), (tk, k_starts)) = (starts(), starts());
        let (tq, tk) = (tq.max(1), tk.max(1));
        let align = random.pick(&[Align::TopLeft, Align::BottomRight, Align::Offset(1)]);
        let (causal, window) = (random.one_in(2), random.one_in(3));
        let (softcap, lengths) = (random.one_in(3).then_some(1.5), random.one_in(3));
        let operands = [
            between([tq, hq, d], -1.0, 1.0, seed + 1),
            between([tk, hkv, d], -1.0, 1.0, seed + 2),
            between([tk, hkv, dv], -1.0, 1.0, seed + 3),
            whole([sequences + 1], &q_starts),
            whole([sequences + 1], &k_starts),
            between([hq], 0.0, 1.0, seed + 5),
            between([hq], -1.0, 1.0, seed + 6),
            whole([sequences], &(0..sequences).map(|_| random.whole(0, 3) as i32).collect::<Vec<_>>()),
        ];
        let what = format!(
            "seed {seed}: {hq}/{hkv} heads, {q_starts:?} of {tq} × {k_starts:?} of {tk}, {align:?}, causal {causal}, window {window}, \
             softcap {softcap:?}, lengths {lengths}"
        );
        check(&what, &operands, |g, x| {
            let mut mask = Mask::packed(x[3], x[4]) & Mask::aligned(align);
            if causal {
                mask = mask & Mask::causal(align);
            }
            if window {
                mask = mask & Mask::window(1, 1, align);
            }
            if lengths {
                mask = mask & Mask::key_lengths(x[7]);
            }
            let args = AttentionArgs { softcap, slopes: Some(x[5]), sinks: Some(x[6]), ..AttentionArgs::from(mask) };
            Ok(vec![g.attention(x[0], x[1], x[2], args)?])
        });
    }
}

#[test]
fn through_the_log_sum_exp() {
    for seed in 0..60 {
        let Drawn { operands, args, what } = drawn(1000 * seed + 500_000);
        let masked = |g: &mut Graph, x: &[ValueId]| -> Result<Vec<ValueId>> {
            let (out, lse) = g.attention_with_lse(x[0], x[1], x[2], args(x))?;
            // The lowest f32 of a fully masked row would drown all else.
            let lowest = g.scalar(-1e30, lse)?;
            let lse = g.max(lse, lowest)?;
            let zero = g.scalar(0.0, lse)?;
            let seen = g.binary(tilewise::graph::Binary::Greater, lse, lowest)?;
            Ok(vec![out, g.select(seen, lse, zero)?])
        };
        check(&what, &operands, masked);
    }
}

#[test]
fn merged_parts() {
    let outs = between([3, 2, 4], -1.0, 1.0, 1);
    let lses = between([3, 2], -2.0, 2.0, 2);
    check("attention merge", &[outs, lses], |g, x| g.push(Op::AttentionMerge, x));
    // A part that saw nothing counts for nothing.
    let lses = Tensor::new([2, 2], vec![0.5f32, f32::MIN, f32::MIN, f32::MIN]).expect("fits");
    check("attention merge with nothing seen", &[between([2, 2, 3], -1.0, 1.0, 1), fixed(lses)], |g, x| {
        Ok(vec![g.push(Op::AttentionMerge, x)?[0]])
    });
}
