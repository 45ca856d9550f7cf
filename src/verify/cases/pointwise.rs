use super::case::{Cases, Draft};
use crate::{
    DType, Result, Tensor, ValueId,
    graph::{Binary, Op, Unary},
    reference::compare::Check,
};

const FAMILY: &str = "pointwise";
const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

pub(super) fn cases(mut all: Cases) -> Result<Cases> {
    functions_of_one(&mut all)?;
    functions_of_two(&mut all)?;
    choices_and_casts(&mut all)?;
    chains(&mut all)?;
    dropouts(&mut all)?;
    not_finite(&mut all)?;
    Ok(all)
}

/// NaN and infinities, through every function and conversion.
fn not_finite(all: &mut Cases) -> Result<()> {
    const ODD: [f64; 8] = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, 1.0, -1.0, 0.5];
    for dtype in FLOATS {
        // Dropped or not.
        all.add_not_finite(FAMILY, format!("dropout of {dtype}"), Check::Exact, |draft| {
            let x = draft.numbers("x", dtype, [4, ODD.len()], &[ODD; 4].concat())?;
            let seed = seed(draft, DType::U32)?;
            Ok(vec![draft.graph.dropout(x, seed, 0.5)?, draft.graph.dropout(x, seed, 1.0)?])
        })?;
        for function in Unary::ALL.into_iter().filter(|function| *function != Unary::Not) {
            all.add_not_finite(
                FAMILY,
                format!("{} of {dtype}", function.name()),
                Check::Measured { magnitude: 1.0 },
                |draft| {
                    let x = draft.numbers("x", dtype, [ODD.len()], &ODD)?;
                    Ok(vec![draft.graph.unary(function, x)?])
                },
            )?;
        }
        for function in Binary::ALL.into_iter().filter(|function| !function.is_logical()) {
            all.add_not_finite(
                FAMILY,
                format!("{} of {dtype}", function.name()),
                Check::Measured { magnitude: 1.0 },
                |draft| {
                    let a = draft.numbers("a", dtype, [ODD.len(), 1], &ODD)?;
                    let b = draft.numbers("b", dtype, [1, ODD.len()], &ODD)?;
                    Ok(vec![draft.graph.binary(function, a, b)?])
                },
            )?;
        }
        for to in [DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32, DType::Bool] {
            all.add_not_finite(FAMILY, format!("{dtype} cast to {to}"), Check::Exact, |draft| {
                let x = draft.numbers("x", dtype, [ODD.len()], &ODD)?;
                Ok(vec![draft.graph.cast(x, to)?])
            })?;
        }
    }
    // Written out by hand, as lowering may recognise it.
    all.add_not_finite(FAMILY, "max(x, 0) and what is chosen", Check::Exact, |draft| {
        let x = draft.numbers("x", DType::F32, [ODD.len()], &ODD)?;
        let zero = draft.graph.scalar(0.0, x)?;
        let relu = draft.graph.max(x, zero)?;
        let shown = draft.graph.binary(Binary::Equal, x, x)?;
        Ok(vec![relu, draft.graph.select(shown, x, zero)?])
    })
}

/// Where a function is tried: where it changes, and where it is flat. One that has no value somewhere there fails its cases.
fn range(function: Unary) -> [f64; 2] {
    let ranges = [
        ([1e-3, 50.0], &[Unary::Log, Unary::Sqrt, Unary::Rsqrt][..]),
        ([0.1, 9.0], &[Unary::Reciprocal]),
        ([-4.0, 4.0], &[Unary::Erf]),
        ([-3.1, 3.1], &[Unary::Sin, Unary::Cos]),
        ([-30.0, 30.0], &[Unary::Tanh, Unary::Sigmoid]),
    ];
    ranges.into_iter().find(|(_, functions)| functions.contains(&function)).map_or([-8.0, 8.0], |(range, _)| range)
}

fn functions_of_one(all: &mut Cases) -> Result<()> {
    let sizes = all.choose(&[1, 5, 259], &[0, 65, 70_001]);
    for function in Unary::ALL {
        if function == Unary::Not {
            for &n in &sizes {
                all.add(FAMILY, format!("not of {n}"), Check::Exact, |draft| {
                    let x = draft.wholes("x", DType::Bool, [n], [0, 1])?;
                    Ok(vec![draft.graph.unary(function, x)?])
                })?;
            }
            continue;
        }
        let check = if function.is_exact() { Check::Exact } else { Check::measured() };
        for dtype in FLOATS {
            // How narrow elements are read and written does not depend on the function.
            let few = matches!(function, Unary::Neg | Unary::Exp | Unary::Gelu | Unary::Floor);
            if dtype != DType::F32 && !few && !all.is_full() {
                continue;
            }
            for &n in &sizes {
                all.add(FAMILY, format!("{dtype} {} of {n}", function.name()), check, |draft| {
                    let x = draft.reals("x", dtype, [n], range(function))?;
                    Ok(vec![draft.graph.unary(function, x)?])
                })?;
            }
        }
        if function.takes_integers() {
            for dtype in [DType::I32, DType::U32] {
                all.add(FAMILY, format!("{dtype} {}", function.name()), Check::Exact, |draft| {
                    let low = if dtype == DType::I32 { -100 } else { 0 };
                    let x = draft.wholes("x", dtype, [37], [low, 100])?;
                    Ok(vec![draft.graph.unary(function, x)?])
                })?;
            }
        }
    }
    // Special places: zeros, halves, and where a careless formula overflows.
    let places = vec![0.0f32, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1.0, -1.0, 60.0, -60.0, 1000.0, -1000.0, 1e-30];
    let functions = [
        Unary::Sign,
        Unary::Round,
        Unary::Relu,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Silu,
        Unary::Softplus,
        Unary::Gelu,
        Unary::GeluTanh,
        Unary::Erf,
    ];
    for function in functions {
        let check = if function.is_exact() { Check::Exact } else { Check::measured() };
        all.add(FAMILY, format!("{} at special places", function.name()), check, |draft| {
            let x = draft.given("x", Tensor::new([places.len()], places.clone())?)?;
            Ok(vec![draft.graph.unary(function, x)?])
        })?;
    }
    Ok(())
}

fn functions_of_two(all: &mut Cases) -> Result<()> {
    let shapes = all.choose::<[&[usize]; 2]>(
        &[
            [&[37], &[37]],
            [&[3, 5], &[5]],
            [&[3, 1], &[1, 7]],
            [&[], &[4]],
            [&[2, 1, 3, 1], &[4, 1, 5]],
            [&[0, 3], &[1]],
        ],
        &[[&[257, 65], &[257, 65]], [&[129, 1], &[257]]],
    );
    for function in Binary::ALL {
        for (i, &[a_shape, b_shape]) in shapes.iter().enumerate() {
            // Also the other way round.
            let (a_shape, b_shape) = if i % 2 == 0 { (a_shape, b_shape) } else { (b_shape, a_shape) };
            // How operands broadcast does not depend on the function.
            if i >= 2 && !all.is_full() && !matches!(function, Binary::Sub | Binary::Less | Binary::Xor) {
                continue;
            }
            for dtype in DType::ALL {
                let equality = matches!(function, Binary::Equal | Binary::NotEqual);
                if !equality && function.is_logical() != (dtype == DType::Bool) {
                    continue;
                }
                let rounds = !function.is_exact() && dtype.is_float();
                let check = if rounds { Check::measured() } else { Check::Exact };
                let name = format!("{dtype} {} of {a_shape:?} and {b_shape:?}", function.name());
                all.add(FAMILY, name, check, |draft| {
                    let (a, b) = if dtype.is_float() && !function.is_comparison() {
                        // Real numbers; for a power, of positive ones.
                        let low = if function == Binary::Pow { 0.1 } else { -4.0 };
                        let a = draft.reals("a", dtype, a_shape, [low, 4.0])?;
                        let divisor = if function == Binary::Div { [0.5, 4.0] } else { [-4.0, 4.0] };
                        (a, draft.reals("b", dtype, b_shape, divisor)?)
                    } else {
                        // Few different ones, so that some are equal, and some 0.
                        let low = if dtype == DType::U32 { 0 } else { -3 };
                        (draft.wholes("a", dtype, a_shape, [low, 4])?, draft.wholes("b", dtype, b_shape, [low, 4])?)
                    };
                    Ok(vec![draft.graph.binary(function, a, b)?])
                })?;
            }
        }
    }
    all.add(FAMILY, "whole powers of negative numbers", Check::measured(), |draft| {
        let a = draft.given("a", Tensor::new([8], vec![-2.0f32, -2.0, -3.0, -1.5, -0.5, -1.0, 0.0, -2.0])?)?;
        let b = draft.given("b", Tensor::new([8], vec![2.0f32, 3.0, 1.0, -1.0, -2.0, 5.0, 2.0, 0.0])?)?;
        Ok(vec![draft.graph.pow(a, b)?])
    })?;
    for exponent in [2.0, 3.0, 0.5, -1.0, 1.7] {
        all.add(FAMILY, format!("power {exponent}"), Check::measured(), |draft| {
            let low = if exponent == 2.0 || exponent == 3.0 { -3.0 } else { 0.1 };
            let x = draft.reals("x", DType::F32, [67], [low, 3.0])?;
            let exponent = draft.graph.scalar(exponent, x)?;
            Ok(vec![draft.graph.pow(x, exponent)?])
        })?;
    }
    for dtype in [DType::I32, DType::U32] {
        for function in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Max, Binary::Min] {
            all.add(FAMILY, format!("{dtype} {} at the ends of the range", function.name()), Check::Exact, |draft| {
                let tensor = |shape: [usize; 2]| {
                    if dtype == DType::I32 {
                        Tensor::new(shape, vec![i32::MIN, -1, 0, 1, i32::MAX])
                    } else {
                        Tensor::new(shape, vec![0, 1, 2, 1 << 31, u32::MAX])
                    }
                };
                let (a, b) = (draft.given("a", tensor([5, 1])?)?, draft.given("b", tensor([1, 5])?)?);
                Ok(vec![draft.graph.binary(function, a, b)?])
            })?;
        }
    }
    Ok(())
}

fn choices_and_casts(all: &mut Cases) -> Result<()> {
    for dtype in DType::ALL {
        all.add(FAMILY, format!("{dtype} where"), Check::Exact, |draft| {
            let condition = draft.wholes("condition", DType::Bool, [3, 1, 7], [0, 1])?;
            let a = draft.wholes("a", dtype, [5, 1], [0, 100])?;
            let b = draft.wholes("b", dtype, [3, 5, 7], [0, 100])?;
            Ok(vec![draft.graph.select(condition, a, b)?])
        })?;
        for to in DType::ALL {
            if to == dtype {
                continue;
            }
            all.add(FAMILY, format!("{dtype} to {to}"), Check::Exact, |draft| {
                let x = if dtype.is_float() {
                    draft.reals("x", dtype, [67], [-9.0, 9.0])?
                } else {
                    let low = if dtype == DType::I32 { -1000 } else { 0 };
                    draft.wholes("x", dtype, [67], [low, 1000])?
                };
                Ok(vec![draft.graph.cast(x, to)?])
            })?;
        }
    }
    all.add(FAMILY, "casts that saturate", Check::Exact, |draft| {
        let x = vec![3e9f32, -3e9, 5e9, -0.9, 0.9, 2147483520.0, -2147483648.0, 4294967040.0, 0.0, 1e30];
        let x = draft.given("x", Tensor::new([x.len()], x)?)?;
        Ok(vec![draft.graph.cast(x, DType::I32)?, draft.graph.cast(x, DType::U32)?, draft.graph.cast(x, DType::Bool)?])
    })?;
    all.add(FAMILY, "casts between integers keep the bits", Check::Exact, |draft| {
        let x = draft.given("x", Tensor::new([4], vec![-1i32, i32::MIN, i32::MAX, 0])?)?;
        let y = draft.given("y", Tensor::new([4], vec![u32::MAX, 1 << 31, 1, 0])?)?;
        Ok(vec![draft.graph.cast(x, DType::U32)?, draft.graph.cast(y, DType::I32)?])
    })?;
    // Ties go to even; what is over the largest number of the dtype is infinite.
    all.add(FAMILY, "casts that round", Check::Exact, |draft| {
        let x =
            vec![1.0f32 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, 2049.0, 2051.0, 65519.0, 65520.0, -70000.0, 257.0, 259.0];
        let x = draft.given("x", Tensor::new([x.len()], x)?)?;
        Ok(vec![draft.graph.cast(x, DType::F16)?, draft.graph.cast(x, DType::BF16)?])
    })
}

/// Which are dropped must be equal to the bit: with p = ½ and ¾ all results are.
fn dropouts(all: &mut Cases) -> Result<()> {
    let shapes = all.choose::<&[usize]>(&[&[259], &[5, 7], &[], &[0]], &[&[3, 5, 64], &[70_001]]);
    for dtype in FLOATS {
        for &shape in &shapes {
            let whole = shape.len() < 2;
            if dtype != DType::F32 && !whole && !all.is_full() {
                continue;
            }
            for (p, check) in [(0.5, Check::Exact), (0.1, Check::measured())] {
                let x = if p == 0.5 { [-50, 50] } else { [-9, 9] };
                all.add(FAMILY, format!("{dtype} dropout {p} of {shape:?}"), check, |draft| {
                    let x = draft.wholes("x", dtype, shape, x)?;
                    let seed = seed(draft, DType::U32)?;
                    Ok(vec![draft.graph.dropout(x, seed, p)?])
                })?;
            }
        }
    }
    // Both ends, and a probability that no threshold is near enough to.
    for p in [0.0, 1.0, 1.0 - 2f64.powi(-40), 2f64.powi(-33), 0.75] {
        all.add(FAMILY, format!("dropout {p}"), Check::Exact, |draft| {
            let x = draft.wholes("x", DType::F32, [67], [-9, 9])?;
            let seed = seed(draft, DType::I32)?;
            Ok(vec![draft.graph.dropout(x, seed, p)?])
        })?;
    }
    // The first words of the seed 0 as thresholds: what equals one is kept, and what is under it by one is not.
    for word in [0x6627_e8d5u32, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8] {
        for threshold in [u64::from(word), u64::from(word) + 1] {
            all.add(FAMILY, format!("dropout at the word {threshold:x}"), Check::measured(), |draft| {
                let x = draft.wholes("x", DType::F32, [4], [1, 9])?;
                let seed = draft.given("seed", Tensor::zeros(DType::U32, [4])?)?;
                Ok(vec![draft.graph.dropout(x, seed, threshold as f64 / 2f64.powi(32))?])
            })?;
        }
    }
    // Each word of the seed, and the stream, at its ends.
    for (n, words) in
        [[0; 4], [u32::MAX; 4], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]].into_iter().enumerate()
    {
        all.add(FAMILY, format!("dropout by seed {words:x?}"), Check::Exact, |draft| {
            let x = draft.wholes("x", DType::F32, [41], [1, 9])?;
            let seed = match n % 2 {
                0 => draft.given("seed", Tensor::new([4], words.to_vec())?)?,
                _ => draft.graph.constant(Tensor::new([4], words.to_vec())?)?,
            };
            let streams = [0, 1, u32::MAX].map(|stream| draft.graph.push(Op::Dropout { p: 0.5, stream }, &[x, seed]));
            streams.into_iter().map(|y| Ok(y?[0])).collect()
        })?;
    }
    all.add(FAMILY, "dropouts in a chain", Check::Measured { magnitude: 9.0 }, |draft| {
        let [x, y, z] = three(draft, DType::F32)?;
        let seed = seed(draft, DType::U32)?;
        let x = draft.graph.add(x, z)?;
        let x = draft.graph.gelu(x)?;
        let x = draft.graph.dropout(x, seed, 0.25)?;
        let x = draft.graph.mul(x, y)?;
        let x = draft.graph.dropout(x, seed, 0.5)?;
        Ok(vec![draft.graph.add(x, y)?])
    })?;
    all.add(FAMILY, "a dropout of turned elements by a seed among others", Check::Exact, |draft| {
        let x = draft.wholes("x", DType::F32, [9, 14], [1, 50])?;
        let turned = draft.graph.permute(x, &[1, 0])?;
        let seeds = draft.wholes("seeds", DType::I32, [4, 3], [-9, 9])?;
        let column = draft.graph.slice(seeds, 1, 2, 3)?;
        let column = draft.graph.reshape(column, [4])?;
        let row = draft.graph.permute(seeds, &[1, 0])?;
        let row = draft.graph.slice(row, 0, 1, 2)?;
        let row = draft.graph.reshape(row, [4])?;
        let y = draft.graph.dropout(turned, column, 0.5)?;
        let z = draft.graph.dropout(x, row, 0.5)?;
        Ok(vec![y, z])
    })?;
    all.add(FAMILY, "a dropout of what its seed computes", Check::Exact, |draft| {
        let seed = seed(draft, DType::U32)?;
        let small = draft.graph.scalar(1000.0, seed)?;
        let next = draft.graph.min(seed, small)?;
        let x = draft.graph.cast(next, DType::F32)?;
        let y = draft.graph.dropout(x, next, 0.5)?;
        Ok(vec![draft.graph.add(x, y)?])
    })?;
    all.add(FAMILY, "dropouts of a shape that is stretched", Check::Exact, |draft| {
        let x = draft.wholes("x", DType::F32, [5, 1], [1, 9])?;
        let y = draft.wholes("y", DType::F32, [5, 33], [1, 9])?;
        let seed = seed(draft, DType::U32)?;
        let x = draft.graph.dropout(x, seed, 0.5)?;
        Ok(vec![draft.graph.mul(x, y)?])
    })
}

fn seed(draft: &mut Draft, dtype: DType) -> Result<ValueId> {
    let words = [(); 4].map(|()| draft.random.bits() as u32);
    let signed = words.map(|word| word as i32);
    let seed = if dtype == DType::I32 { Tensor::new([4], signed.to_vec()) } else { Tensor::new([4], words.to_vec()) };
    draft.given("seed", seed?)
}

/// What lowering puts into one kernel.
fn chains(all: &mut Cases) -> Result<()> {
    let check = Check::Measured { magnitude: 1.0 };
    for dtype in FLOATS {
        all.add(FAMILY, format!("{dtype} gated unit, silu(x·w)·y + z"), check, |draft| {
            let [x, y, z] = three(draft, dtype)?;
            let w = draft.weight("w", dtype, [33])?;
            let x = draft.graph.mul(x, w)?;
            let x = draft.graph.silu(x)?;
            let x = draft.graph.mul(x, y)?;
            Ok(vec![draft.graph.add(x, z)?])
        })?;
    }
    // Large enough for several blocks an invocation on a software adapter, the last workgroup in part.
    for dtype in [DType::F32, DType::F16] {
        all.add(FAMILY, format!("{dtype} a bias and a residual, large"), Check::Exact, |draft| {
            let x = draft.wholes("x", dtype, [263, 260], [-50, 50])?;
            let bias = draft.wholes("bias", dtype, [260], [-50, 50])?;
            let residual = draft.wholes("residual", dtype, [263, 260], [-50, 50])?;
            let x = draft.graph.add(x, bias)?;
            Ok(vec![draft.graph.add(x, residual)?])
        })?;
    }
    all.add(FAMILY, "a value used twice, and kept", check, |draft| {
        let [x, y, _] = three(draft, DType::F32)?;
        let sum = draft.graph.add(x, y)?;
        let square = draft.graph.mul(sum, sum)?;
        Ok(vec![draft.graph.tanh(square)?, sum])
    })?;
    all.add(FAMILY, "comparisons, logic and a choice", Check::Exact, |draft| {
        let [x, y, z] = three(draft, DType::F32)?;
        let less = draft.graph.binary(Binary::Less, x, y)?;
        let positive = draft.graph.scalar(0.0, z)?;
        let positive = draft.graph.binary(Binary::GreaterEqual, z, positive)?;
        let both = draft.graph.binary(Binary::And, less, positive)?;
        let chosen = draft.graph.select(both, x, z)?;
        Ok(vec![chosen, both])
    })?;
    all.add(FAMILY, "more operands than a shader can bind", check, |draft| {
        let mut sum = draft.reals("x", DType::F32, [7, 11], [-1.0, 1.0])?;
        for i in 0..12 {
            let next = draft.reals(&format!("x{i}"), DType::F32, [7, 11], [-1.0, 1.0])?;
            sum = if i % 2 == 0 { draft.graph.mul(sum, next)? } else { draft.graph.add(sum, next)? };
        }
        Ok(vec![sum])
    })?;
    all.add(FAMILY, "turned and sliced operands", Check::Exact, |draft| {
        let x = draft.reals("x", DType::F32, [9, 14], [-1.0, 1.0])?;
        let turned = draft.graph.permute(x, &[1, 0])?;
        let y = draft.reals("y", DType::F32, [20, 9], [-1.0, 1.0])?;
        let y = draft.graph.slice(y, 0, 3, 17)?;
        Ok(vec![draft.graph.max(turned, y)?])
    })
}

fn three(draft: &mut Draft, dtype: DType) -> Result<[ValueId; 3]> {
    Ok([
        draft.reals("x", dtype, [5, 33], [-2.0, 2.0])?,
        draft.reals("y", dtype, [5, 33], [-2.0, 2.0])?,
        draft.reals("z", dtype, [33], [-2.0, 2.0])?,
    ])
}
