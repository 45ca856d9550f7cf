//! Graph → graph rules: what does nothing goes, what is written out is recognised, what is narrow is converted.

use tilewise::{
    DType, Graph, Result, Tensor, ValueId,
    graph::{Attention, AttentionOperand, Binary, Op, Reduce, Unary},
    lower::Program,
};

use super::{applied, families, input, program};

const SIMPLIFY: &str = "simplify";

/// `build` on an input `x` [2, 3] amounts to nothing: the output is a copy of the input.
#[track_caller]
fn vanishes(reason: &str, build: impl FnOnce(&mut Graph, ValueId) -> Result<ValueId>) {
    let program = program(|g| {
        let x = input(g, "x", &[2, 3])?;
        build(g, x)
    });
    assert_eq!(families(&program), ["copy"], "{program}");
    assert!(program.notes.iter().any(|note| note.rule == SIMPLIFY && note.reason.contains(reason)), "{program}");
}

#[test]
fn what_does_nothing_goes() {
    let push = |g: &mut Graph, op: Op, x: ValueId| Ok(g.push(op, &[x])?[0]);
    vanishes("cast of `x`: it has that dtype already", |g, x| push(g, Op::Cast { dtype: DType::F32 }, x));
    vanishes("reshape of `x`: it has that shape already", |g, x| g.reshape(x, [2, 3]));
    vanishes("broadcast of `x`: it has that shape already", |g, x| g.broadcast(x, [2, 3]));
    vanishes("permute of `x`: the axes stay where they are", |g, x| g.permute(x, &[0, 1]));
    vanishes("slice of `x`: it takes every element", |g, x| g.slice(x, 0, 0, 2));
    vanishes("pad of `x`: the frame is empty", |g, x| g.pad(x, &[(0, 0), (0, 0)], 1.0));
    vanishes("concat of `x`: there is nothing to join it with", |g, x| g.concat(&[x], 0));
    vanishes("sum of `x`: no axis is reduced", |g, x| {
        push(g, Op::Reduce { function: Reduce::Sum, axes: vec![], keep: false }, x)
    });
    vanishes("the second undoes the first", |g, x| {
        let y = g.neg(x)?;
        g.neg(y)
    });
    vanishes("the second undoes the first", |g, x| {
        let y = g.permute(x, &[1, 0])?;
        g.permute(y, &[1, 0])
    });
    vanishes("the last of two reshapes decides", |g, x| {
        let y = g.reshape(x, [6])?;
        let y = g.reshape(y, [3, 2])?;
        g.reshape(y, [2, 3])
    });
    for (function, operand) in [(Binary::Mul, 1.0), (Binary::Div, 1.0), (Binary::Sub, 0.0)] {
        vanishes(&format!("the other operand is {operand}"), |g, x| {
            let operand = g.scalar(operand, x)?;
            g.binary(function, x, operand)
        });
    }
}

#[test]
fn what_does_something_stays() {
    // A 1 of more axes stretches; a 0 that is added or divided by is another matter.
    let stretched = program(|g| {
        let x = input(g, "x", &[2, 3])?;
        let ones = g.constant(Tensor::new([2, 1, 1], vec![1.0f32; 2])?)?;
        g.mul(x, ones)
    });
    assert_eq!(families(&stretched), ["pointwise"], "{stretched}");
    let rounded = program(|g| {
        let x = input(g, "x", &[2, 3])?;
        let y = g.cast(x, DType::BF16)?;
        g.cast(y, DType::F32)
    });
    assert_eq!(families(&rounded), ["pointwise"], "rounding to bf16 and back is not nothing");
}

#[test]
fn casts_through_a_wider_dtype_are_one() {
    let there_and_back = program(|g| {
        let x = g.input("x", DType::F16, [4])?;
        let y = g.cast(x, DType::F32)?;
        g.cast(y, DType::F16)
    });
    assert_eq!(families(&there_and_back), ["copy"], "{there_and_back}");
    applied(&there_and_back, SIMPLIFY, "f32 holds every number of the narrow dtype");
}

#[test]
fn two_permutations_are_one() {
    let both = program(|g| {
        let (x, w) = (input(g, "x", &[2, 3, 4])?, input(g, "w", &[2, 5])?);
        let x = g.permute(x, &[1, 0, 2])?;
        let x = g.permute(x, &[0, 2, 1])?;
        g.matmul(x, w)
    });
    assert_eq!(families(&both), ["matmul"], "{both}");
    applied(&both, SIMPLIFY, "two permutations are one");
}

#[test]
fn dead_code_goes_but_inputs_stay() {
    let dead = program(|g| {
        let (x, unused) = (input(g, "x", &[2, 3])?, input(g, "unused", &[2, 3])?);
        let y = g.exp(unused)?;
        g.softmax(y, 0)?;
        g.relu(x)
    });
    assert_eq!(families(&dead), ["pointwise"], "{dead}");
    assert!(dead.named().contains_key("unused"));
}

const ACTIVATION: &str = "recognise activation";

fn with_product(build: impl FnOnce(&mut Graph, ValueId) -> Result<ValueId>) -> Program {
    program(|g| {
        let (x, w, b) = (input(g, "x", &[4, 8])?, input(g, "w", &[16, 8])?, input(g, "b", &[16])?);
        let y = g.linear(x, w, Some(b))?;
        build(g, y)
    })
}

#[test]
fn activations_that_are_written_out() {
    let silu = with_product(|g, x| {
        let gate = g.sigmoid(x)?;
        g.mul(gate, x)
    });
    assert_eq!(silu.steps[0].summary, "M=4 N=16 K=8 +bias +silu", "{silu}");
    applied(&silu, ACTIVATION, "it is silu of `%4`, written out");

    // x·½·(1 + erf(x/√2)), as exporters write it.
    let gelu = with_product(|g, x| {
        let (root, one, half) = (g.scalar(2f64.sqrt(), x)?, g.scalar(1.0, x)?, g.scalar(0.5, x)?);
        let t = g.div(x, root)?;
        let e = g.erf(t)?;
        let e = g.add(e, one)?;
        let y = g.mul(x, e)?;
        g.mul(y, half)
    });
    assert_eq!(gelu.steps[0].summary, "M=4 N=16 K=8 +bias +gelu", "{gelu}");

    // ½·x·(1 + tanh(√(2/π)·(x + 0.044715·x³)))
    let by_pow = with_product(|g, x| {
        let s = |g: &mut Graph, v: f64| g.scalar(v, x);
        let (three, cubic, root) = (s(g, 3.0)?, s(g, 0.044715)?, s(g, (2.0 / std::f64::consts::PI).sqrt())?);
        let (one, half) = (s(g, 1.0)?, s(g, 0.5)?);
        let cube = g.pow(x, three)?;
        let cube = g.mul(cube, cubic)?;
        let t = g.add(x, cube)?;
        let t = g.mul(t, root)?;
        let t = g.tanh(t)?;
        let gate = g.add(one, t)?;
        let x = g.mul(x, half)?;
        g.mul(x, gate)
    });
    assert_eq!(by_pow.steps[0].summary, "M=4 N=16 K=8 +bias +gelu_tanh", "{by_pow}");
    // √(2/π)·x·(1 + 0.044715·x·x), divided by two at the end.
    let by_products = with_product(|g, x| {
        let s = |g: &mut Graph, v: f64| g.scalar(v, x);
        let (cubic, root) = (s(g, 0.044715)?, s(g, (2.0 / std::f64::consts::PI).sqrt())?);
        let (one, two) = (s(g, 1.0)?, s(g, 2.0)?);
        let square = g.mul(x, cubic)?;
        let square = g.mul(square, x)?;
        let t = g.add(one, square)?;
        let u = g.mul(root, x)?;
        let t = g.mul(u, t)?;
        let t = g.tanh(t)?;
        let gate = g.add(t, one)?;
        let y = g.mul(x, gate)?;
        g.div(y, two)
    });
    assert_eq!(by_products.steps[0].summary, "M=4 N=16 K=8 +bias +gelu_tanh", "{by_products}");
}

#[test]
fn what_only_looks_like_an_activation_stays() {
    let other = with_product(|g, x| {
        let (root, one, half) = (g.scalar(1.5, x)?, g.scalar(1.0, x)?, g.scalar(0.5, x)?);
        let t = g.div(x, root)?;
        let e = g.erf(t)?;
        let e = g.add(e, one)?;
        let y = g.mul(x, e)?;
        g.mul(y, half)
    });
    assert!(other.notes.iter().all(|note| note.rule != ACTIVATION), "{other}");
    let gated = with_product(|g, x| {
        let z = input(g, "z", &[4, 16])?;
        let gate = g.sigmoid(z)?;
        g.mul(gate, x)
    });
    assert!(gated.notes.iter().all(|note| note.rule != ACTIVATION), "{gated}");
    let tanh = with_product(|g, x| {
        let one = g.scalar(1.0, x)?;
        let t = g.unary(Unary::Tanh, x)?;
        let t = g.add(t, one)?;
        g.mul(t, x)
    });
    assert!(tanh.notes.iter().all(|note| note.rule != ACTIVATION), "{tanh}");
}

const WIDEN: &str = "widen";

#[test]
fn narrow_operands_are_converted_once() {
    let narrow = program(|g| {
        let x = g.input("x", DType::F16, [4, 8])?;
        let (a, b) = (g.reduce(Reduce::Sum, x, &[0], false)?, g.reduce(Reduce::Max, x, &[0], false)?);
        g.add(a, b)
    });
    // x in f32 once; the results back to f16 and added in one kernel.
    assert_eq!(families(&narrow), ["pointwise", "reduce", "reduce", "pointwise"], "{narrow}");
    let reasons: Vec<&str> = narrow.notes.iter().filter(|n| n.rule == WIDEN).map(|n| n.reason.as_str()).collect();
    let of =
        |name: &str| format!("the kernels of {name} take f32: its f16 operands are converted, and its result back");
    assert_eq!(reasons, [of("sum"), of("max")]);
    assert_eq!(narrow.buffers[narrow.named()["y"].0].dtype, DType::F16);
}

/// The dtypes that the steps of a family read and write.
fn stored(program: &Program, family: &str) -> Vec<Vec<DType>> {
    let steps = program.steps.iter().filter(|step| step.family == family);
    steps.map(|step| step.inputs.iter().chain(&step.outputs).map(|id| program.buffers[id.0].dtype).collect()).collect()
}

#[test]
fn norms_and_softmax_take_narrow_operands_as_they_are() {
    for dtype in [DType::F16, DType::BF16] {
        let narrow = program(|g| {
            let x = g.input("x", dtype, [4, 8])?;
            let w = g.parameter("w", dtype, [8])?;
            let y = g.layer_norm(x, Some(w), None, 1e-5)?;
            let y = g.rms_norm(y, None, 1e-5)?;
            let y = g.softmax(y, -1)?;
            g.log_softmax(y, -1)
        });
        assert_eq!(families(&narrow), ["norm", "norm", "softmax", "softmax"], "{narrow}");
        assert!(narrow.notes.iter().all(|note| note.rule != WIDEN), "{narrow}");
        assert_eq!(stored(&narrow, "norm"), [vec![dtype; 3], vec![dtype; 2]], "{narrow}");
        assert!(
            narrow.to_string().contains(&format!("layer rows=4 width=8 +weight x:{dtype} weight:{dtype} y:{dtype}"))
        );
    }
}

/// As models do that compute norms and softmax in f32 between operations in f16.
#[test]
fn norms_and_softmax_absorb_conversions() {
    let narrow = program(|g| {
        let (x, r) = (g.input("x", DType::F16, [4, 8])?, g.input("r", DType::BF16, [4, 8])?);
        let w = g.parameter("w", DType::F16, [8])?;
        let (x, r, w) = (g.cast(x, DType::F32)?, g.cast(r, DType::F32)?, g.cast(w, DType::F32)?);
        let sum = g.add(x, r)?;
        let y = g.rms_norm(sum, Some(w), 1e-5)?;
        let y = g.cast(y, DType::F16)?;
        let y = g.cast(y, DType::F32)?;
        let y = g.softmax(y, -1)?;
        g.cast(y, DType::BF16)
    });
    assert_eq!(families(&narrow), ["norm", "softmax"], "{narrow}");
    assert_eq!(stored(&narrow, "norm"), [[DType::F16, DType::BF16, DType::F16, DType::F16]], "{narrow}");
    assert_eq!(stored(&narrow, "softmax"), [[DType::F16, DType::BF16]], "{narrow}");
    let notes = |rule: &str, start: &str| {
        narrow.notes.iter().filter(|note| note.rule == rule && note.reason.starts_with(start)).count()
    };
    assert_eq!((notes("fuse into norm", "reads `"), notes("fuse into norm", "writes `")), (3, 1), "{narrow}");
    assert_eq!((notes("fuse into softmax", "reads `"), notes("fuse into softmax", "writes `")), (1, 1), "{narrow}");

    // A result that others want in f32 is not rounded.
    let both = program(|g| {
        let x = g.input("x", DType::F16, [4, 8])?;
        let x = g.cast(x, DType::F32)?;
        let y = g.softmax(x, -1)?;
        let rounded = g.cast(y, DType::F16)?;
        g.output("rounded", rounded)?;
        Ok(y)
    });
    assert_eq!(families(&both), ["softmax", "pointwise"], "{both}");
    assert_eq!(stored(&both, "softmax"), [[DType::F16, DType::F32]], "{both}");
}

/// A sum in f16 is added in the norm as one in f32 is, also where it is converted in between.
#[test]
fn a_narrow_sum_is_added_in_the_norm() {
    let added = |keep: bool, converted: bool| {
        program(|g| {
            let (x, r) = (g.input("x", DType::F16, [4, 8])?, g.input("r", DType::F16, [4, 8])?);
            let sum = g.add(x, r)?;
            let wide = if converted { g.cast(sum, DType::F32)? } else { sum };
            if keep {
                g.output("sum", if converted { wide } else { sum })?;
            }
            g.layer_norm(wide, None, None, 1e-5)
        })
    };
    const F16: DType = DType::F16;
    assert_eq!(stored(&added(false, false), "norm"), [[F16; 3]]);
    assert_eq!(stored(&added(true, false), "norm"), [[F16; 4]]);
    let converted = added(false, true);
    assert_eq!(families(&converted), ["norm"], "{converted}");
    assert_eq!(stored(&converted, "norm"), [[F16, F16, DType::F32]]);
    // The conversion is an output: it reads the sum, which the norm has to write then.
    let kept = added(true, true);
    assert_eq!(families(&kept), ["norm", "pointwise"], "{kept}");
    assert_eq!(stored(&kept, "norm"), [[F16, F16, DType::F32, F16]]);
}

/// Attention reads narrow operands where they are: one step instead of five, and half the bytes.
#[test]
fn attention_takes_narrow_operands_as_they_are() {
    let attention = |dtypes: [DType; 4]| {
        program(move |g| {
            let [q, k, v] = [0, 1, 2].map(|i| g.input(["q", "k", "v"][i], dtypes[i], [1, 2, 64, 16]));
            let bias = g.input("bias", dtypes[3], [64, 64])?;
            let [q, k, v] = [q?, k?, v?];
            let options = Attention { operands: vec![AttentionOperand::Bias], ..Attention::default() };
            Ok(g.push(Op::Attention(options), &[q, k, v, bias])?[0])
        })
    };
    let bytes = |program: &Program| program.steps[0].kernel.launches.iter().map(|launch| launch.bytes).sum::<u64>();
    let wide = attention([DType::F32; 4]);
    assert_eq!(bytes(&wide), 4 * (4 * 2 * 64 * 16 + 64 * 64));
    let mixtures = [
        ([DType::F16; 4], bytes(&wide) / 2),
        ([DType::BF16; 4], bytes(&wide) / 2),
        ([DType::F32, DType::F16, DType::BF16, DType::F32], bytes(&wide) - 2 * 2 * 2 * 64 * 16),
    ];
    for (dtypes, expected) in mixtures {
        let narrow = attention(dtypes);
        assert_eq!(families(&narrow), ["attention"], "{narrow}");
        assert!(narrow.notes.iter().all(|note| note.rule != WIDEN), "{narrow}");
        assert_eq!(bytes(&narrow), expected, "{narrow}");
        assert!(narrow.to_string().contains(&format!("k:{}", dtypes[1])), "{narrow}");
    }
}

#[test]
fn narrow_constants_are_converted_by_the_host() {
    let constant = program(|g| {
        let w: Vec<half::bf16> = (0..8).map(|i| half::bf16::from_f32(i as f32)).collect();
        let w = g.constant(Tensor::new([8], w)?)?;
        g.reduce(Reduce::Sum, w, &[0], false)
    });
    assert_eq!(families(&constant), ["reduce", "pointwise"], "{constant}");
    applied(&constant, SIMPLIFY, "a constant is converted once, exactly");
}

#[track_caller]
fn fused(program: &Program, reason: &str) {
    let found =
        program.notes.iter().any(|note| note.rule == "fuse into matmul" && note.applied && note.reason == reason);
    assert!(found, "{reason}\n{program}");
}

#[test]
fn a_matmul_reads_and_writes_narrow_dtypes_itself() {
    for dtype in [DType::F16, DType::BF16] {
        let linear = |weights: DType, activations: DType| {
            program(move |g| {
                let x = g.input("x", activations, [1, 256])?;
                let w = g.parameter("w", weights, [512, 256])?;
                let b = g.parameter("b", weights, [512])?;
                let (w, b) =
                    if weights == activations { (w, b) } else { (g.cast(w, activations)?, g.cast(b, activations)?) };
                let y = g.linear(x, w, Some(b))?;
                g.gelu(y)
            })
        };
        let (wide, narrow) = (linear(DType::F32, DType::F32), linear(dtype, dtype));
        assert_eq!(families(&narrow), ["matmul"], "{narrow}");
        assert_eq!(2 * narrow.steps[0].bytes(), wide.steps[0].bytes(), "{narrow}");
        // Narrow weights under f32 activations: the conversion that the graph asks for is done where they are read.
        let mixed = linear(dtype, DType::F32);
        assert_eq!(families(&mixed), ["matmul"], "{mixed}");
        fused(&mixed, &format!("reads `w` as {dtype} and widens it itself"));
        let weights = 512 * 256 + 512;
        assert_eq!(mixed.steps[0].bytes(), wide.steps[0].bytes() - 2 * weights, "{mixed}");
    }
}

#[test]
fn a_conversion_that_others_read_stays() {
    let both = program(|g| {
        let w = g.parameter("w", DType::F16, [8, 8])?;
        let x = g.input("x", DType::F32, [4, 8])?;
        let w = g.cast(w, DType::F32)?;
        let y = g.matmul(x, w)?;
        let sum = g.reduce(Reduce::Sum, w, &[0], false)?;
        g.add(y, sum)
    });
    assert_eq!(families(&both), ["pointwise", "reduce", "matmul"], "{both}");
    fused(&both, "reads `w` as f16 and widens it itself");
    let result = program(|g| {
        let (x, w) = (g.input("x", DType::F16, [4, 8])?, g.parameter("w", DType::F16, [8, 8])?);
        let y = g.matmul(x, w)?;
        let y = g.cast(y, DType::F32)?;
        let y = g.relu(y)?;
        g.cast(y, DType::BF16)
    });
    // f32 is what sums are in; what is rounded is written.
    assert_eq!(families(&result), ["matmul"], "{result}");
    fused(&result, "relu, conversion to bf16 on the product before it is written");
}
