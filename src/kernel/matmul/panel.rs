//! A panel of b in registers, and the rows of a that go through it; for software adapters.

use super::{
    operands::{Stage, eights, eights_of_a, write_out4},
    problem::{A, B, MatmulProblem},
    setup::Setup,
    vec,
};
use crate::{
    DType, Result,
    kernel::{
        AdapterKind, Binding, Kernel, Operand, Specialization,
        access::long::{eight, has_eights, of_eight},
        buffer_bytes,
        variant::{Needs, Variant},
    },
};

/// A panel shape of `panel.wesl`; see there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Panel {
    name: &'static str,
    reason: &'static str,
    share: Share,
    /// BK where b is loaded in quads, for sums that are as long; half of it where its elements are loaded one by one, since it
    /// is the loads that take time to compile.
    bk: usize,
    /// Terms of a sum that the panel is worth compiling for.
    least: usize,
}

/// How an element of a gets to all lanes of a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// One lane loads it and broadcasts it.
    Broadcast,
    /// Every lane loads it.
    Uniform,
}

/// As deep as compiles in about a second with LLVM 15.
pub(super) const BROADCAST: Panel = Panel {
    name: "panel",
    reason: "software adapter: no workgroup memory, and few loads, which are slow there",
    share: Share::Broadcast,
    bk: 64,
    least: 1,
};

/// Reads and writes of sums count half as much: 1.1 to 1.25 times as fast. Compiles three times as long.
pub(super) const DEEP: Panel = Panel {
    name: "panel_deep",
    reason: "large products on a software adapter: panel with fewer reads and writes of sums; compiles three times as long",
    share: Share::Broadcast,
    bk: 128,
    least: 384,
};

pub(super) const UNIFORM: Panel = Panel {
    name: "panel_uniform",
    reason: "as panel without subgroups; faster than it where uniform loads are one load (Mesa 26)",
    share: Share::Uniform,
    bk: 128,
    least: 1,
};

/// LANES without subgroups.
const UNIFORM_LANES: usize = 8;
/// Rows from which on two of them at once pay for the longer text.
const PAIRS: usize = 128;
/// Rows of a workgroup, which at the least pay for filling its panels.
const LEAST_ROWS: usize = 32;
/// Rounds of a panel beside those over its rows: entering its loops, and filling it.
const ROUNDS: usize = 8;
/// Workgroups that occupy the cores of a software adapter evenly.
const FULL: usize = 16;
/// Multiplications that are worth compiling the deep panel.
const LARGE: u64 = 1 << 27;

impl Panel {
    /// Whether it reads eight elements of this dtype as a word, which pays where every load goes lane by lane.
    fn has_eights(&self, dtype: DType, setup: &Setup<'_>) -> bool {
        self.share == Share::Broadcast && !setup.profile.shares_loads() && has_eights(dtype, setup.profile)
    }

    /// Whether it reads eight elements of a as a word: also where all lanes read the same, since a driver that shares the
    /// load checks the bounds of each component, of four words of 64 bits in place of eight f32.
    fn eights_of_a(&self, Setup { problem, profile }: &Setup<'_>) -> bool {
        let pays = self.share == Share::Uniform || !profile.shares_loads();
        pays && has_eights(problem.dtypes[A], profile) && problem.eights(A, problem.a, problem.k)
    }

    /// The axis along which it reads eight elements of b as a word, if it does.
    fn eights_of_b(&self, setup: &Setup<'_>) -> Option<Along> {
        let problem = setup.problem;
        if problem.quantized.is_some() || !self.has_eights(problem.dtypes[B], setup) {
            None
        } else if problem.eights(B, problem.b, problem.n) {
            Some(Along::N)
        } else {
            problem.eights(B, problem.b.transposed(), problem.k).then_some(Along::K)
        }
    }

    /// BK: rows of b that it holds.
    fn bk(&self, setup: &Setup<'_>) -> usize {
        let problem = setup.problem;
        let in_eights = self.eights_of_b(setup).is_some();
        let in_quads = problem.quads(B, problem.b, problem.n) || problem.quads(B, problem.b.transposed(), problem.k);
        let bk = if in_eights { DEEP.bk } else { self.bk };
        let bk = if problem.k <= BROADCAST.bk { BROADCAST.bk } else { bk };
        if in_eights || in_quads { bk } else { bk / 2 }
    }

    fn lanes(&self, setup: &Setup<'_>) -> usize {
        match (self.share, setup.profile.subgroup) {
            (Share::Broadcast, Some((size, _))) => size as usize,
            (Share::Broadcast, None) | (Share::Uniform, _) => UNIFORM_LANES,
        }
    }

    /// Rows of a workgroup, with so many strips of columns.
    fn part(&self, strips: usize, setup: &Setup<'_>) -> usize {
        let problem = setup.problem;
        // As few as occupy the cores: each workgroup fills its panels anew.
        let parts = FULL.div_ceil(strips.max(1));
        // And no more than the driver's end of loops lets pass.
        let most = setup.profile.loop_rounds().map_or(usize::MAX, |most| {
            let panels = problem.k.div_ceil(self.bk(setup)).max(1);
            (most as usize / (panels + 1)).saturating_sub(ROUNDS + 1)
        });
        problem.m.div_ceil(parts).min(most).max(LEAST_ROWS)
    }

    /// The slots of operands and result: words of eight elements where it reads them.
    fn operands(&self, setup: &Setup<'_>) -> Specialization {
        let problem = setup.problem;
        let slots = problem.squares("matmul::panel").on(setup.profile.backend);
        let slots = match self.eights_of_b(setup) {
            Some(along) => eights(slots, "b", problem.dtypes[B]).function("load_b8x8", load_b8x8(along)),
            None => slots,
        };
        let slots = if self.eights_of_a(setup) { eights_of_a(slots, problem.dtypes[A]) } else { slots };
        if problem.out != DType::F32 || !problem.n.is_multiple_of(4) {
            return slots;
        }
        if !problem.n.is_multiple_of(8) || !self.has_eights(problem.out, setup) {
            return slots
                .function("read_out4", "fn read_out4(i: u32, columns: u32) -> vec4<f32> { return out[i / 4u]; }");
        }
        let (word, [low, high]) = eight(DType::F32);
        let read = format!("let w = out[(row + min(n, p.N - 1u)) / 8u]; return Eight({low}, {high});");
        let write = format!("if n < p.N {{ out[(row + n) / 8u] = {}; }}", of_eight(["x.low", "x.high"]));
        // Whoever has eights alone calls no fours.
        slots
            .ty("out_word", word)
            .function("read_out8", format!("fn read_out8(row: u32, n: u32) -> Eight {{ {read} }}"))
            .function("read_out4", "fn read_out4(i: u32, columns: u32) -> vec4<f32> { return vec4<f32>(); }")
            .function("write_out8", format!("fn write_out8(row: u32, n: u32, x: Eight) {{ {write} }}"))
            .function("write_out4", write_out4(""))
    }
}

/// Whether sums that several panels add to have a buffer of their own: in the result they would be rounded.
fn has_sums(problem: &MatmulProblem) -> bool {
    problem.stage() == Stage::Result && problem.out != DType::F32
}

/// Bytes of that buffer: the result in f32, each row in whole quads.
fn sums_bytes(problem: &MatmulProblem) -> u64 {
    buffer_bytes(DType::F32, problem.products() * problem.m * problem.n.next_multiple_of(4))
}

/// The axis of b that words lie along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Along {
    K,
    N,
}

/// Eight words of b as squares.
fn load_b8x8(along: Along) -> String {
    let (from, to) = match along {
        Along::N => ("k", "n"),
        Along::K => ("n", "k"),
    };
    let steps = ["low.x", "low.y", "low.z", "low.w", "high.x", "high.y", "high.z", "high.w"];
    let words =
        steps.iter().enumerate().map(|(w, step)| format!("let w{w} = load_b8(i + {from}.{step} + {to}.low.x); "));
    let square = |first: usize, half: &str| {
        let lines: Vec<String> = (first..first + 4).map(|w| format!("w{w}.{half}")).collect();
        let square = format!("mat4x4<f32>({})", lines.join(", "));
        if along == Along::K { format!("transpose({square})") } else { square }
    };
    // Lower and higher rows of the left columns, then of the right ones.
    let squares = match along {
        Along::N => [square(0, "low"), square(4, "low"), square(0, "high"), square(4, "high")],
        Along::K => [square(0, "low"), square(0, "high"), square(4, "low"), square(4, "high")],
    };
    let (words, squares) = (words.collect::<String>(), squares.join(", "));
    format!("fn load_b8x8(i: u32, k: Places, n: Places) -> Square {{ {words}return Square({squares}); }}")
}

impl Variant<Setup<'_>> for Panel {
    fn name(&self) -> &'static str {
        self.name
    }

    fn rank(&self, setup: &Setup<'_>) -> u32 {
        match (setup.profile.kind, self.share) {
            (AdapterKind::Gpu, _) => 1000,
            (AdapterKind::Cpu, Share::Uniform) if setup.profile.shares_loads() && setup.problem.m > vec::ROWS => 30,
            (AdapterKind::Cpu, Share::Broadcast) if *self == BROADCAST => 50,
            (AdapterKind::Cpu, Share::Broadcast) if setup.problem.multiplications() >= LARGE => 40,
            (AdapterKind::Cpu, Share::Uniform | Share::Broadcast) => 60,
        }
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        self.reason.into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        let Setup { problem, profile } = setup;
        // The epilogue may have a loop of its own.
        let panels = problem.k.div_ceil(self.bk(setup)) + 1;
        let needs = setup.needs(panels * (LEAST_ROWS + ROUNDS))?;
        if profile.kind == AdapterKind::Gpu {
            return Err("for software adapters: its panel would not fit a GPU's registers".into());
        }
        if problem.k < self.least {
            return Err(format!("K = {}: for sums of {} terms and more", problem.k, self.least));
        }
        if *self == DEEP && BROADCAST.bk(setup) == DEEP.bk(setup) {
            return Err("panel is as deep".into());
        }
        match (self.share, profile.subgroup) {
            (Share::Uniform, _) | (Share::Broadcast, Some((4, 4) | (8, 8) | (16, 16))) => {}
            (Share::Broadcast, Some((least, most))) => {
                return Err(format!("takes subgroups of exactly 4, 8 or 16, and the device has {least} to {most}"));
            }
            (Share::Broadcast, None) => return Err("the device has no subgroup operations".into()),
        }
        let workspace = if has_sums(problem) { sums_bytes(problem) } else { needs.workspace };
        Ok(Needs { invocations: self.lanes(setup) as u64, workspace, ..needs })
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let Setup { problem, profile } = setup;
        let (lanes, bk) = (self.lanes(setup), self.bk(setup));
        // With subgroups of four (SwiftShader) two rows take twice as long as one after the other.
        let wide = profile.subgroup.is_some_and(|(least, _)| least >= 8);
        let sums = has_sums(problem);
        let several = problem.k > bk;
        let epilogue = problem.stage() == Stage::Result && problem.has_epilogue();
        let mut slots = self.operands(setup);
        if self.share == Share::Uniform {
            let fused =
                "fn sum(acc: vec4<f32>, x: f32, y: vec4<f32>) -> vec4<f32> { return fma(vec4<f32>(x), y, acc); }";
            slots = slots.function("sum", fused);
        }
        let slots = slots
            .value("LANES", lanes)
            .value("OWN", (bk / 8 / lanes).max(1))
            .value("SLICES", lanes.min(bk / 8))
            .value("ROWS", if wide && problem.m >= PAIRS { 2 } else { 1 })
            .region("BROADCAST", self.share == Share::Broadcast)
            .region("UNIFORM", self.share == Share::Uniform)
            .region("EPILOGUE", epilogue)
            .region("BIAS_ROWS", epilogue && problem.bias.is_some_and(|bias| bias.row != 0))
            .region("SUMS", sums)
            .region("AGAIN", several)
            // What no branch keeps from running in each panel.
            .region("APART", profile.masks_branches() && several && (sums || epilogue))
            .region("TAIL", !problem.k.is_multiple_of(bk))
            .trusted();
        let strips = problem.products() * problem.n.div_ceil(8 * lanes);
        let part = self.part(strips, setup);
        let mut kernel = setup.kernel(self.name, slots.source()?, problem.tiles(part, 8 * lanes), part)?;
        if sums {
            kernel.launches[0].bindings.push(Binding::write(Operand::Workspace(0)));
            kernel.workspace.push(sums_bytes(problem));
        }
        Ok(kernel)
    }
}
