//! What is asked for: a chain of functions, the operands that it reads.

use crate::{
    DType, Error, Layout, Result, Shape,
    graph::{Binary, SEED_WORDS, Unary},
    kernel::{Operands, Profile, access::bits::Word, blocks, variant::Needs},
};

/// A chain of functions of single elements, computed in one pass: what would be a kernel a function stays in registers.
///
/// ```text
/// out[i] = body(x0[i], x1[i], …)         i over `shape`, operands read through their layouts
/// ```
///
/// Inputs are the operands in order; the one output is dense, of `shape` and `dtype`. A seed, which an [`Instr::Dropout`] reads, is an
/// operand too, of four words that are the same for all elements.
///
/// Types are the graph's: the operands of a [`Binary`] have one dtype, and so have both choices of a where. f16 and bf16
/// values are computed in f32, and rounded (to nearest, halves to even) where they are stored or where an
/// [`Instr::Cast`] says so; the unfused graph rounds after each function.
///
/// The bounds of the functions are those of [`unary_wgsl`](crate::kernel::unary_wgsl). add, sub and mul are rounded correctly, div
/// within 2.5 ulp, pow within (16 + 4·|b·log₂|a||) ulp; pow by a scalar 2, 3, ½, 0, 1 or −1 is as good as products, root
/// and quotient. Integers wrap around; i32::MIN / −1 is i32::MIN; an integer to a negative power is that power of ±1,
/// else 0.
#[derive(Clone, Debug, PartialEq)]
pub struct PointwiseProblem {
    /// The shape of the output.
    pub shape: Shape,
    /// The dtype of the output, which the last instruction has.
    pub dtype: DType,
    /// The inputs: what they are, and where they lie; each layout has the shape of the output (see
    /// [`Layout::broadcast`]), but that of a seed, which has `[4]` and is nothing else in the chain. At most [`PointwiseProblem::MAX_OPERANDS`].
    pub operands: Vec<(DType, Layout)>,
    /// What is computed, in order; the last instruction is the result.
    pub body: Vec<Instr>,
    /// The operand whose buffer the output takes over, if any.
    pub in_place: Option<usize>,
}

/// One function in a [`PointwiseProblem`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Instr {
    /// A function of one value.
    Unary(Unary, Arg),
    /// A function of two values of one dtype.
    Binary(Binary, Arg, Arg),
    /// `condition ? a : b`: a bool and two values of one dtype.
    Where(Arg, Arg, Arg),
    /// Conversion: float to integer truncates and saturates, between the integer types the bits stay, anything but 0 is
    /// true.
    Cast(DType, Arg),
    /// [`Op::Dropout`](crate::graph::Op::Dropout) of a float, with a seed: an operand, or one number for all its words. An element's place
    /// is its place in the output.
    Dropout(Dropping, Arg, Arg),
}

/// What is dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropping {
    /// How often, from 0 to 1. It is a parameter, as is the stream: another compiles nothing.
    pub p: f64,
    /// The stream of random words.
    pub stream: u32,
}

/// What an [`Instr`] works on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// The element of the operand of this number.
    Operand(usize),
    /// The result of the instruction of this number, an earlier one.
    Instr(usize),
    /// A number of this dtype, which f64 holds exactly (true is 1). It is a parameter: another number compiles nothing.
    Scalar(DType, f64),
}

impl PointwiseProblem {
    /// The most operands a chain can have: a portable device binds eight storage buffers, and one is the output.
    pub const MAX_OPERANDS: usize = 7;

    /// A chain whose output has memory of its own.
    pub fn new(shape: impl Into<Shape>, dtype: DType, operands: Vec<(DType, Layout)>, body: Vec<Instr>) -> Self {
        PointwiseProblem { shape: shape.into(), dtype, operands, body, in_place: None }
    }

    /// The buffer that an operand is read from: its own, or the output's.
    pub(super) fn buffer(&self, operand: usize) -> String {
        if self.in_place == Some(operand) { "out".into() } else { format!("x{operand}") }
    }

    pub(super) fn check(&self) -> Result<usize> {
        let elements = self.shape.checked_elements("pointwise")?;
        if self.operands.len() > Self::MAX_OPERANDS {
            return Err(Error::Limit {
                what: "pointwise: operands".into(),
                value: self.operands.len() as u64,
                limit: Self::MAX_OPERANDS as u64,
                hint: "split the chain".into(),
            });
        }
        for (n, (dtype, layout)) in self.operands.iter().enumerate() {
            if self.is_seed(n) {
                let fits = matches!(dtype, DType::I32 | DType::U32) && layout.shape == Shape::from([SEED_WORDS]);
                if !fits || self.body.iter().any(|instr| instr.computes_with(n)) {
                    let message = format!(
                        "`x{n}`, a seed, is {dtype} {}, expected i32 or u32 [4], read as nothing else",
                        layout.shape
                    );
                    return Err(Error::op("pointwise", message));
                }
            } else if layout.shape != self.shape {
                return Err(Error::shape(
                    "pointwise",
                    &format!("x{n}"),
                    &layout.shape,
                    format_args!("{}, the output's (see Layout::broadcast)", self.shape),
                ));
            }
        }
        match self.in_place {
            Some(input) if !self.fits_in_place(input) => Err(Error::op(
                "pointwise",
                format!("the output can't take over the buffer of `x{input}`: it needs a dense operand of its size"),
            )),
            _ => Ok(elements),
        }
    }

    /// Whether an operand is a seed.
    pub(super) fn is_seed(&self, operand: usize) -> bool {
        self.body.iter().any(|instr| instr.seed() == Some(Arg::Operand(operand)))
    }

    pub(super) fn needs(&self) -> Result<Needs, String> {
        self.check().map(|_| blocks::needs(self.operands.len() + 1)).map_err(|fault| fault.to_string())
    }

    /// 64 bits on software adapters, for large outputs and where there is little to compute, but something: beside long
    /// formulas, or where an element goes straight from load to store, Mesa 22.3 takes longer for these than for two of 32.
    pub(super) fn word(&self, elements: usize, profile: &Profile) -> Word {
        let is_brief = self.body.iter().all(|instr| match instr {
            Instr::Unary(function, _) => matches!(function, Unary::Neg | Unary::Abs | Unary::Relu | Unary::Not),
            Instr::Binary(function, ..) => *function != Binary::Pow,
            Instr::Where(..) | Instr::Cast(..) => true,
            Instr::Dropout(..) => false,
        });
        let computes = self.body.iter().any(|instr| matches!(instr, Instr::Binary(..)));
        match profile.shader_int64 && blocks::is_long(elements, profile) && is_brief && computes {
            true => Word::Bits64,
            false => Word::Bits32,
        }
    }

    /// Whether each element of the operand lies where the element of the output does.
    pub(super) fn fits_in_place(&self, input: usize) -> bool {
        // The blocks of an output would overwrite what others read of a seed.
        let read_elsewhere = self.is_seed(input);
        self.operands.get(input).is_some_and(|(dtype, layout)| {
            !read_elsewhere
                && layout.is_contiguous()
                && layout.shape == self.shape
                && dtype.bytes() == self.dtype.bytes()
        })
    }
}

impl Instr {
    /// The function's name in graphs and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Instr::Unary(function, _) => function.name(),
            Instr::Binary(function, ..) => function.name(),
            Instr::Where(..) => "where",
            Instr::Cast(..) => "cast",
            Instr::Dropout(..) => "dropout",
        }
    }

    /// Operations for an element, roughly.
    pub(super) fn cost(&self) -> u64 {
        match self {
            Instr::Unary(..) | Instr::Binary(..) | Instr::Where(..) | Instr::Cast(..) => 1,
            // For each of four elements a quarter of ten rounds of some thirty.
            Instr::Dropout(..) => 75,
        }
    }

    /// The seed that it draws from.
    pub(crate) fn seed(&self) -> Option<Arg> {
        match *self {
            Instr::Unary(..) | Instr::Binary(..) | Instr::Where(..) | Instr::Cast(..) => None,
            Instr::Dropout(_, _, seed) => Some(seed),
        }
    }

    /// Whether it reads the elements of an operand, not its words as a seed.
    fn computes_with(&self, operand: usize) -> bool {
        let is = |arg: Arg| arg == Arg::Operand(operand);
        match *self {
            Instr::Unary(_, x) | Instr::Cast(_, x) | Instr::Dropout(_, x, _) => is(x),
            Instr::Binary(_, a, b) => is(a) || is(b),
            Instr::Where(condition, a, b) => is(condition) || is(a) || is(b),
        }
    }
}

impl PointwiseProblem {
    /// Of a chain, whose operands are stretched to the shape of its result.
    pub(crate) fn of(body: &[Instr], operands: &mut Operands) -> Result<Self> {
        let (shape, dtype) = (operands.out_shape().clone(), operands.out_dtype(0));
        let mut inputs = Vec::with_capacity(operands.count());
        for i in 0..operands.count() {
            let (layout, is_seed) =
                (operands.layout(i), body.iter().any(|instr| instr.seed() == Some(Arg::Operand(i))));
            inputs.push((operands.dtype(i), if is_seed { layout } else { layout.broadcast(&shape) }));
        }
        Ok(PointwiseProblem::new(shape, dtype, inputs, body.to_vec()))
    }
}

impl Instr {
    /// The same function of other arguments.
    pub(crate) fn over(self, mut arg: impl FnMut(Arg) -> Arg) -> Self {
        match self {
            Instr::Unary(function, x) => Instr::Unary(function, arg(x)),
            Instr::Binary(function, a, b) => Instr::Binary(function, arg(a), arg(b)),
            Instr::Where(condition, a, b) => Instr::Where(arg(condition), arg(a), arg(b)),
            Instr::Cast(dtype, x) => Instr::Cast(dtype, arg(x)),
            Instr::Dropout(dropping, x, seed) => Instr::Dropout(dropping, arg(x), arg(seed)),
        }
    }
}
