use std::fmt::Write;

use super::case::{Cases, Draft};
use crate::{
    DType, Result, Shape, Tensor, ValueId,
    graph::{Align, Attention, AttentionArgs, AttentionOperand, Mask, MaskMod, Op, ScoreMod, Window},
    reference::{Random, compare::Check},
};

const FAMILY: &str = "attention";

pub(super) fn cases(mut all: Cases) -> Result<Cases> {
    sizes(&mut all)?;
    options(&mut all)?;
    edges(&mut all)?;
    not_finite(&mut all)?;
    drawn(&mut all)?;
    Ok(all)
}

/// Sizes without a mask: `[B, Hq, Hkv, Tq, Tk, D, Dv]`.
fn sizes(all: &mut Cases) -> Result<()> {
    let sizes = all.choose(
        &[
            [1, 1, 1, 1, 1, 1, 1],
            [1, 1, 1, 1, 7, 8, 8],
            [2, 3, 3, 5, 7, 4, 4],
            [1, 4, 2, 17, 33, 16, 16],
            [2, 4, 1, 16, 16, 64, 64],
            [1, 2, 2, 31, 65, 32, 48],
            [1, 1, 1, 3, 5, 1, 256],
            [1, 1, 1, 3, 5, 256, 1],
            [1, 1, 1, 67, 35, 80, 80],
            [1, 2, 1, 9, 130, 128, 128],
            [1, 1, 1, 4, 40, 256, 256],
            // Image models and latent attention: wider than registers hold.
            [1, 2, 1, 67, 35, 512, 512],
            [1, 2, 1, 3, 40, 576, 512],
            [1, 1, 1, 5, 33, 300, 257],
            [1, 1, 1, 2, 9, 1100, 1030],
            [1, 4, 2, 1, 300, 64, 64],
            [3, 2, 2, 2, 131, 40, 40],
            // More rounds of loops than llvmpipe lets an invocation have, if it does all keys of a row.
            [1, 1, 1, 3, 1100, 64, 64],
            [1, 1, 1, 2, 9000, 16, 16],
            // Parts that don't end with a tile or panel.
            [1, 1, 1, 2, 50003, 8, 8],
            [0, 2, 2, 3, 3, 4, 4],
            [1, 0, 0, 3, 3, 4, 4],
            [1, 2, 2, 0, 3, 4, 4],
            [1, 2, 2, 3, 0, 4, 4],
            [1, 2, 2, 3, 0, 8, 16],
            [1, 2, 2, 3, 0, 64, 64],
            [1, 2, 2, 3, 4, 4, 0],
        ],
        &[
            [1, 8, 8, 128, 128, 64, 64],
            [1, 2, 2, 257, 255, 64, 64],
            [1, 12, 3, 1, 1031, 128, 128],
            [2, 6, 3, 65, 129, 96, 96],
            [1, 1, 1, 15, 1031, 17, 19],
            [1, 1, 1, 131, 131, 160, 192],
            [1, 1, 1, 131, 131, 512, 513],
            [1, 2, 1, 600, 600, 64, 64],
            [1, 1, 1, 2, 65536, 64, 64],
        ],
    );
    for [batch, heads, key_heads, queries, keys, width, value_width] in sizes {
        let setup = Setup { batch, heads, key_heads, queries, keys, width, value_width, ..Setup::default() };
        add(all, "", &setup)?;
    }
    // Of f16: many rows and few, in one part and in several, wide and narrow heads.
    let dtypes = [DType::F16, DType::F16, DType::F16, DType::F32];
    let halves = all.choose(
        &[
            [1, 4, 2, 70, 67, 64, 64],
            [1, 8, 1, 1, 300, 64, 64],
            [1, 1, 1, 67, 35, 80, 33],
            [1, 2, 1, 9, 130, 144, 160],
            [1, 1, 1, 17, 35, 512, 511],
        ],
        &[
            [1, 8, 8, 128, 128, 64, 64],
            [1, 2, 2, 257, 255, 128, 128],
            [1, 12, 3, 1, 1031, 128, 128],
            [2, 32, 2, 1, 513, 64, 64],
            [1, 1, 1, 15, 1031, 17, 19],
            [1, 1, 1, 131, 131, 256, 256],
            [1, 1, 1, 2, 65536, 64, 64],
        ],
    );
    for [batch, heads, key_heads, queries, keys, width, value_width] in halves {
        let setup = Setup { batch, heads, key_heads, queries, keys, width, value_width, dtypes, ..Setup::default() };
        add(all, "", &setup)?;
    }
    for width in all.choose(&[2, 3, 31, 33, 65], &[7, 63, 127, 129, 191, 255]) {
        add(all, "", &Setup { width, value_width: width, queries: 5, keys: 9, ..Setup::default() })?;
    }
    Ok(())
}

pub(super) type Feature = fn(&mut Setup);

/// Every option, alone and then in pairs.
pub(super) const FEATURES: [Feature; 34] = [
    |s| s.scale = Some(0.7),
    |s| s.softcap = Some(3.0),
    |s| s.causal = true,
    |s| (s.causal, s.align) = (true, Align::BottomRight),
    |s| (s.causal, s.align, s.key_lengths) = (true, Align::BottomRight, true),
    |s| (s.causal, s.align) = (true, Align::Offset(5)),
    |s| (s.causal, s.align) = (true, Align::Offset(-5)),
    |s| (s.causal, s.align) = (true, Align::PerItem),
    |s| s.window.left = Some(3),
    |s| s.window.right = Some(2),
    |s| s.window = Window { left: Some(4), right: Some(0) },
    |s| (s.window, s.align) = (Window { left: Some(0), right: Some(7) }, Align::BottomRight),
    |s| (s.window.left, s.align) = (Some(6), Align::PerItem),
    |s| s.mask = Some([1, 1, 0, 0]),
    |s| s.mask = Some([1, 0, 1, 0]),
    |s| s.mask = Some([0, 0, 0, 0]),
    |s| s.mask = Some([0, 1, 0, 1]),
    |s| (s.mask, s.short) = (Some([0, 1, 0, 0]), true),
    |s| (s.mask, s.short, s.query_lengths) = (Some([0, 1, 0, 0]), true, true),
    |s| s.bias = Some([1, 1, 0, 0]),
    |s| s.bias = Some([1, 0, 1, 0]),
    |s| s.bias = Some([0, 0, 0, 0]),
    |s| s.bias = Some([0, 1, 1, 0]),
    |s| s.key_lengths = true,
    |s| s.query_lengths = true,
    |s| s.slopes = true,
    |s| (s.slopes, s.align) = (true, Align::BottomRight),
    |s| s.sinks = true,
    |s| (s.sinks, s.slopes, s.causal, s.align) = (true, true, true, Align::Offset(-3)),
    |s| s.packed = true,
    |s| s.by_position = true,
    |s| s.dtypes = [DType::F16; 4],
    |s| (s.dtypes, s.bias) = ([DType::BF16; 4], Some([1, 0, 0, 0])),
    |s| s.dtypes = [DType::F32, DType::F16, DType::BF16, DType::F32],
];

fn options(all: &mut Cases) -> Result<()> {
    // More keys than queries, fewer, one query; f16, for variants that take nothing else.
    let shapes = all.choose(&[(19, 35, DType::F32), (67, 43, DType::F16), (1, 67, DType::F32)], &[]);
    for (i, first) in FEATURES.iter().enumerate() {
        for &(queries, keys, dtype) in &shapes {
            let dtypes = [dtype, dtype, dtype, DType::F32];
            let mut setup = Setup { batch: 2, heads: 4, key_heads: 2, queries, keys, dtypes, ..Setup::default() };
            first(&mut setup);
            add(all, "option", &setup)?;
        }
        if all.is_full() {
            for (n, second) in FEATURES[i + 1..].iter().enumerate() {
                let dtype = [DType::F32, DType::F16][(i + n) % 2];
                let dtypes = [dtype, dtype, dtype, DType::F32];
                let mut setup =
                    Setup { batch: 2, heads: 2, key_heads: 1, queries: 18, keys: 33, dtypes, ..Setup::default() };
                first(&mut setup);
                second(&mut setup);
                if setup.is_allowed() {
                    add(all, "pair", &setup)?;
                }
            }
        }
    }
    Ok(())
}

/// Fully masked rows, and rows with biases that only look so.
fn edges(all: &mut Cases) -> Result<()> {
    let qkv = |draft: &mut Draft| -> Result<[ValueId; 3]> {
        Ok([
            draft.reals("q", DType::F32, [1, 2, 9, 16], [-1.0, 1.0])?,
            draft.reals("k", DType::F32, [1, 2, 20, 16], [-1.0, 1.0])?,
            draft.reals("v", DType::F32, [1, 2, 20, 16], [-1.0, 1.0])?,
        ])
    };
    let push = |draft: &mut Draft, [q, k, v]: [ValueId; 3], operand: AttentionOperand, value: ValueId| {
        let options = Attention { operands: vec![operand], ..Attention::default() };
        draft.graph.push(Op::Attention(options), &[q, k, v, value])
    };
    let check = Check::Measured { magnitude: 1.0 };
    all.add(FAMILY, "mask hides all", check, |draft| {
        let qkv = qkv(draft)?;
        let mask = draft.given("mask", Tensor::new([9, 20], vec![false; 180])?)?;
        push(draft, qkv, AttentionOperand::Mask, mask)
    })?;
    all.add(FAMILY, "mask hides every third row", check, |draft| {
        let qkv = qkv(draft)?;
        let mask =
            draft.given("mask", Tensor::new([9, 20], (0..180).map(|i| (i / 20) % 3 != 1).collect::<Vec<_>>())?)?;
        push(draft, qkv, AttentionOperand::Mask, mask)
    })?;
    // Tiles that are fully masked, or not masked at all, and the ends of both.
    for (tq, tk, heads, dtype) in all.choose(&[(150, 139, 2, DType::F32)], &[(520, 515, 16, DType::F16)]) {
        all.add(FAMILY, format!("mask in blocks along the diagonal, {dtype}"), check, |draft| {
            let [q, k, v] = [("q", tq), ("k", tk), ("v", tk)]
                .map(|(name, t)| draft.reals(name, dtype, [1, heads, t, 16], [-1.0, 1.0]));
            let seen = |i: usize| i / tk / 70 == i % tk / 70;
            let mask = draft.given("mask", Tensor::new([tq, tk], (0..tq * tk).map(seen).collect::<Vec<_>>())?)?;
            push(draft, [q?, k?, v?], AttentionOperand::Mask, mask)
        })?;
    }
    // The maximum moves with every tile of keys.
    for dtype in [DType::F32, DType::F16] {
        all.add(FAMILY, format!("scores of {dtype} that rise from key to key"), check, |draft| {
            let [q, k, v] = [("q", 37), ("k", 140), ("v", 140)]
                .map(|(name, t)| draft.reals(name, dtype, [1, 2, t, 16], [-1.0, 1.0]));
            let bias =
                draft.given("bias", Tensor::new([140], (0..140).map(|j| 0.2 * j as f32).collect::<Vec<_>>())?)?;
            push(draft, [q?, k?, v?], AttentionOperand::Bias, bias)
        })?;
    }
    // The scores are only the bias: with anything beside it, −1e9 would round it away in f32.
    let bias_alone = |draft: &mut Draft, bias: Vec<f32>| {
        let q = draft.wholes("q", DType::F32, [1, 2, 9, 16], [0, 0])?;
        let k = draft.reals("k", DType::F32, [1, 2, 20, 16], [-1.0, 1.0])?;
        let v = draft.reals("v", DType::F32, [1, 2, 20, 16], [-1.0, 1.0])?;
        let bias = draft.given("bias", Tensor::new([9, 20], bias)?)?;
        push(draft, [q, k, v], AttentionOperand::Bias, bias)
    };
    for (name, bias) in [("−inf", f32::NEG_INFINITY), ("−1e9", -1e9), ("the lowest f32", f32::MIN), ("1e4", 1e4)] {
        all.add(FAMILY, format!("rows with a bias of only {name}"), check, |draft| {
            bias_alone(draft, (0..180).map(|i| if (i / 20) % 2 == 0 { bias } else { 0.5 }).collect())
        })?;
    }
    all.add(FAMILY, "one key with the lowest f32 as bias, all others −inf", check, |draft| {
        let bias = |i: usize| if i % 20 == i / 20 * 7 % 20 { f32::MIN } else { f32::NEG_INFINITY };
        bias_alone(draft, (0..180).map(bias).collect())
    })?;
    all.add(FAMILY, "lengths and offsets out of range", check, |draft| {
        use AttentionOperand as A;
        let q = draft.reals("q", DType::F32, [5, 2, 6, 8], [-1.0, 1.0])?;
        let k = draft.reals("k", DType::F32, [5, 2, 7, 8], [-1.0, 1.0])?;
        let v = draft.reals("v", DType::F32, [5, 2, 7, 8], [-1.0, 1.0])?;
        let keys = draft.given("key_lengths", Tensor::new([5], vec![-1, 0, 7, 8, i32::MAX])?)?;
        let queries = draft.given("query_lengths", Tensor::new([5], vec![6, i32::MIN, 100, 3, 5])?)?;
        let offsets = draft.given("offsets", Tensor::new([5], vec![0, 3, -100, 100, 1 << 30])?)?;
        let operands = vec![A::QueryLengths, A::Offsets, A::KeyLengths];
        let options = Attention { causal: true, align: Align::PerItem, operands, ..Attention::default() };
        draft.graph.push(Op::Attention(options), &[q, k, v, queries, offsets, keys])
    })?;
    // More than the launch of records has invocations.
    all.add(FAMILY, "every third of 70 lengths out of range", check, |draft| {
        let q = draft.reals("q", DType::F32, [70, 1, 2, 4], [-1.0, 1.0])?;
        let k = draft.reals("k", DType::F32, [70, 1, 3, 4], [-1.0, 1.0])?;
        let lengths: Vec<i32> = (0..70).map(|item| if item % 3 == 0 { 9 } else { item % 4 }).collect();
        let lengths = draft.given("lengths", Tensor::new([70], lengths)?)?;
        let results = draft.graph.attention_results(q, k, k, Mask::key_lengths(lengths))?;
        Ok(vec![results.out, results.lse, results.status])
    })?;
    // Equal scores: the mean of the values, a sum of small integers over a power of two.
    for keys in [1, 2, 16, 64] {
        all.add(FAMILY, format!("the mean of {keys} values"), Check::Exact, |draft| {
            let q = draft.wholes("q", DType::F32, [1, 2, 17, 8], [0, 0])?;
            let k = draft.wholes("k", DType::F32, [1, 2, keys, 8], [-8, 8])?;
            let v = draft.wholes("v", DType::F32, [1, 2, keys, 8], [-64, 64])?;
            Ok(vec![draft.graph.attention(q, k, v, Mask::none())?])
        })?;
    }
    // The value of the only key, which the result's dtype rounds.
    for dtype in [DType::F16, DType::BF16] {
        all.add(FAMILY, format!("a value rounded to {dtype}"), Check::Exact, |draft| {
            let q = draft.reals("q", dtype, [1, 2, 9, 16], [-1.0, 1.0])?;
            let k = draft.reals("k", DType::F32, [1, 2, 1, 16], [-1.0, 1.0])?;
            let odd = draft.reals("odd", DType::F32, [1, 2, 1, 15], [-9.0, 9.0])?;
            let even = draft.reals("even", DType::F32, [1, 2, 1, 16], [-9.0, 9.0])?;
            let [odd, even] = [odd, even].map(|v| draft.graph.attention(q, k, v, Mask::none()));
            Ok(vec![odd?, even?])
        })?;
    }
    functions(all)?;
    paged(all)?;
    // Written out by hand, as lowering may recognise it.
    for causal in [false, true] {
        let name = if causal { "written out, with a mask" } else { "written out" };
        all.add(FAMILY, name, check, |draft| {
            let [q, k, v] = qkv(draft)?;
            let scores = draft.graph.matmul_transposed(q, k)?;
            let scale = draft.graph.scalar(0.25, scores)?;
            let mut scores = draft.graph.mul(scores, scale)?;
            if causal {
                let mask: Vec<bool> = (0..180).map(|i| i % 20 <= i / 20 + 11).collect();
                let mask = draft.graph.constant(Tensor::new([9, 20], mask)?)?;
                let lowest = draft.graph.scalar(f64::NEG_INFINITY, scores)?;
                scores = draft.graph.select(mask, scores, lowest)?;
            }
            let weights = draft.graph.softmax(scores, -1)?;
            Ok(vec![draft.graph.matmul(weights, v)?])
        })?;
    }
    Ok(())
}

/// Keys and values that are not finite: whoever sees them is told so, and nobody else, by whatever means they are hidden.
fn not_finite(all: &mut Cases) -> Result<()> {
    type Hide = fn(&mut Draft, [usize; 2]) -> Result<AttentionArgs>;
    let ways: [(&str, Hide); 12] = [
        ("nothing hidden", |_, _| Ok(Mask::none().into())),
        ("causal", |_, _| Ok(Mask::causal(Align::TopLeft).into())),
        ("causal from the end", |_, _| Ok(Mask::causal(Align::BottomRight).into())),
        ("a window", |_, _| Ok(Mask::window(Some(4), Some(0), Align::TopLeft).into())),
        ("key lengths", |draft, [_, tk]| {
            let lengths = draft.given("lengths", Tensor::new([2], vec![0, tk as i32 - 7])?)?;
            Ok(Mask::key_lengths(lengths).into())
        }),
        ("a mask", |draft, [tq, tk]| {
            let mask = draft.wholes("mask", DType::Bool, [tq, tk], [0, 1])?;
            Ok(Mask::boolean(mask).into())
        }),
        ("a mask by heads", |draft, [tq, tk]| {
            let seen: Vec<bool> = (0..4 * tq * tk).map(|i| i % tk / 8 == i / tk % 4).collect();
            let mask = draft.given("mask", Tensor::new([4, tq, tk], seen)?)?;
            Ok(Mask::boolean(mask).into())
        }),
        ("a bias", |draft, [tq, tk]| {
            let bias: Vec<f32> = (0..tq * tk).map(|i| if i % 3 == 1 { f32::NEG_INFINITY } else { 0.5 }).collect();
            let bias = draft.given("bias", Tensor::new([tq, tk], bias)?)?;
            Ok(Mask::bias(bias).into())
        }),
        ("a function of masks", |_, _| {
            Ok(Mask::function(MaskMod::new("(i + j) % 3 == 0", |s| (s.i + s.j) % 3 == 0)?).into())
        }),
        ("a function of scores, with a softcap", |draft, _| {
            let hidden = draft.given("hidden", Tensor::new([1], vec![f32::NEG_INFINITY])?)?;
            let function = ScoreMod::new("select(table[0], score, (i + j) % 3 == 0)", |s| {
                if (s.i + s.j) % 3 == 0 { s.score } else { s.table(0) }
            })?;
            let args = AttentionArgs { softcap: Some(3.0), ..AttentionArgs::default() };
            Ok(args.score_mod(function).score_table(hidden))
        }),
        ("slopes and sinks", |draft, [_, _]| {
            let slopes = draft.reals("slopes", DType::F32, [4], [0.0, 0.5])?;
            let sinks = draft.reals("sinks", DType::F32, [4], [-2.0, 2.0])?;
            let args = AttentionArgs::from(Mask::causal(Align::TopLeft));
            Ok(AttentionArgs { slopes: Some(slopes), sinks: Some(sinks), ..args })
        }),
        ("a softcap", |_, _| {
            Ok(AttentionArgs { softcap: Some(3.0), ..AttentionArgs::from(Mask::causal(Align::TopLeft)) })
        }),
    ];
    // Of the keys of an item, what the one at a place is: a NaN or infinity in v, or in k, in its first or last column.
    let odd = |draft: &mut Draft, name: &str, dtype: DType, shape: [usize; 4], places: &[(usize, bool, f64)]| {
        let [b, h, t, d] = shape;
        let mut numbers: Vec<f64> = (0..b * h * t * d).map(|_| draft.random.real(-1.0, 1.0)).collect();
        for rows in numbers.chunks_mut(t * d) {
            for &(place, last, number) in places {
                rows[place % t * d + if last { d - 1 } else { 0 }] = number;
            }
        }
        draft.numbers(name, dtype, shape, &numbers)
    };
    let check = Check::Measured { magnitude: 1.0 };
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    for (way, hide) in ways {
        // As the options above, whose kernels these share; then columns that don't fill a vector, and keys in several parts.
        let mut shapes = all.choose(
            &[(19, 35, 16, DType::F32), (67, 43, 16, DType::F16), (1, 67, 16, DType::F32)],
            &[(150, 139, 64, DType::F32), (3, 1031, 20, DType::F16)],
        );
        if ["causal", "a mask"].contains(&way) {
            shapes.extend([(9, 20, 13, DType::F32), (2, 300, 16, DType::F32)]);
        }
        for (tq, tk, d, dtype) in shapes {
            let name = format!("{way}, {tq}x{tk} d{d} {dtype}");
            // Places near the start, the middle and the end, so that some rows see them, and some don't.
            all.add_not_finite(FAMILY, format!("values, {name}"), check, |draft| {
                let q = draft.reals("q", dtype, [2, 4, tq, d], [-1.0, 1.0])?;
                let k = draft.reals("k", dtype, [2, 2, tk, d], [-1.0, 1.0])?;
                let places = [(tk - 1, true, nan), (tk - 3, false, inf), (tk / 2, true, -inf), (5, false, nan)];
                let v = odd(draft, "v", dtype, [2, 2, tk, d], &places)?;
                let args = hide(draft, [tq, tk])?;
                let results = draft.graph.attention_results(q, k, v, args)?;
                Ok(vec![results.out, results.lse])
            })?;
            all.add_not_finite(FAMILY, format!("keys, {name}"), check, |draft| {
                let q = draft.reals("q", dtype, [2, 4, tq, d], [0.1, 1.0])?;
                let places = [(tk - 1, true, nan), (tk - 2, true, inf), (tk / 2, false, -inf), (6, true, nan)];
                let k = odd(draft, "k", dtype, [2, 2, tk, d], &places)?;
                let v = draft.reals("v", dtype, [2, 2, tk, d], [-1.0, 1.0])?;
                let args = hide(draft, [tq, tk])?;
                let results = draft.graph.attention_results(q, k, v, args)?;
                Ok(vec![results.out, results.lse])
            })?;
        }
    }
    for dtype in [DType::F32, DType::F16] {
        all.add_not_finite(FAMILY, format!("queries of {dtype}"), check, |draft| {
            let q = odd(draft, "q", dtype, [1, 2, 35, 16], &[(3, false, nan), (34, true, inf), (17, true, -inf)])?;
            let k = draft.reals("k", dtype, [1, 2, 67, 16], [-1.0, 1.0])?;
            let v = draft.reals("v", dtype, [1, 2, 67, 16], [-1.0, 1.0])?;
            let results = draft.graph.attention_results(q, k, v, Mask::causal(Align::BottomRight))?;
            Ok(vec![results.out, results.lse])
        })?;
        // A score of −∞ is one: a row that sees nothing else is no row that sees nothing.
        all.add_not_finite(FAMILY, format!("only scores of −∞ of {dtype}"), check, |draft| {
            let q = draft.reals("q", dtype, [1, 2, 35, 16], [0.1, 1.0])?;
            let k: Vec<(usize, bool, f64)> = (0..300).map(|place| (place, true, -inf)).collect();
            let k = odd(draft, "k", dtype, [1, 2, 300, 16], &k)?;
            let v = draft.reals("v", dtype, [1, 2, 300, 16], [-1.0, 1.0])?;
            let mask: Vec<bool> = (0..35 * 300).map(|i| i / 300 % 3 != 1).collect();
            let mask = draft.given("mask", Tensor::new([35, 300], mask)?)?;
            let results = draft.graph.attention_results(q, k, v, Mask::boolean(mask))?;
            Ok(vec![results.out, results.lse])
        })?;
        all.add_not_finite(FAMILY, format!("packed sequences of {dtype}"), check, |draft| {
            let (nq, nk) = ([0, 9, 9, 40], [0, 35, 60, 103]);
            let starts =
                |draft: &mut Draft, name: &str, starts: [i32; 4]| draft.given(name, Tensor::new([4], starts.to_vec())?);
            let q_starts = starts(draft, "q starts", nq)?;
            let k_starts = starts(draft, "k starts", nk)?;
            let q = draft.reals("q", dtype, [40, 2, 16], [-1.0, 1.0])?;
            let k = odd(draft, "k", dtype, [1, 1, 103, 32], &[(34, false, nan), (0, true, inf)])?;
            let k = draft.graph.reshape(k, [103, 2, 16])?;
            let v = odd(draft, "v", dtype, [1, 1, 103, 32], &[(59, false, nan), (36, true, inf)])?;
            let v = draft.graph.reshape(v, [103, 2, 16])?;
            let results = draft.graph.attention_results(q, k, v, Mask::packed(q_starts, k_starts))?;
            Ok(vec![results.out, results.lse])
        })?;
        // Pages that no entry names, or one past its item's length; and a key that the last row alone sees.
        all.add_not_finite(FAMILY, format!("pages of {dtype}"), check, |draft| {
            let q = draft.reals("q", dtype, [2, 2, 5, 16], [-1.0, 1.0])?;
            let pages = |draft: &mut Draft, name: &str| {
                let mut numbers: Vec<f64> = (0..6 * 8 * 32).map(|_| draft.random.real(-1.0, 1.0)).collect();
                numbers[..8 * 32].fill(nan);
                numbers[3 * 8 * 32..].fill(nan);
                numbers[(2 * 8 + 7) * 32] = inf;
                draft.numbers(name, dtype, [6, 8, 2, 16], &numbers)
            };
            let k = pages(draft, "k")?;
            let v = pages(draft, "v")?;
            let table = draft.given("table", Tensor::new([2, 3], vec![1, 2, 0, 4, 9, 3])?)?;
            let lengths = draft.given("lengths", Tensor::new([2], vec![16, 0])?)?;
            let mask = Mask::pages(table) & Mask::key_lengths(lengths) & Mask::causal(Align::BottomRight);
            let results = draft.graph.attention_results(q, k, v, mask)?;
            Ok(vec![results.out, results.lse])
        })?;
    }
    Ok(())
}

/// Sizes and options at random.
fn drawn(all: &mut Cases) -> Result<()> {
    let count = if all.is_full() { 200 } else { 12 };
    let mut random = Random::new(all.seed);
    for i in 0..count {
        let setup = Setup::draw(&mut random);
        add(all, &format!("drawn {i}"), &setup)?;
    }
    Ok(())
}

/// One attention in all its options. Masks and biases say for each axis of `[B, Hq, Tq, Tk]` whether it is 1 there.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) key_heads: usize,
    pub(super) queries: usize,
    pub(super) keys: usize,
    pub(super) width: usize,
    pub(super) value_width: usize,
    /// Of q, k, v and bias.
    pub(super) dtypes: [DType; 4],
    pub(super) scale: Option<f32>,
    pub(super) softcap: Option<f32>,
    pub(super) causal: bool,
    pub(super) window: Window,
    pub(super) align: Align,
    pub(super) mask: Option<[u8; 4]>,
    pub(super) bias: Option<[u8; 4]>,
    /// The mask ends before the keys do.
    pub(super) short: bool,
    pub(super) key_lengths: bool,
    pub(super) query_lengths: bool,
    pub(super) slopes: bool,
    pub(super) sinks: bool,
    pub(super) packed: bool,
    /// q, k and v are `[B, T, H, D]` in memory.
    pub(super) by_position: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            batch: 1,
            heads: 2,
            key_heads: 2,
            queries: 18,
            keys: 35,
            width: 16,
            value_width: 16,
            dtypes: [DType::F32; 4],
            scale: None,
            softcap: None,
            causal: false,
            window: Window::default(),
            align: Align::TopLeft,
            mask: None,
            bias: None,
            short: false,
            key_lengths: false,
            query_lengths: false,
            slopes: false,
            sinks: false,
            packed: false,
            by_position: false,
        }
    }
}

impl Setup {
    /// Packed sequences take no mask and no bias, and lie by position anyway.
    fn is_allowed(&self) -> bool {
        !(self.packed && (self.mask.is_some() || self.bias.is_some() || self.by_position))
    }

    pub(super) fn draw(random: &mut Random) -> Self {
        let key_heads = random.size(1, 3);
        let width = random.pick(&[1, 2, 8, 13, 16, 32, 48, 64, 65]);
        let packed = random.one_in(4);
        let shape = |random: &mut Random| [(); 4].map(|()| u8::from(random.one_in(2)));
        Setup {
            batch: random.size(1, 3),
            heads: key_heads * random.size(1, 3),
            key_heads,
            queries: random.pick(&[1, 2, 7, 16, 17, 33, 67]),
            keys: random.pick(&[1, 2, 7, 16, 17, 33, 67, 130]),
            width,
            value_width: if random.one_in(4) { random.size(1, 70) } else { width },
            dtypes: match random.size(0, 7) {
                0 => [random.pick(&[DType::F16, DType::BF16]); 4],
                1 => [(); 4].map(|()| random.pick(&[DType::F32, DType::F16, DType::BF16])),
                _ => [DType::F32; 4],
            },
            scale: random.one_in(3).then(|| random.real(-0.5, 1.0) as f32),
            softcap: random.one_in(4).then(|| random.real(1.0, 5.0) as f32),
            causal: random.one_in(2),
            window: Window {
                left: random.one_in(4).then(|| random.size(0, 20) as u32),
                right: random.one_in(4).then(|| random.size(0, 20) as u32),
            },
            align: match random.size(0, 3) {
                0 => Align::TopLeft,
                1 => Align::BottomRight,
                2 => Align::Offset(random.whole(-20, 40) as i32),
                _ => Align::PerItem,
            },
            mask: (!packed && random.one_in(3)).then(|| shape(random)),
            bias: (!packed && random.one_in(3)).then(|| shape(random)),
            short: random.one_in(5),
            key_lengths: random.one_in(3),
            query_lengths: random.one_in(4),
            slopes: random.one_in(4),
            sinks: false,
            packed,
            by_position: !packed && random.one_in(3),
        }
    }

    /// `b2 h4/2 t19x35 d16 causal BottomRight`: sizes, then what is not as usual.
    pub(super) fn name(&self) -> String {
        let mut name = format!("b{} h{}", self.batch, self.heads);
        let mut put = |condition: bool, text: std::fmt::Arguments<'_>| {
            if condition {
                // Writing to a string can't fail.
                let _ = name.write_fmt(text);
            }
        };
        put(self.key_heads != self.heads, format_args!("/{}", self.key_heads));
        put(true, format_args!(" t{}x{} d{}", self.queries, self.keys, self.width));
        put(self.value_width != self.width, format_args!("/{}", self.value_width));
        let [q, k, v, bias] = self.dtypes;
        put([q, k, v] != [DType::F32; 3], format_args!(" {q}"));
        put([k, v] != [q; 2], format_args!("/{k}/{v}"));
        put(self.packed, format_args!(" packed"));
        put(self.by_position, format_args!(" [B,T,H,D]"));
        put(self.scale.is_some(), format_args!(" scale {}", self.scale.unwrap_or_default()));
        put(self.softcap.is_some(), format_args!(" softcap {}", self.softcap.unwrap_or_default()));
        put(self.causal, format_args!(" causal"));
        let side = |side: Option<u32>| side.map_or("∞".to_string(), |side| side.to_string());
        let window = self.window != Window::default();
        put(window, format_args!(" window {}+{}", side(self.window.left), side(self.window.right)));
        put(self.align != Align::TopLeft, format_args!(" {:?}", self.align));
        let axes = |ones: [u8; 4]| -> String {
            ones.iter().zip("bhqk".chars()).map(|(&one, axis)| if one == 1 { '1' } else { axis }).collect()
        };
        put(self.mask.is_some(), format_args!(" mask {}", axes(self.mask.unwrap_or_default())));
        put(self.mask.is_some() && self.short, format_args!(" short"));
        put(self.bias.is_some(), format_args!(" bias {}", axes(self.bias.unwrap_or_default())));
        put(self.bias.is_some() && bias != DType::F32, format_args!(" {bias}"));
        put(self.key_lengths, format_args!(" key lengths"));
        put(self.query_lengths, format_args!(" query lengths"));
        put(self.slopes, format_args!(" alibi"));
        put(self.sinks, format_args!(" sinks"));
        name
    }

    /// A shape that broadcasts to the scores, leading ones dropped, and the keys that it reaches.
    fn per_score(&self, ones: [u8; 4], short: bool) -> Shape {
        let keys = if short && self.keys > 2 { self.keys - 1 } else { self.keys };
        let full = [self.batch, self.heads, self.queries, keys];
        let sizes = full.iter().zip(ones).map(|(&size, one)| if one == 1 { 1 } else { size });
        let sizes: Vec<usize> = sizes.collect();
        let leading = ones[..3].iter().take_while(|&&one| one == 1).count();
        sizes[leading..].into()
    }
}

fn add(all: &mut Cases, prefix: &str, setup: &Setup) -> Result<()> {
    let name = format!("{prefix} {}", setup.name());
    // Two pairs of options can come to the same.
    if all.cases.iter().any(|case| case.name == name.trim_start()) {
        return Ok(());
    }
    // Values are at most 1, so that is what rounding errors of their averages are made of.
    all.add(FAMILY, name.trim_start(), Check::Measured { magnitude: 1.0 }, |draft| build(draft, setup))
}

pub(super) fn build(draft: &mut Draft, setup: &Setup) -> Result<Vec<ValueId>> {
    use AttentionOperand as A;
    let Setup { batch, heads, key_heads, width, value_width, dtypes: [q_dtype, k_dtype, v_dtype, bias_dtype], .. } =
        *setup;
    let mut operands = Vec::new();
    let mut extra = Vec::new();
    let (mut queries, mut keys) = (setup.queries, setup.keys);
    if setup.packed {
        // Each sequence has up to that many, also none.
        for (operand, total, most) in
            [(A::QueryOffsets, &mut queries, setup.queries), (A::KeyOffsets, &mut keys, setup.keys)]
        {
            let mut starts = vec![0i32];
            *total = 0;
            for _ in 0..batch {
                *total += if draft.random.one_in(5) { 0 } else { draft.random.size(1, most.max(1)) };
                starts.push(*total as i32);
            }
            operands.push(operand);
            extra.push(draft.given(operand.name(), Tensor::new([batch + 1], starts)?)?);
        }
    }
    let rows = |draft: &mut Draft, name: &str, dtype: DType, heads: usize, length: usize, width: usize| {
        let range = [-1.0, 1.0];
        if setup.packed {
            draft.reals(name, dtype, [length, heads, width], range)
        } else if setup.by_position {
            let x = draft.reals(name, dtype, [batch, length, heads, width], range)?;
            draft.graph.permute(x, &[0, 2, 1, 3])
        } else {
            draft.reals(name, dtype, [batch, heads, length, width], range)
        }
    };
    let q = rows(draft, "q", q_dtype, heads, queries, width)?;
    let k = rows(draft, "k", k_dtype, key_heads, keys, width)?;
    let v = rows(draft, "v", v_dtype, key_heads, keys, value_width)?;
    if let Some(ones) = setup.mask {
        operands.push(A::Mask);
        extra.push(draft.wholes("mask", DType::Bool, setup.per_score(ones, setup.short), [0, 1])?);
    }
    if let Some(ones) = setup.bias {
        let shape = setup.per_score(ones, false);
        let n = shape.checked_elements(FAMILY)?;
        let hidden = f32::NEG_INFINITY;
        let bias = (0..n).map(|_| if draft.random.one_in(4) { hidden } else { draft.random.real(-2.0, 2.0) as f32 });
        let bias: Vec<f32> = bias.collect();
        let bias = match bias_dtype {
            DType::F16 => Tensor::new(shape, bias.into_iter().map(half::f16::from_f32).collect::<Vec<_>>())?,
            DType::BF16 => Tensor::new(shape, bias.into_iter().map(half::bf16::from_f32).collect::<Vec<_>>())?,
            DType::F32 | DType::I32 | DType::U32 | DType::Bool => Tensor::new(shape, bias)?,
        };
        operands.push(A::Bias);
        extra.push(draft.given("bias", bias)?);
    }
    for (operand, wanted, most) in
        [(A::KeyLengths, setup.key_lengths, keys), (A::QueryLengths, setup.query_lengths, queries)]
    {
        if wanted {
            operands.push(operand);
            extra.push(draft.wholes(operand.name(), DType::I32, [batch], [0, most as i64 + 1])?);
        }
    }
    if setup.align == Align::PerItem {
        operands.push(A::Offsets);
        extra.push(draft.wholes("offsets", DType::I32, [batch], [-(queries as i64), keys as i64])?);
    }
    if setup.slopes {
        operands.push(A::Slopes);
        extra.push(draft.reals("slopes", DType::F32, [heads], [0.0, 0.5])?);
    }
    if setup.sinks {
        operands.push(A::Sinks);
        extra.push(draft.reals("sinks", DType::F32, [heads], [-2.0, 2.0])?);
    }
    let options = Attention {
        scale: setup.scale,
        softcap: setup.softcap,
        causal: setup.causal,
        window: setup.window,
        align: setup.align,
        operands,
        ..Attention::default()
    };
    let inputs: Vec<ValueId> = [q, k, v].into_iter().chain(extra).collect();
    let mut outputs = draft.graph.push(Op::Attention(options), &inputs)?;
    if setup.by_position {
        outputs[0] = draft.graph.merge_heads(outputs[0])?;
    }
    Ok(outputs)
}

/// Functions of the user's, with tables, among other options.
fn functions(all: &mut Cases) -> Result<()> {
    type Build = fn(&mut Draft) -> Result<AttentionArgs>;
    let cases: [(&str, Build); 4] = [
        ("relative positions from a table", |draft| {
            let table = draft.reals("table", DType::F32, [4, 33], [-1.0, 1.0])?;
            let text = "score + table[h * 33 + clamp(j - position, -16, 16) + 16]";
            let function =
                ScoreMod::new(text, |s| s.score + s.table(s.h * 33 + (s.j - s.position).clamp(-16, 16) + 16))?;
            Ok(AttentionArgs::from(Mask::causal(Align::BottomRight)).score_mod(function).score_table(table))
        }),
        ("documents", |draft| {
            let documents = draft.wholes("documents", DType::F32, [2, 67], [0, 2])?;
            let function = MaskMod::new("table[b * 67 + i] == table[b * 67 + j]", |s| {
                s.table(s.b * 67 + s.i) == s.table(s.b * 67 + s.j)
            })?;
            Ok((Mask::function(function) & Mask::table(documents)).into())
        }),
        ("a cap, one after a distance", |draft| {
            let lengths = draft.wholes("lengths", DType::I32, [2], [1, 67])?;
            let far = ScoreMod::new("score - 0.1 * f32(abs(i - j))", |s| s.score - 0.1 * f64::from((s.i - s.j).abs()))?;
            let cap = ScoreMod::new("let half = score / 2.0;\nreturn select(half, score, score > 0.0);", |s| {
                if s.score > 0.0 { s.score } else { s.score / 2.0 }
            })?;
            Ok(AttentionArgs::from(Mask::key_lengths(lengths)).score_mod(far).score_mod(cap))
        }),
        ("rows that see nothing", |_| {
            let odd = MaskMod::new("i % 2 == 1 && h_kv == 0", |s| s.i % 2 == 1 && s.h_kv == 0)?;
            let even =
                MaskMod::new("(k_len - j) % 2 == 0 || q_len == 0", |s| (s.k_len - s.j) % 2 == 0 || s.q_len == 0)?;
            Ok((Mask::function(odd) & Mask::function(even)).into())
        }),
    ];
    for dtype in [DType::F32, DType::F16] {
        for (name, build) in cases {
            all.add(FAMILY, format!("a function of {dtype}: {name}"), Check::Measured { magnitude: 1.0 }, |draft| {
                let q = draft.reals("q", dtype, [2, 4, 35, 16], [-1.0, 1.0])?;
                let k = draft.reals("k", dtype, [2, 2, 67, 16], [-1.0, 1.0])?;
                let v = draft.reals("v", dtype, [2, 2, 67, 16], [-1.0, 1.0])?;
                let args = build(draft)?;
                let results = draft.graph.attention_results(q, k, v, args)?;
                Ok(vec![results.out, results.lse, results.status])
            })?;
        }
    }
    Ok(())
}

/// Keys and values in pages: `[page size, Tq]`, and whether queries are packed.
fn paged(all: &mut Cases) -> Result<()> {
    let sizes = all.choose(
        &[
            ([16, 1], false, DType::F32),
            ([4, 35], false, DType::F16),
            ([1, 3], false, DType::F32),
            ([8, 5], true, DType::F32),
        ],
        &[([64, 70], false, DType::F32), ([4, 35], false, DType::F32), ([8, 20], true, DType::F16)],
    );
    for ([size, queries], packed, dtype) in sizes {
        let name = format!("pages of {size} of {dtype}, {queries} queries{}", if packed { ", packed" } else { "" });
        all.add(FAMILY, name, Check::Measured { magnitude: 1.0 }, |draft| {
            const KEYS: usize = 67;
            let each = KEYS.div_ceil(size);
            let count = 2 * each + 2;
            let q: Shape = if packed { [2 * queries, 4, 16].into() } else { [2, 4, queries, 16].into() };
            let q = draft.reals("q", dtype, q, [-1.0, 1.0])?;
            let k = draft.reals("k", dtype, [count, size, 2, 16], [-1.0, 1.0])?;
            let v = draft.reals("v", dtype, [count, size, 2, 16], [-1.0, 1.0])?;
            let lengths = draft.given("lengths", Tensor::new([2], vec![KEYS as i32, 40])?)?;
            // The first page is shared, and one entry names no page.
            let mut table: Vec<i32> = (0..2 * each).map(|e| (count - 1 - e) as i32).collect();
            table[each] = table[0];
            table[1] = count as i32;
            let table = draft.given("table", Tensor::new([2, each], table)?)?;
            let mut mask = Mask::pages(table) & Mask::key_lengths(lengths) & Mask::causal(Align::BottomRight);
            if packed {
                let starts = Tensor::new([3], vec![0, 2, 2 * queries as i32 - 1])?;
                mask = mask & Mask::packed_queries(draft.given("starts", starts)?);
            }
            let results = draft.graph.attention_results(q, k, v, mask)?;
            Ok(vec![results.out, results.lse, results.status])
        })?;
    }
    Ok(())
}
