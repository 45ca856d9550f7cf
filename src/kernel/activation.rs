//! Functions of one element as WGSL text, for pointwise chains and for the epilogues of other kernels.

use super::Module;
use crate::graph::Unary;

/// The definition of `function` in WGSL, of `shaders/shared/unary.wesl`: one line that ends in `fn name(x: f32) -> f32 { … }`,
/// complete in itself.
///
/// No step overflows for finite `x` unless the result does, and a NaN stays one. The bounds are against real arithmetic; `ulp` is 2⁻²³ of the result. A driver may flush what is below 1.2e-38 to 0 (and
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
/// assert_eq!(unary_wgsl(Unary::Abs, "epilogue"), "fn epilogue(x: f32) -> f32 { return abs(x); }");
/// ```
pub fn unary_wgsl(function: Unary, name: &str) -> String {
    let own = format!("{}_f32", function.name());
    let module = Module::all().iter().find(|module| module.path == "shared::unary");
    let (mut text, mut others) = (String::new(), Vec::new());
    // What a function calls stands before it.
    for (defined, definition) in module.map(Module::functions).unwrap_or_default().into_iter().rev() {
        if defined == own {
            text = definition.replace(&format!("{own}("), &format!("{name}("));
        } else if text.contains(&format!(" {defined}(")) {
            text = definition + " " + &text;
            others.push(defined);
        }
    }
    // So that a module can have several such definitions.
    others.into_iter().fold(text, |text, other| text.replace(&format!(" {other}("), &format!(" {name}_{other}(")))
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
