//! A chain of instructions as WGSL text.

use std::{collections::BTreeSet, fmt::Write as _};

use super::problem::{Arg, Dropping, Instr};
use crate::{
    DType, Error, Result,
    graph::{Binary, Unary},
    kernel::{
        Module,
        access::{narrow, strided::Words},
        activation::unary_wgsl,
    },
};

/// A value in the shader: the name of a variable or an expression that needs no parentheses.
#[derive(Clone)]
struct Term {
    text: String,
    dtype: DType,
    /// The value, where the host knows it.
    scalar: Option<f64>,
}

/// The functions that compute one element: `fn value(r0: u32, …) -> u32`, from bits to bits, and those it calls.
pub(super) fn value_functions(operands: &[DType], body: &[Instr], dtype: DType, words: &mut Words) -> Result<String> {
    let mut chain = Chain { operands, terms: Vec::with_capacity(body.len()), functions: BTreeSet::new(), words };
    let mut text = String::new();
    for (n, &instr) in body.iter().enumerate() {
        let (value, result) = chain.instr(n, instr, n + 1 == body.len())?;
        let _ = write!(text, "let v{n} = {value}; ");
        chain.terms.push(Term { text: format!("v{n}"), dtype: result, scalar: None });
    }
    let Some(last) = chain.terms.last() else {
        return Err(Error::op("pointwise", "the chain has no instruction; a copy is a problem of its own"));
    };
    if last.dtype != dtype {
        return Err(Error::op(
            "pointwise",
            format!("the last instruction gives {}, the output is {dtype}; a cast is an instruction", last.dtype),
        ));
    }
    let bits = match dtype {
        DType::F16 | DType::BF16 => narrow::bits(dtype, &last.text),
        DType::Bool => format!("u32({})", last.text),
        DType::F32 | DType::I32 | DType::U32 => format!("bitcast<u32>({})", last.text),
    };
    let drawing = body.iter().enumerate().filter(|(_, instr)| instr.seed().is_some());
    let drawn: Vec<String> = drawing.map(|(n, _)| format!("{}: u32", word_name(n))).collect();
    let parameters: Vec<String> = (0..operands.len()).map(|n| format!("r{n}: u32")).chain(drawn.clone()).collect();
    let mut all = format!("fn value({}) -> u32 {{ {text}return {bits}; }}", parameters.join(", "));
    for function in chain.functions {
        all = all + "\n" + &unary_wgsl(function, &function_name(function));
    }
    if !drawn.is_empty() {
        let philox = Module::all().iter().find(|module| module.path == "shared::philox");
        let functions = philox.map(Module::functions).unwrap_or_default();
        all = functions.into_iter().fold(all, |all, (_, definition)| all + "\n" + &definition);
    }
    Ok(all)
}

/// What the instructions that draw take, by name: the random words of the four elements of block `i`, whose operand n is `rN`.
pub(super) fn draws(body: &[Instr], words: &mut Words) -> Vec<(String, String)> {
    let drawing = body.iter().enumerate().filter_map(|(n, &instr)| match instr {
        Instr::Unary(..) | Instr::Binary(..) | Instr::Where(..) | Instr::Cast(..) => None,
        Instr::Dropout(dropping, _, seed) => Some((n, dropping.stream, seed)),
    });
    let draw = |(n, stream, seed): (usize, u32, Arg)| {
        let seed = match seed {
            Arg::Operand(operand) => format!("r{operand}"),
            Arg::Scalar(dtype, number) => format!("vec4<u32>({})", words.add(scalar_bits(dtype, number))),
            // `value_functions` has refused it.
            Arg::Instr(other) => format!("v{other}"),
        };
        let stream = words.add(stream);
        (word_name(n), format!("philox(vec4<u32>(i, {stream}, {seed}.zw), {seed}.xy)"))
    };
    drawing.map(draw).collect()
}

/// The random word of the instruction of this number.
fn word_name(instr: usize) -> String {
    format!("w{instr}")
}

/// A number as an operand's word has it; of a narrow float as f32.
fn scalar_bits(dtype: DType, number: f64) -> u32 {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => (number as f32).to_bits(),
        DType::I32 => number as i32 as u32,
        DType::U32 => number as u32,
        DType::Bool => u32::from(number != 0.0),
    }
}

fn function_name(function: Unary) -> String {
    format!("{}_f32", function.name())
}

struct Chain<'a> {
    operands: &'a [DType],
    terms: Vec<Term>,
    functions: BTreeSet<Unary>,
    words: &'a mut Words,
}

impl Chain<'_> {
    /// The value of an instruction and its dtype.
    fn instr(&mut self, n: usize, instr: Instr, is_last: bool) -> Result<(String, DType)> {
        match instr {
            Instr::Unary(function, x) => {
                let x = self.term(n, x)?;
                Ok((self.unary(function, &x)?, x.dtype))
            }
            Instr::Binary(function, a, b) => {
                let (a, b) = (self.term(n, a)?, self.term(n, b)?);
                same_dtype(function.name(), &a, &b)?;
                let dtype = if function.is_comparison() { DType::Bool } else { a.dtype };
                Ok((binary(function, &a, &b)?, dtype))
            }
            Instr::Where(condition, a, b) => {
                let (condition, a, b) = (self.term(n, condition)?, self.term(n, a)?, self.term(n, b)?);
                if condition.dtype != DType::Bool {
                    return Err(Error::dtype("where", "condition", condition.dtype, "bool"));
                }
                same_dtype("where", &a, &b)?;
                Ok((format!("select({}, {}, {})", b.text, a.text, condition.text), a.dtype))
            }
            Instr::Cast(dtype, x) => {
                let x = self.term(n, x)?;
                Ok((cast(&x, dtype, is_last), dtype))
            }
            Instr::Dropout(dropping, x, seed) => {
                let x = self.term(n, x)?;
                if !x.dtype.is_float() {
                    return Err(Error::dtype("dropout", "x", x.dtype, "f32, f16 or bf16"));
                }
                if let Arg::Instr(computed) = seed {
                    let message = format!("instruction {n} has instruction {computed} for a seed, expected an operand");
                    return Err(Error::op("pointwise", message));
                }
                let seed = self.term(n, seed)?.dtype;
                if !matches!(seed, DType::I32 | DType::U32) {
                    return Err(Error::dtype("dropout", "seed", seed, "i32 or u32"));
                }
                Ok((self.dropped(n, dropping, &x)?, x.dtype))
            }
        }
    }

    fn term(&mut self, n: usize, value: Arg) -> Result<Term> {
        match value {
            Arg::Operand(i) => {
                let Some(&dtype) = self.operands.get(i) else {
                    let given = self.operands.len();
                    return Err(Error::op(
                        "pointwise",
                        format!("instruction {n} reads operand {i}, there are {given}"),
                    ));
                };
                let text = match dtype {
                    DType::F32 => format!("bitcast<f32>(r{i})"),
                    DType::F16 | DType::BF16 => narrow::low(dtype, &format!("r{i}")),
                    DType::I32 => format!("bitcast<i32>(r{i})"),
                    DType::U32 => format!("r{i}"),
                    DType::Bool => format!("(r{i} != 0u)"),
                };
                Ok(Term { text, dtype, scalar: None })
            }
            Arg::Instr(i) => self.terms.get(i).cloned().ok_or_else(|| {
                Error::op("pointwise", format!("instruction {n} reads instruction {i}, which is not before it"))
            }),
            Arg::Scalar(dtype, value) => {
                let word = self.words.add(scalar_bits(dtype, value));
                let text = match dtype {
                    DType::F32 | DType::F16 | DType::BF16 => format!("bitcast<f32>({word})"),
                    DType::I32 => format!("bitcast<i32>({word})"),
                    DType::U32 => word,
                    DType::Bool => format!("({word} != 0u)"),
                };
                Ok(Term { text, dtype, scalar: Some(value) })
            }
        }
    }

    /// x, if its word is not under the threshold of p.
    fn dropped(&mut self, n: usize, Dropping { p, .. }: Dropping, x: &Term) -> Result<String> {
        if !(0.0..=1.0).contains(&p) {
            return Err(Error::op("dropout", format!("p is {p}, expected a probability from 0 to 1")));
        }
        // Where no word is above it, the highest one is kept, times 0.
        let (threshold, factor) = match u32::try_from((p * 2f64.powi(32)).round() as u64) {
            Ok(threshold) => (threshold, 1.0 / (1.0 - p)),
            Err(_) => (u32::MAX, 0.0),
        };
        let (threshold, factor) = (self.words.add(threshold), self.words.add(scalar_bits(DType::F32, factor)));
        Ok(format!("dropped({}, {}, {threshold}, bitcast<f32>({factor}))", x.text, word_name(n)))
    }

    fn unary(&mut self, function: Unary, x: &Term) -> Result<String> {
        let text = &x.text;
        if x.dtype.is_float() && function != Unary::Not {
            self.functions.insert(function);
            return Ok(format!("{}({text})", function_name(function)));
        }
        Ok(match (function, x.dtype) {
            (Unary::Not, DType::Bool) => format!("!{text}"),
            (Unary::Neg, DType::I32) => format!("0 - {text}"),
            (Unary::Neg, DType::U32) => format!("0u - {text}"),
            (Unary::Abs, DType::I32) => format!("abs({text})"),
            (Unary::Sign, DType::I32) => format!("clamp({text}, -1, 1)"),
            (Unary::Sign, DType::U32) => format!("min({text}, 1u)"),
            (Unary::Relu, DType::I32) => format!("max({text}, 0)"),
            (Unary::Abs | Unary::Relu, DType::U32) => text.clone(),
            (_, dtype) => {
                let expected = if function == Unary::Not {
                    "bool"
                } else if function.takes_integers() {
                    "a number"
                } else {
                    "f32, f16 or bf16"
                };
                return Err(Error::dtype(function.name(), "x", dtype, expected));
            }
        })
    }
}

fn same_dtype(op: &str, a: &Term, b: &Term) -> Result<()> {
    if a.dtype == b.dtype {
        Ok(())
    } else {
        Err(Error::op(op, format!("`a` is {} and `b` is {}, expected one dtype", a.dtype, b.dtype)))
    }
}

fn binary(function: Binary, a: &Term, b: &Term) -> Result<String> {
    let dtype = a.dtype;
    let of_any = matches!(function, Binary::Equal | Binary::NotEqual);
    let fits = of_any || function.is_logical() == (dtype == DType::Bool);
    if !fits {
        let expected = if function.is_logical() { "bool" } else { "a number" };
        return Err(Error::dtype(function.name(), "a", dtype, expected));
    }
    let kind = match dtype {
        DType::I32 => "i32",
        DType::U32 => "u32",
        DType::F32 | DType::F16 | DType::BF16 | DType::Bool => "f32",
    };
    let (x, y) = (&a.text, &b.text);
    Ok(match function {
        Binary::Add => format!("{x} + {y}"),
        Binary::Sub => format!("{x} - {y}"),
        Binary::Mul => format!("{x} * {y}"),
        Binary::Div if dtype.is_float() => format!("{x} / {y}"),
        Binary::Div => format!("divide_{kind}({x}, {y})"),
        Binary::Max if dtype.is_float() => format!("max_f32({x}, {y})"),
        Binary::Min if dtype.is_float() => format!("min_f32({x}, {y})"),
        Binary::Max => format!("max({x}, {y})"),
        Binary::Min => format!("min({x}, {y})"),
        Binary::Pow => match b.scalar.filter(|_| dtype.is_float()).and_then(|power| known_power(x, power)) {
            Some(value) => value,
            None => format!("power_{kind}({x}, {y})"),
        },
        Binary::Equal => format!("{x} == {y}"),
        // For `!=` a NaN is equal to all in SPIR-V of naga.
        Binary::NotEqual if dtype.is_float() => format!("!({x} == {y})"),
        Binary::NotEqual | Binary::Xor => format!("{x} != {y}"),
        Binary::Less => format!("{x} < {y}"),
        Binary::LessEqual => format!("{x} <= {y}"),
        Binary::Greater => format!("{x} > {y}"),
        Binary::GreaterEqual => format!("{x} >= {y}"),
        Binary::And => format!("{x} && {y}"),
        Binary::Or => format!("{x} || {y}"),
    })
}

/// x to a power that has a short formula.
fn known_power(x: &str, power: f64) -> Option<String> {
    match power {
        0.0 => Some("1.0".into()),
        1.0 => Some(x.into()),
        2.0 => Some(format!("{x} * {x}")),
        3.0 => Some(format!("{x} * {x} * {x}")),
        0.5 => Some(format!("sqrt({x})")),
        -1.0 => Some(format!("1.0 / {x}")),
        _ => None,
    }
}

/// `x` as `dtype`. What is stored next is rounded there.
fn cast(x: &Term, dtype: DType, is_stored: bool) -> String {
    let text = &x.text;
    let number = match (x.dtype, dtype) {
        (from, DType::F32 | DType::F16 | DType::BF16) if from.is_float() => text.clone(),
        (DType::I32, DType::BF16) => format!("f32(odd_i32({text}))"),
        (DType::U32, DType::BF16) => format!("f32(odd_u32({text}))"),
        (_, DType::F32 | DType::F16 | DType::BF16) => format!("f32({text})"),
        (DType::I32, DType::I32) | (DType::U32, DType::U32) | (DType::Bool, DType::Bool) => text.clone(),
        (DType::U32, DType::I32) => format!("bitcast<i32>({text})"),
        (DType::I32, DType::U32) => format!("bitcast<u32>({text})"),
        (DType::Bool, DType::I32) => format!("i32({text})"),
        (DType::Bool, DType::U32) => format!("u32({text})"),
        (_, DType::I32) => format!("to_i32({text})"),
        (_, DType::U32) => format!("to_u32({text})"),
        (DType::I32, DType::Bool) => format!("{text} != 0"),
        (DType::U32, DType::Bool) => format!("{text} != 0u"),
        (_, DType::Bool) => format!("to_bool({text})"),
    };
    if dtype.is_narrow() && dtype != x.dtype && !is_stored {
        return narrow::low(dtype, &narrow::bits(dtype, &number));
    }
    number
}
