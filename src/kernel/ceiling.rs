//! The ceilings of a device: copies, reads, arithmetic and exponentials on registers, empty dispatches. Twins:
//! `shaders/ceiling/`, `tests/device/ceiling.rs`.

use serde::{Deserialize, Serialize};

use super::{
    AdapterKind, Binding, Candidate, CooperativeMatrix, Kernel, Launch, Operand, Parameters, Problem, Profile,
    Specialization, access::long, fold_grid, profile::HALVES,
};
use crate::{DType, Error, Result};

/// A limit of a device, as a kernel that runs into it and does nothing else.
///
/// These are measured beside other kernels, to say how far those are from what is possible. No operation of a graph leads
/// to one; [`Program::of_kernel`](crate::lower::Program::of_kernel) makes one a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CeilingProblem {
    /// `y = x`. One input and one output, each of `bytes` bytes ([`CeilingProblem::whole`]).
    Copy {
        /// Bytes of x and of y.
        bytes: u64,
    },
    /// Sums over x. One input of `bytes` bytes, and an output of one f32 for each invocation.
    Read {
        /// Bytes of x.
        bytes: u64,
    },
    /// Multiplications and additions on registers. One output of one f32 for each invocation; no input.
    Multiply(Arithmetic),
    /// Exponentials on registers, in f32. One output of one f32 for each invocation; no input.
    Exponential,
    /// A dispatch of one invocation that writes one word: one output, of one word.
    Dispatch,
}

/// What a kernel computes with, as far as devices differ in speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// f32, one number a lane.
    F32,
    /// f16 (`SHADER_F16`), in pairs.
    F16,
    /// Cooperative matrices: units of their own, on GPUs that have them.
    Cooperative,
}

impl Arithmetic {
    /// The fastest that this WGSL may use, as its extensions say.
    pub fn of(wgsl: &str) -> Self {
        let enables = |extension: &str| {
            let mut lines = wgsl.lines().filter_map(|line| line.trim().strip_prefix("enable "));
            lines.any(|rest| rest.trim_end_matches(';').split(',').any(|name| name.trim() == extension))
        };
        if enables("wgpu_cooperative_matrix") {
            Arithmetic::Cooperative
        } else if enables("f16") {
            Arithmetic::F16
        } else {
            Arithmetic::F32
        }
    }
}

/// How a variant goes about it.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    /// Vectors of an invocation in a turn, or chains.
    wide: u32,
    /// A multiplication and an addition as two operations.
    split: bool,
    /// How memory is moved.
    moves: Moves,
}

/// What software adapters move fastest with is not what GPUs do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moves {
    /// Vectors of 16 bytes in the turns of a loop.
    Turns,
    /// A copy without a loop, each vector stored before the next is loaded.
    Line,
    /// Words of 64 bits, four a vector: a copy without a loop, a read with one sum.
    Wide,
}

const fn shape(name: &'static str, wide: u32, split: bool) -> Shape {
    Shape { name, wide, split, moves: Moves::Turns }
}

const fn moving(name: &'static str, wide: u32, moves: Moves) -> Shape {
    Shape { name, wide, split: false, moves }
}

const COPYING: [Shape; 5] = [
    moving("vec4 x1", 1, Moves::Turns),
    moving("vec4 x4", 4, Moves::Turns),
    moving("vec4 x8", 8, Moves::Turns),
    moving("vec4 x8 in line", 8, Moves::Line),
    moving("u64 x8 in line", 8, Moves::Wide),
];
const READING: [Shape; 4] = [
    moving("vec4 x1", 1, Moves::Turns),
    moving("vec4 x4", 4, Moves::Turns),
    moving("vec4 x8", 8, Moves::Turns),
    moving("u64 x8", 8, Moves::Wide),
];
const MULTIPLYING: [Shape; 3] =
    [shape("fma x8", 8, false), shape("fma x16", 16, false), shape("multiply, add x12", 12, true)];
const EXPONENTIALS: [Shape; 3] = [shape("exp x4", 4, false), shape("exp x8", 8, false), shape("exp x16", 16, false)];
const MATRICES: [Shape; 3] =
    [shape("matrices x2", 2, false), shape("matrices x4", 4, false), shape("matrices x8", 8, false)];
const DISPATCHING: [Shape; 1] = [shape("one word", 1, false)];

const LANES: u32 = 64;
/// Invocations of a workgroup that copies without a loop.
const LINE_LANES: u32 = 256;
/// Sizes of [`CeilingProblem::Copy`] and [`CeilingProblem::Read`] are multiples of this: what a workgroup of the widest
/// variant moves in all its turns.
const GRAIN: u64 = 32 * LANES as u64 * 8 * MOST_TURNS as u64;
const MOST_TURNS: u32 = 16;

impl Shape {
    /// Why it can't run here.
    fn fault(&self, profile: &Profile) -> Option<String> {
        (self.moves == Moves::Wide && !profile.shader_int64)
            .then(|| "the device has no u64 in shaders (SHADER_INT64)".into())
    }
}

impl CeilingProblem {
    const FAMILY: &str = "ceiling";

    /// The largest size of at most `bytes` bytes that a copy or a read can have, but not 0.
    pub fn whole(bytes: u64) -> u64 {
        (bytes / GRAIN).max(1) * GRAIN
    }

    /// The f32 elements of the input, if there is one, and of the output, for the variant that the kernel is of.
    pub fn elements(self, kernel: &Kernel) -> (Option<usize>, usize) {
        let invocations = kernel.launches.iter().map(|l| l.grid.iter().product::<u32>() * LANES).sum::<u32>() as usize;
        match self {
            CeilingProblem::Copy { bytes } => (Some(bytes as usize / 4), bytes as usize / 4),
            CeilingProblem::Read { bytes } => (Some(bytes as usize / 4), invocations),
            CeilingProblem::Multiply(_) | CeilingProblem::Exponential => (None, invocations),
            CeilingProblem::Dispatch => (None, 1),
        }
    }

    fn shapes(self) -> &'static [Shape] {
        match self {
            CeilingProblem::Copy { .. } => &COPYING,
            CeilingProblem::Read { .. } => &READING,
            CeilingProblem::Multiply(Arithmetic::Cooperative) => &MATRICES,
            CeilingProblem::Multiply(_) => &MULTIPLYING,
            CeilingProblem::Exponential => &EXPONENTIALS,
            CeilingProblem::Dispatch => &DISPATCHING,
        }
    }

    /// Why it can't run here.
    fn fault(self, profile: &Profile) -> Option<String> {
        match self {
            CeilingProblem::Copy { bytes } | CeilingProblem::Read { bytes } => {
                if bytes == 0 || bytes % GRAIN != 0 {
                    return Some(format!("{bytes} bytes, expected a multiple of {GRAIN}"));
                }
                (bytes > profile.limits.binding_bytes).then(|| {
                    format!("{bytes} bytes, a binding may have {} (binding_bytes)", profile.limits.binding_bytes)
                })
            }
            CeilingProblem::Multiply(Arithmetic::F32) | CeilingProblem::Exponential | CeilingProblem::Dispatch => None,
            CeilingProblem::Multiply(Arithmetic::F16) => {
                (!profile.shader_f16).then(|| "the device has no f16 in shaders (SHADER_F16)".into())
            }
            CeilingProblem::Multiply(Arithmetic::Cooperative) => Self::matrix(profile).err(),
        }
    }
}

impl CeilingProblem {
    /// Rows of the largest cooperative matrix that kernels multiply here, and invocations of a subgroup.
    fn matrix(profile: &Profile) -> Result<(u32, u32), String> {
        let faulty = |matrix: &CooperativeMatrix| profile.cooperative_matrix_faults.iter().any(|(m, _)| m == matrix);
        let usable = |size: &u32| {
            let matrix = CooperativeMatrix::square(*size, HALVES);
            profile.cooperative_matrices.contains(&matrix) && !faulty(&matrix)
        };
        let Some(size) = [16, 8].into_iter().find(usable) else {
            return Err("the device has no cooperative matrices of f16 with f32 sums that passed their test".into());
        };
        match profile.fixed_subgroup() {
            Some(lanes) if LANES.is_multiple_of(lanes) => Ok((size, lanes)),
            _ => Err(format!("a workgroup of {LANES} is no whole number of subgroups of one size")),
        }
    }
}

impl Problem for CeilingProblem {
    fn family(&self) -> &'static str {
        Self::FAMILY
    }

    fn candidates(&self, profile: &Profile) -> Vec<Candidate> {
        let fault = self.fault(profile);
        let candidate = |shape: &Shape| match fault.clone().or_else(|| shape.fault(profile)) {
            Some(fault) => Candidate::refused(shape.name, fault),
            None => Candidate::usable(shape.name, "measured against the others"),
        };
        self.shapes().iter().map(candidate).collect()
    }

    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel> {
        if let Some(fault) = self.fault(profile) {
            return Err(Error::op(Self::FAMILY, fault));
        }
        let Some(shape) = self.shapes().iter().find(|shape| shape.name == variant) else {
            return Err(Error::op(Self::FAMILY, format!("there is no variant `{variant}`")));
        };
        if let Some(fault) = shape.fault(profile) {
            return Err(Error::op(Self::FAMILY, fault));
        }
        let &Shape { wide, split, moves, .. } = shape;
        let cpu = profile.kind == AdapterKind::Cpu;
        // Bytes of a vector.
        let vector = if moves == Moves::Wide { 32 } else { 16 };
        // Enough workgroups to fill any GPU; few on a CPU, where each costs.
        let turns_of = |bytes: u64| {
            let rounds = bytes / (vector * u64::from(LANES * wide));
            let workgroups = if cpu { 16 } else { 4096 };
            let most = (rounds / workgroups).clamp(1, u64::from(MOST_TURNS)) as u32;
            // A power of two divides the grain.
            1 << most.ilog2()
        };
        let turning = |turns: u32| Parameters::new().set("turns", turns);
        let chained = |turns: u32, a: f32, b: f32| turning(turns).set("a", a).set("b", b);
        let moving = |kernel, bytes: u64, moved, lanes: u32, turns: u32| {
            let mut shader = Specialization::new(kernel).value("UNROLL", wide).value("LANES", lanes).trusted();
            if moves == Moves::Wide {
                shader = shader.ty("word", "vec4<u64>");
            }
            let workgroups = bytes / (vector * u64::from(lanes * wide * turns));
            (shader, turning(turns), workgroups, 0, moved)
        };
        let mut exponentials = 0;
        let (shader, params, workgroups, flops, bytes) = match *self {
            CeilingProblem::Copy { bytes } => {
                let (lanes, turns) = match moves {
                    Moves::Turns => (LANES, turns_of(bytes)),
                    Moves::Line | Moves::Wide => (LINE_LANES, 1),
                };
                let (mut shader, mut params, workgroups, flops, bytes) =
                    moving("ceiling::copy", bytes, 2 * bytes, lanes, turns);
                shader = shader.region("TURNS", moves == Moves::Turns);
                if moves == Moves::Wide {
                    let (low, high) = (long::apart("w.xy"), long::apart("w.zw"));
                    let whole = ["low", "high"].map(long::joined).join(", ");
                    let zero = "vec4<u32>(p.zero)";
                    let carry = format!("let low = {low} | {zero}; let high = {high} | {zero}; return word({whole});");
                    shader = shader
                        .region("ZERO", true)
                        .function("carry", format!("fn carry(w: word) -> word {{ {carry} }}"));
                    params = params.set("zero", 0u32);
                }
                (shader, params, workgroups, flops, bytes)
            }
            CeilingProblem::Read { bytes } => {
                let (mut shader, params, workgroups, flops, bytes) =
                    moving("ceiling::read", bytes, bytes, LANES, turns_of(bytes));
                shader = shader.region("APART", moves != Moves::Wide);
                if moves == Moves::Wide {
                    let [low, high] = long::eight(DType::F32).1;
                    let floats = format!("fn floats(w: word) -> vec4<f32> {{ return {low} + {high}; }}");
                    shader = shader.function("floats", floats);
                }
                (shader, params, workgroups, flops, bytes)
            }
            CeilingProblem::Multiply(Arithmetic::Cooperative) => {
                let (size, lanes) = Self::matrix(profile).map_err(|fault| Error::op(Self::FAMILY, fault))?;
                // Slow in software.
                let (steps, turns, workgroups) = if cpu { (16 / wide, 1, 64) } else { (32 / wide, 256, 4096) };
                let mut shader = Specialization::new("ceiling::coop").trusted();
                for (slot, value) in [("LANES", LANES), ("SUBGROUP", lanes), ("S", size)] {
                    shader = shader.value(slot, value);
                }
                for (role, element) in [("A", "f16"), ("B", "f16"), ("C", "f32")] {
                    let matrix = format!("coop_mat{size}x{size}<{element}, {role}>");
                    shader = shader.ty(&format!("mat_{}", role.to_lowercase()), &matrix);
                }
                let products = u64::from(wide * steps * turns) * u64::from(LANES / lanes) * workgroups;
                let flops = products * 2 * u64::from(size).pow(3);
                let params = chained(turns, 1.0 / size as f32, 1.0);
                (shader.value("CHAINS", wide).value("STEPS", steps), params, workgroups, flops, 0)
            }
            CeilingProblem::Multiply(arithmetic) => {
                // f16 is slow in software.
                let (steps, turns, workgroups) = match (cpu, arithmetic) {
                    (true, Arithmetic::F32) => (1024 / wide, 1, 512),
                    (true, _) => (1024 / wide, 1, 32),
                    (false, _) => (256 / wide, 64, 16_384),
                };
                let mut shader = Specialization::new("ceiling::fma").trusted();
                shader = shader.value("CHAINS", wide).value("STEPS", steps).value("LANES", LANES).region("LOOP", !cpu);
                if split {
                    shader = shader
                        .function("advance", "fn advance(x: elem, a: elem, b: elem) -> elem { return a * x + b; }");
                }
                let mut pair = 1;
                if arithmetic == Arithmetic::F16 {
                    pair = 2;
                    shader = shader
                        .region("F16", true)
                        .ty("elem", "vec2<f16>")
                        .function("splat", "fn splat(x: f32) -> elem { return elem(f16(x)); }")
                        .function("total", "fn total(x: elem) -> f32 { return f32(x.x) + f32(x.y); }");
                }
                let a_lane = 2 * pair * u64::from(wide * steps * turns);
                let flops = a_lane * u64::from(LANES) * workgroups;
                (shader, chained(turns, 0.75, 0.5), workgroups, flops, 0)
            }
            CeilingProblem::Exponential => {
                // In software an exponential is long straight-line code.
                let (steps, turns, workgroups) = if cpu { (256 / wide, 1, 512) } else { (256 / wide, 16, 16_384) };
                let shader = Specialization::new("ceiling::fma")
                    .value("CHAINS", wide)
                    .value("STEPS", steps)
                    .value("LANES", LANES)
                    .region("LOOP", !cpu)
                    .function("advance", "fn advance(x: elem, a: elem, b: elem) -> elem { return exp(-x); }")
                    .trusted();
                exponentials = u64::from(wide * steps * turns) * u64::from(LANES) * workgroups;
                (shader, chained(turns, 0.0, 0.0), workgroups, 0, 0)
            }
            CeilingProblem::Dispatch => {
                let params = Parameters::new().set("word", 7u32);
                (Specialization::new("ceiling::dispatch").trusted(), params, 1, 0, 0)
            }
        };
        let input = matches!(self, CeilingProblem::Copy { .. } | CeilingProblem::Read { .. })
            .then(|| Binding::read(Operand::Input(0)));
        let source = shader.source()?;
        let launch = Launch {
            label: variant.into(),
            params: source.words(&params)?,
            source,
            bindings: input.into_iter().chain([Binding::write(Operand::Output(0))]).collect(),
            grid: fold_grid(workgroups, profile, Self::FAMILY)?,
            flops,
            exponentials,
            bytes,
        };
        Ok(Kernel { launches: vec![launch], workspace: Vec::new() })
    }

    fn summary(&self) -> String {
        match self {
            CeilingProblem::Copy { bytes } => format!("copy {bytes} bytes"),
            CeilingProblem::Read { bytes } => format!("read {bytes} bytes"),
            CeilingProblem::Multiply(arithmetic) => format!("multiply and add {arithmetic:?}"),
            CeilingProblem::Exponential => "exponentials".into(),
            CeilingProblem::Dispatch => "dispatch".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Arithmetic;

    #[test]
    fn the_extensions_of_a_shader_say_what_it_computes_with() {
        assert_eq!(Arithmetic::of("// enable f16;\nconst A = 1u;"), Arithmetic::F32);
        assert_eq!(Arithmetic::of("enable subgroups, f16;\n"), Arithmetic::F16);
        assert_eq!(Arithmetic::of("enable f16;\nenable wgpu_cooperative_matrix;\n"), Arithmetic::Cooperative);
    }
}
