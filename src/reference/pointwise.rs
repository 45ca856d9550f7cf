//! Functions of elements, choice and conversion. Twins: `src/kernel/pointwise.rs`, `shaders/pointwise*.wgsl`,
//! `tests/pointwise.rs`.

use super::{Array, Real, Value, shapes::result_shape};
use crate::{
    DType, Error, Result,
    graph::{Binary, Op, Unary},
};

/// A function of each element. See [`Unary`].
///
/// ```
/// use tilewise::{DType, graph::Unary, reference::{Array, Value, unary}};
/// let x = Value::<f64>::I32(Array::new([2], vec![-3, 4])?);
/// assert_eq!(unary(Unary::Abs, &x)?.to_f64(), [3.0, 4.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if the function doesn't take the dtype of `x`.
pub fn unary<R: Real>(function: Unary, x: &Value<R>) -> Result<Value<R>> {
    result_shape(&Op::Unary { function }, &[(x.dtype(), x.shape())])?;
    let stranger = || Error::dtype(function.name(), "x", x.dtype(), "a dtype that the function takes");
    Ok(match x {
        Value::Float { dtype, array } => Value::Float { dtype: *dtype, array: array.map(|x| unary_float(function, x)) },
        Value::I32(array) => Value::I32(match function {
            Unary::Neg => array.map(i32::wrapping_neg),
            Unary::Abs => array.map(i32::wrapping_abs),
            Unary::Sign => array.map(i32::signum),
            Unary::Relu => array.map(|x| x.max(0)),
            _ => return Err(stranger()),
        }),
        Value::U32(array) => Value::U32(match function {
            Unary::Neg => array.map(u32::wrapping_neg),
            Unary::Abs | Unary::Relu => array.clone(),
            Unary::Sign => array.map(|x| x.min(1)),
            _ => return Err(stranger()),
        }),
        Value::Bool(array) => Value::Bool(match function {
            Unary::Not => array.map(|x| !x),
            _ => return Err(stranger()),
        }),
    })
}

/// A function of one float.
pub fn unary_float<R: Real>(function: Unary, x: R) -> R {
    let half = R::of(0.5);
    match function {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign if x > R::ZERO => R::ONE,
        Unary::Sign if x < R::ZERO => -R::ONE,
        Unary::Sign => x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Rsqrt => R::ONE / x.sqrt(),
        Unary::Reciprocal => R::ONE / x,
        Unary::Erf => x.erf(),
        Unary::Tanh => x.tanh(),
        Unary::Sigmoid => R::ONE / (R::ONE + (-x).exp()),
        Unary::Relu if x > R::ZERO => x,
        Unary::Relu => R::ZERO,
        // 1 + erf z = erfc(−z), which keeps its digits where the two nearly cancel.
        Unary::Gelu => half * x * (-x / R::of(2.0).sqrt()).erfc(),
        Unary::GeluTanh => {
            let inner = R::of(std::f64::consts::FRAC_2_PI).sqrt() * (x + R::of(0.044715) * x * x * x);
            half * x * (R::ONE + inner.tanh())
        }
        Unary::Silu => x / (R::ONE + (-x).exp()),
        // ln(1 + eˣ) without overflow.
        Unary::Softplus => (if x > R::ZERO { x } else { R::ZERO }) + (-x.abs()).exp().ln_1p(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round(),
        // Of no float; inference refuses it before.
        Unary::Not => x,
    }
}

/// A function of two elements, with NumPy broadcasting. See [`Binary`].
///
/// ```
/// use tilewise::{graph::Binary, reference::{Array, Value, binary}};
/// let [a, b] = [vec![7, -7], vec![2, 0]].map(|data| Array::new([2], data).map(Value::<f64>::I32));
/// assert_eq!(binary(Binary::Div, &a?, &b?)?.to_f64(), [3.0, 0.0]); // integers: by 0 it is 0
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if dtypes differ, if shapes don't broadcast, or if the function doesn't take the dtype.
pub fn binary<R: Real>(function: Binary, a: &Value<R>, b: &Value<R>) -> Result<Value<R>> {
    let op = Op::Binary { function };
    let shape = result_shape(&op, &[(a.dtype(), a.shape()), (b.dtype(), b.shape())])?;
    macro_rules! both {
        ($a:expr, $b:expr, $f:expr) => {{
            let (a, b) = ($a.stretched(&shape), $b.stretched(&shape));
            let data = a.data().iter().zip(b.data()).map(|(&a, &b)| $f(a, b)).collect();
            Array::new(shape, data)?
        }};
    }
    macro_rules! compared {
        ($a:expr, $b:expr) => {
            Value::Bool(both!($a, $b, |a, b| match function {
                Binary::NotEqual => a != b,
                Binary::Less => a < b,
                Binary::LessEqual => a <= b,
                Binary::Greater => a > b,
                Binary::GreaterEqual => a >= b,
                _ => a == b,
            }))
        };
    }
    let compares = function.is_comparison();
    Ok(match (a, b) {
        (Value::Float { array: a, .. }, Value::Float { array: b, .. }) if compares => compared!(a, b),
        (Value::I32(a), Value::I32(b)) if compares => compared!(a, b),
        (Value::U32(a), Value::U32(b)) if compares => compared!(a, b),
        (Value::Bool(a), Value::Bool(b)) if compares => compared!(a, b),
        (Value::Float { dtype, array: a }, Value::Float { array: b, .. }) => {
            Value::Float { dtype: *dtype, array: both!(a, b, |a, b| binary_float(function, a, b)) }
        }
        (Value::I32(a), Value::I32(b)) => Value::I32(both!(a, b, |a: i32, b: i32| match function {
            Binary::Add => a.wrapping_add(b),
            Binary::Sub => a.wrapping_sub(b),
            Binary::Mul => a.wrapping_mul(b),
            Binary::Div if b == 0 => 0,
            Binary::Div => a.wrapping_div(b),
            Binary::Max => a.max(b),
            Binary::Min => a.min(b),
            // 1/aⁿ truncates to 0 unless |a| is 1.
            _ if b < 0 && a.unsigned_abs() != 1 => 0,
            _ => a.wrapping_pow(b.unsigned_abs()),
        })),
        (Value::U32(a), Value::U32(b)) => Value::U32(both!(a, b, |a: u32, b: u32| match function {
            Binary::Add => a.wrapping_add(b),
            Binary::Sub => a.wrapping_sub(b),
            Binary::Mul => a.wrapping_mul(b),
            Binary::Div => a.checked_div(b).unwrap_or(0),
            Binary::Max => a.max(b),
            Binary::Min => a.min(b),
            _ => a.wrapping_pow(b),
        })),
        (Value::Bool(a), Value::Bool(b)) => Value::Bool(both!(a, b, |a: bool, b: bool| match function {
            Binary::And => a && b,
            Binary::Or => a || b,
            _ => a != b,
        })),
        _ => return Err(Error::dtype(function.name(), "b", b.dtype(), a.dtype().name())),
    })
}

fn binary_float<R: Real>(function: Binary, a: R, b: R) -> R {
    match function {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::Max => {
            if a > b {
                a
            } else {
                b
            }
        }
        Binary::Min => {
            if a < b {
                a
            } else {
                b
            }
        }
        _ => a.powf(b),
    }
}

/// `condition ? a : b`, with NumPy broadcasting. See [`Op::Where`].
///
/// ```
/// use tilewise::reference::{Array, Value, choose};
/// let condition = Array::new([2], vec![true, false])?;
/// let [a, b] = [1, 2].map(|x| Array::new([1], vec![x]).map(Value::<f64>::I32));
/// assert_eq!(choose(&condition, &a?, &b?)?.to_f64(), [1.0, 2.0]);
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if `a` and `b` differ in dtype, or if shapes don't broadcast.
pub fn choose<R: Real>(condition: &Array<bool>, a: &Value<R>, b: &Value<R>) -> Result<Value<R>> {
    let operands = [(DType::Bool, condition.shape()), (a.dtype(), a.shape()), (b.dtype(), b.shape())];
    let shape = result_shape(&Op::Where, &operands)?;
    let condition = condition.stretched(&shape);
    macro_rules! chosen {
        ($a:expr, $b:expr) => {{
            let (a, b) = ($a.stretched(&shape), $b.stretched(&shape));
            let pairs = a.data().iter().zip(b.data());
            let data = condition.data().iter().zip(pairs).map(|(&c, (&a, &b))| if c { a } else { b }).collect();
            Array::new(shape, data)?
        }};
    }
    Ok(match (a, b) {
        (Value::Float { dtype, array: a }, Value::Float { array: b, .. }) => {
            Value::Float { dtype: *dtype, array: chosen!(a, b) }
        }
        (Value::I32(a), Value::I32(b)) => Value::I32(chosen!(a, b)),
        (Value::U32(a), Value::U32(b)) => Value::U32(chosen!(a, b)),
        (Value::Bool(a), Value::Bool(b)) => Value::Bool(chosen!(a, b)),
        _ => return Err(Error::dtype("where", "b", b.dtype(), a.dtype().name())),
    })
}

/// Conversion to another dtype, rounded to it. See [`Op::Cast`]; between the two integer types the bits stay.
pub fn cast<R: Real>(x: &Value<R>, dtype: DType) -> Value<R> {
    match (x, dtype) {
        (Value::I32(x), DType::U32) => Value::U32(x.map(|x| x as u32)),
        (Value::U32(x), DType::I32) => Value::I32(x.map(|x| x as i32)),
        _ => Value::from_f64(dtype, x.shape().clone(), &x.to_f64()),
    }
}
