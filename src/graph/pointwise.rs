//! Functions of elements: a table of those of one element, and one of those of two.

use serde::{Deserialize, Serialize};

use crate::{Error, Result, tensor::DType};

/// What the elements are that a [`Unary`] takes; its result is of their dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    Floats,
    /// Floats and integers.
    Numbers,
    Bools,
}

/// What a [`Binary`] computes of which elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Of numbers, a number of their dtype.
    Arithmetic,
    /// Of any elements, a bool.
    Equality,
    /// Of numbers, a bool.
    Order,
    /// Of bools, a bool.
    Logic,
}

/// What WGSL asks of devices, for floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accuracy {
    /// The result, or the number nearest to it.
    Exact,
    /// A number near it.
    Near,
}

/// An enum of functions from a table: a line has the name in graphs and messages, what it takes, and how exact it is.
macro_rules! functions {
    ($(#[$doc:meta])* $type:ident: $column:ident: $class:ident {
        $($(#[$about:meta])* $function:ident $name:literal $value:ident $accuracy:ident,)*
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum $type {
            $($(#[$about])* $function,)*
        }

        impl $type {
            /// Every function, in declaration order.
            pub const ALL: [$type; [$($name),*].len()] = [$($type::$function),*];

            /// The name in graphs and messages.
            pub fn name(self) -> &'static str {
                match self {
                    $($type::$function => $name,)*
                }
            }

            fn $column(self) -> $class {
                match self {
                    $($type::$function => $class::$value,)*
                }
            }

            /// Whether devices give the exact result, or the number nearest to it, as WGSL asks.
            pub(crate) fn is_exact(self) -> bool {
                let accuracy = match self {
                    $($type::$function => Accuracy::$accuracy,)*
                };
                accuracy == Accuracy::Exact
            }
        }
    };
}

functions! {
    /// A function of one element. Functions take floats, and give the same dtype; in parentheses stands what else they
    /// take. Of NaN each is NaN.
    Unary: takes: Takes {
        /// −x (integers too)
        Neg "neg" Numbers Exact,
        /// |x| (integers too)
        Abs "abs" Numbers Exact,
        /// −1, 0 or 1 (integers too)
        Sign "sign" Numbers Exact,
        /// eˣ
        Exp "exp" Floats Near,
        /// ln x
        Log "log" Floats Near,
        /// √x
        Sqrt "sqrt" Floats Near,
        /// 1/√x
        Rsqrt "rsqrt" Floats Near,
        /// 1/x
        Reciprocal "reciprocal" Floats Near,
        /// 2/√π · ∫₀ˣ e^(−t²) dt
        Erf "erf" Floats Near,
        /// tanh x
        Tanh "tanh" Floats Near,
        /// 1/(1 + e^(−x))
        Sigmoid "sigmoid" Floats Near,
        /// max(x, 0) (integers too)
        Relu "relu" Numbers Exact,
        /// x·Φ(x) = x/2·(1 + erf(x/√2)); Hendrycks and Gimpel, 2016
        Gelu "gelu" Floats Near,
        /// x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))); the tanh form of the same paper
        GeluTanh "gelu_tanh" Floats Near,
        /// x·sigmoid(x); Elfwing, Uchibe and Doya, 2017
        Silu "silu" Floats Near,
        /// ln(1 + eˣ)
        Softplus "softplus" Floats Near,
        /// sin x
        Sin "sin" Floats Near,
        /// cos x
        Cos "cos" Floats Near,
        /// ⌊x⌋
        Floor "floor" Floats Exact,
        /// ⌈x⌉
        Ceil "ceil" Floats Exact,
        /// The nearest integer, halves to even
        Round "round" Floats Exact,
        /// ¬x (bool alone)
        Not "not" Bools Exact,
    }
}

functions! {
    /// A function of two elements of one dtype. Arithmetic takes floats and integers, and gives the same dtype. If one of the
    /// two is NaN, arithmetic gives NaN (but a⁰ = 1ᵇ = 1), and of comparisons only ≠ is true.
    Binary: kind: Kind {
        /// a + b
        Add "add" Arithmetic Exact,
        /// a − b
        Sub "sub" Arithmetic Exact,
        /// a · b
        Mul "mul" Arithmetic Exact,
        /// a / b; integers truncate towards zero, and division by 0 gives 0
        Div "div" Arithmetic Near,
        /// The larger
        Max "max" Arithmetic Exact,
        /// The smaller
        Min "min" Arithmetic Exact,
        /// a to the power b; for a < 0 and integral b the sign is that of real arithmetic, for other b the result is NaN
        Pow "pow" Arithmetic Near,
        /// a = b: bool, of any dtype
        Equal "equal" Equality Exact,
        /// a ≠ b: bool, of any dtype
        NotEqual "not_equal" Equality Exact,
        /// a < b: bool
        Less "less" Order Exact,
        /// a ≤ b: bool
        LessEqual "less_equal" Order Exact,
        /// a > b: bool
        Greater "greater" Order Exact,
        /// a ≥ b: bool
        GreaterEqual "greater_equal" Order Exact,
        /// a ∧ b (bool alone)
        And "and" Logic Exact,
        /// a ∨ b (bool alone)
        Or "or" Logic Exact,
        /// a ⊕ b (bool alone)
        Xor "xor" Logic Exact,
    }
}

impl Unary {
    /// Whether it also takes integers.
    pub fn takes_integers(self) -> bool {
        self.takes() == Takes::Numbers
    }

    /// An error if it does not take elements of a dtype.
    pub(crate) fn check(self, x: DType) -> Result<()> {
        let (fits, expected) = match self.takes() {
            Takes::Floats => (x.is_float(), "f32, f16 or bf16"),
            Takes::Numbers => (x != DType::Bool, "a number"),
            Takes::Bools => (x == DType::Bool, "bool"),
        };
        if fits { Ok(()) } else { Err(Error::dtype(self.name(), "x", x, expected)) }
    }
}

impl Binary {
    /// Whether the result is bool whatever the operands are.
    pub fn is_comparison(self) -> bool {
        match self.kind() {
            Kind::Equality | Kind::Order => true,
            Kind::Arithmetic | Kind::Logic => false,
        }
    }

    /// Whether the operands must be bool.
    pub fn is_logical(self) -> bool {
        self.kind() == Kind::Logic
    }

    /// An error if it does not take elements of a dtype.
    pub(crate) fn check(self, a: DType) -> Result<()> {
        let (fits, expected) = match self.kind() {
            Kind::Arithmetic | Kind::Order => (a != DType::Bool, "a number"),
            Kind::Equality => (true, "any dtype"),
            Kind::Logic => (a == DType::Bool, "bool"),
        };
        if fits { Ok(()) } else { Err(Error::dtype(self.name(), "a", a, expected)) }
    }
}
