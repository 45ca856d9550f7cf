//! Functions of one element as WGSL text, for pointwise chains and for the epilogues of other kernels.

use crate::graph::Unary;

/// `exp(a²/2)·Φ(−a)` as `tail`, Φ the normal distribution, for `a ≥ 0`: 4 ulp for `a ≤ 14`, past which Φ(−a) is nothing.
///
/// u·P(u) with u = 1/(1 + 0.3a), the form of Hastings (Abramowitz and Stegun, 7.1.26), with P of degree 7 fitted so that the
/// largest relative error is the least: 1.5e-7. Beside Shepherd and Laframboise's fit in (a − 2)/(a + 2) it saves a
/// division and three steps: 11 % of gelu's time on lavapipe.
const TAIL: &str = "let u = 1.0 / (1.0 + 0.3 * a); \
    let tail = (((((((0.0356751233 * u - 0.157204464) * u + 0.206355765) * u - 0.0536855794) * u + 0.12856257) * u \
    + 0.099913232) * u + 0.120753996) * u + 0.119629294) * u;";

/// sin(x + `quarters`·π/2) as the function's result.
///
/// `j` is the number of quarter turns in `x`, and `r` the rest: π/2 in four parts (Cody and Waite, 1980), of which the
/// first three have 8 bits, so that `j` times a part and each difference are exact while `j` has 16 bits. Then the
/// polynomials of Moshier's Cephes on |r| ≤ π/4.
fn sine(quarters: i32) -> String {
    format!(
        "let j = round(x * 0.636619772); \
         let r = (((x - j * 1.5703125) - j * 4.84466553e-4) - j * -6.40749931e-7) - j * 9.92093629e-10; \
         let k = i32(clamp(j, -1.0e9, 1.0e9)) + {quarters}; let z = r * r; \
         let s = ((-1.95152960e-4 * z + 8.33216087e-3) * z - 1.66666546e-1) * z * r + r; \
         let c = (((2.44331571e-5 * z - 1.38873162e-3) * z + 4.16666456e-2) * z * z - 0.5 * z) + 1.0; \
         let v = select(s, c, (k & 1) != 0); return select(v, -v, (k & 2) != 0);"
    )
}

/// The definition of `function` in WGSL: one line, `fn name(x: f32) -> f32 { … }`, complete in itself.
///
/// No step overflows for finite `x` unless the result does, and no result depends on an infinity on the way. The
/// bounds are against real arithmetic; `ulp` is 2⁻²³ of the result. A driver may flush what is below 1.2e-38 to 0 (and
/// with it silu and the gelus below 1.2e-36). WGSL allows `exp(x)` an error of (3 + 2|x|) ulp and `a / b` 2.5 ulp; the bounds
/// build on these:
///
/// | function | bound |
/// |---|---|
/// | neg, abs, sign, relu, floor, ceil, round | exact; halves round to even |
/// | exp | (3 + 2·abs(x)) ulp |
/// | log | 2⁻²¹ absolute on [0.5, 2], elsewhere 3 ulp |
/// | sqrt | 5 ulp |
/// | rsqrt | 2 ulp |
/// | reciprocal | 2.5 ulp |
/// | erf | 3e-7 absolute; 4 ulp for abs(x) < 0.92 |
/// | tanh | 6e-7 absolute; 4 ulp for abs(x) < 0.62 |
/// | sigmoid | (12 + 2·abs(x)) ulp |
/// | silu | (12 + 2·abs(x)) ulp |
/// | softplus | (12 + 2·abs(x)) ulp |
/// | gelu | (20 + 2·x²) ulp: the lower tail keeps its leading digits |
/// | gelu_tanh | (20 + 8·abs(u)) ulp, u = √(2/π)·(x + 0.044715·x³) |
/// | sin, cos | 3e-7 absolute for abs(x) ≤ 100,000; beyond, the phase is lost by degrees |
/// | not | exact: 1 if x = 0, else 0 |
///
/// ```
/// use tilewise::{graph::Unary, kernel::unary_wgsl};
/// assert_eq!(unary_wgsl(Unary::Relu, "epilogue"), "fn epilogue(x: f32) -> f32 { return max(x, 0.0); }");
/// ```
pub fn unary_wgsl(function: Unary, name: &str) -> String {
    let body = match function {
        Unary::Neg => "return -x;".into(),
        Unary::Abs => "return abs(x);".into(),
        Unary::Sign => "return sign(x);".into(),
        Unary::Exp => "return exp(x);".into(),
        Unary::Log => "return log(x);".into(),
        Unary::Sqrt => "return sqrt(x);".into(),
        Unary::Rsqrt => "return inverseSqrt(x);".into(),
        Unary::Reciprocal => "return 1.0 / x;".into(),
        // Near 0 an odd polynomial (N. Juffa's minimax fit for f32), elsewhere 1 − erfc|x|.
        Unary::Erf => format!(
            "let z = min(x * x, 1.0); let near = (((((-5.96761703e-4 * z + 4.99119423e-3) * z - 2.67681349e-2) * z \
             + 1.12819925e-1) * z - 3.76125336e-1) * z + 1.28379166e-1) * x + x; \
             let b = min(abs(x), 13.0); let a = 1.41421356 * b; {TAIL} let far = 1.0 - 2.0 * exp(-b * b) * tail; \
             return select(select(far, -far, x < 0.0), near, b < 0.9277);"
        ),
        // WGSL's own tanh may be off by 1e-5 and overflow. Near 0 the polynomial of Moshier's Cephes.
        Unary::Tanh => "let a = min(abs(x), 15.0); let z = min(a * a, 1.0); \
             let near = ((((-5.70498873e-3 * z + 2.06390888e-2) * z - 5.37397156e-2) * z + 1.33314422e-1) * z \
             - 3.33332819e-1) * z * x + x; let far = 1.0 - 2.0 / (exp(2.0 * a) + 1.0); \
             return select(select(far, -far, x < 0.0), near, a < 0.625);"
            .into(),
        Unary::Sigmoid => "let e = exp(-abs(x)); return select(1.0, e, x < 0.0) / (1.0 + e);".into(),
        Unary::Relu => "return max(x, 0.0);".into(),
        // x·Φ(x) = max(x, 0) − |x|·Φ(−|x|), without the cancellation of 1 + erf.
        Unary::Gelu => format!(
            "let a = min(abs(x), 20.0); {TAIL} return max(x, 0.0) - a * (exp(-0.5 * a * a) * tail);"
        ),
        // (1 + tanh u)/2 = sigmoid(2u)
        Unary::GeluTanh => "let t = clamp(x, -12.0, 12.0); \
             let u = 1.59576912 * (t + 0.044715 * t * t * t); let e = exp(-abs(u)); \
             return x * (select(1.0, e, x < 0.0) / (1.0 + e));"
            .into(),
        Unary::Silu => "let e = exp(-abs(x)); return x * (select(1.0, e, x < 0.0) / (1.0 + e));".into(),
        // ln(1 + e) = 2·artanh(s) with s = e/(2 + e) ≤ 1/3, by its series: full relative precision for any e.
        Unary::Softplus => "let e = exp(-abs(x)); let s = e / (2.0 + e); let z = s * s; \
             let series = (((((((z / 17.0 + 0.0666666667) * z + 0.0769230769) * z + 0.0909090909) * z + 0.111111111) * z \
             + 0.142857143) * z + 0.2) * z + 0.333333333) * z; return max(x, 0.0) + (2.0 * s * series + 2.0 * s);"
            .into(),
        Unary::Sin => sine(0),
        Unary::Cos => sine(1),
        Unary::Floor => "return floor(x);".into(),
        Unary::Ceil => "return ceil(x);".into(),
        Unary::Round => "return round(x);".into(),
        Unary::Not => "return select(0.0, 1.0, x == 0.0);".into(),
    };
    format!("fn {name}(x: f32) -> f32 {{ {body} }}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_one_line_of_valid_wgsl() {
        for function in Unary::ALL {
            let text = unary_wgsl(function, "f");
            assert!(!text.contains('\n'), "{function:?}");
            let module = format!("{text}\n@compute @workgroup_size(1) fn main() {{ _ = f(1.0); }}");
            let module = naga::front::wgsl::parse_str(&module).unwrap_or_else(|e| panic!("{function:?}: {e}\n{text}"));
            naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::default())
                .validate(&module)
                .unwrap_or_else(|e| panic!("{function:?}: {e:?}\n{text}"));
        }
    }
}
