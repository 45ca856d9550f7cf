//! Functions of elements, choice and conversion. Twins: `src/kernel/pointwise/`, `shaders/pointwise/`,
//! `tests/device/pointwise/`.

use super::{Array, Real, Value, shapes::result_shape};
use crate::{
    DType, Error, Result, Shape,
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
#[expect(clippy::wildcard_enum_match_arm, reason = "what a dtype's table of functions lacks is an error")]
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
        // A NaN stays one.
        Unary::Relu if x <= R::ZERO => R::ZERO,
        Unary::Relu => x,
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
    let stranger = || Error::dtype(function.name(), "b", b.dtype(), a.dtype().name());
    // A comparison gives bool whatever the operands are; another function gives their dtype.
    macro_rules! joined {
        ($a:expr, $b:expr, $table:expr, $array:ident => $value:expr) => {
            match comparison(function) {
                Some(f) => Value::Bool(each($a, $b, &shape, |a, b| f(&a, &b))?),
                None => {
                    let $array = each($a, $b, &shape, $table(function).ok_or_else(stranger)?)?;
                    $value
                }
            }
        };
    }
    Ok(match (a, b) {
        (Value::Float { dtype, array: a }, Value::Float { array: b, .. }) => {
            joined!(a, b, on_floats, array => Value::Float { dtype: *dtype, array })
        }
        (Value::I32(a), Value::I32(b)) => joined!(a, b, on_i32, array => Value::I32(array)),
        (Value::U32(a), Value::U32(b)) => joined!(a, b, on_u32, array => Value::U32(array)),
        (Value::Bool(a), Value::Bool(b)) => joined!(a, b, on_bools, array => Value::Bool(array)),
        _ => return Err(stranger()),
    })
}

/// `f(a, b)` element by element, both stretched to a shape.
fn each<T: Copy, U: Copy>(a: &Array<T>, b: &Array<T>, shape: &Shape, f: impl Fn(T, T) -> U) -> Result<Array<U>> {
    let (a, b) = (a.stretched(shape), b.stretched(shape));
    Array::new(shape, a.data().iter().zip(b.data()).map(|(&a, &b)| f(a, b)).collect())
}

/// A function of two elements of a type.
type Joins<T> = fn(T, T) -> T;

fn comparison<T: PartialOrd>(function: Binary) -> Option<fn(&T, &T) -> bool> {
    let compare: fn(&T, &T) -> bool = match function {
        Binary::Equal => T::eq,
        Binary::NotEqual => T::ne,
        Binary::Less => T::lt,
        Binary::LessEqual => T::le,
        Binary::Greater => T::gt,
        Binary::GreaterEqual => T::ge,
        Binary::Add | Binary::Sub | Binary::Mul | Binary::Div | Binary::Max | Binary::Min | Binary::Pow => return None,
        Binary::And | Binary::Or | Binary::Xor => return None,
    };
    Some(compare)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what this table lacks is an error")]
fn on_floats<R: Real>(function: Binary) -> Option<Joins<R>> {
    let join: Joins<R> = match function {
        Binary::Add => |a, b| a + b,
        Binary::Sub => |a, b| a - b,
        Binary::Mul => |a, b| a * b,
        Binary::Div => |a, b| a / b,
        Binary::Max => R::larger,
        Binary::Min => R::smaller,
        Binary::Pow => R::powf,
        _ => return None,
    };
    Some(join)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what this table lacks is an error")]
fn on_i32(function: Binary) -> Option<Joins<i32>> {
    let join: Joins<i32> = match function {
        Binary::Add => i32::wrapping_add,
        Binary::Sub => i32::wrapping_sub,
        Binary::Mul => i32::wrapping_mul,
        Binary::Div => |a, b| if b == 0 { 0 } else { a.wrapping_div(b) },
        Binary::Max => i32::max,
        Binary::Min => i32::min,
        // 1/aⁿ truncates to 0 unless |a| is 1.
        Binary::Pow => |a, b| if b < 0 && a.unsigned_abs() != 1 { 0 } else { a.wrapping_pow(b.unsigned_abs()) },
        _ => return None,
    };
    Some(join)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what this table lacks is an error")]
fn on_u32(function: Binary) -> Option<Joins<u32>> {
    let join: Joins<u32> = match function {
        Binary::Add => u32::wrapping_add,
        Binary::Sub => u32::wrapping_sub,
        Binary::Mul => u32::wrapping_mul,
        Binary::Div => |a, b| a.checked_div(b).unwrap_or(0),
        Binary::Max => u32::max,
        Binary::Min => u32::min,
        Binary::Pow => u32::wrapping_pow,
        _ => return None,
    };
    Some(join)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what this table lacks is an error")]
fn on_bools(function: Binary) -> Option<Joins<bool>> {
    let join: Joins<bool> = match function {
        Binary::And => |a, b| a && b,
        Binary::Or => |a, b| a || b,
        Binary::Xor => |a, b| a != b,
        _ => return None,
    };
    Some(join)
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
