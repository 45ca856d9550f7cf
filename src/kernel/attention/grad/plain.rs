//! One row an invocation.

use super::setup::{Pass, Setup};
use crate::{
    Result,
    kernel::{
        AdapterKind, Kernel, Specialization,
        attention::{
            setup::Rank,
            storage::{Float, vec4s},
        },
        variant::{Needs, Variant},
    },
};

/// Rows, or elements, of a workgroup, as in the shaders.
const ROWS: usize = 64;
const PASSES: [Pass; 3] = [Pass::Rows(ROWS), Pass::Keys(ROWS), Pass::Elements(ROWS)];
/// With so few queries and keys a software adapter has no panel to fill.
const FEW: usize = 4;
/// What WGSL promises of variables.
const MOST_BYTES: usize = 8 << 10;

/// How `walk_rows.wesl` and `walk_keys.wesl` read, and how wide the rows are.
pub(super) fn reads(setup: &Setup<'_>, source: Specialization) -> Specialization {
    let sizes = &setup.attention.sizes;
    fours(setup, source).value("WIDEST", vec4s(sizes.d)).value("V_WIDEST", vec4s(sizes.dv))
}

/// Operands that are read by fours.
pub(super) fn fours(setup: &Setup<'_>, source: Specialization) -> Specialization {
    [Float::Q, Float::K, Float::V]
        .into_iter()
        .fold(setup.reads_dout(source), |source, operand| setup.attention.reads_four(source, operand))
}

/// The rounds of the loops of an invocation.
pub(super) fn rounds(setup: &Setup<'_>, pass: Pass) -> usize {
    let sizes = &setup.attention.sizes;
    // Entering a loop takes one too.
    let [d, dv] = [sizes.d, sizes.dv].map(|width| width.div_ceil(4) + 1);
    let once = 3 * (d + dv) + 64;
    match pass {
        Pass::Rows(_) => sizes.keys.div_ceil(4) * (2 * d + dv + 1) + once,
        Pass::Keys(_) => sizes.group() * (sizes.rows.div_ceil(4) * (2 * d + 2 * dv + 1) + 1) + once,
        Pass::Elements(_) => setup.shared().into_iter().product::<usize>() * (d + dv + 2) + 64,
    }
}

/// What the passes need.
pub(super) fn needs(setup: &Setup<'_>) -> Result<Needs, String> {
    let sizes = &setup.attention.sizes;
    let bytes = 32 * (vec4s(sizes.d) + vec4s(sizes.dv));
    if bytes > MOST_BYTES {
        let widest = setup.attention.widest();
        return Err(format!("rows of a head of {widest} take more than the {MOST_BYTES} bytes of an invocation"));
    }
    let needs = setup.needs(0)?;
    let passes = PASSES.into_iter().filter(|&pass| setup.has(pass));
    let rounds = passes.map(|pass| rounds(setup, pass)).max().unwrap_or(0);
    Ok(Needs { invocations: ROWS as u64, rounds: needs.rounds.max(rounds as u64), ..needs })
}

/// Adds the launch of the elements of a bias, if they have a gradient each.
pub(super) fn elements(setup: &Setup<'_>, kernel: &mut Kernel) -> Result<()> {
    let pass = Pass::Elements(ROWS);
    for outputs in setup.launches_of(pass, 0) {
        let source = fours(setup, setup.specialize("attention_grad::plain_bias", &outputs));
        kernel.launches.push(setup.launch("plain: bias", source, pass, &outputs, None)?);
    }
    Ok(())
}

#[derive(Debug)]
pub(super) struct Plain;

impl Variant<Setup<'_>> for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }

    fn rank(&self, setup: &Setup<'_>) -> u32 {
        let sizes = &setup.attention.sizes;
        let suits = setup.attention.profile.kind == AdapterKind::Cpu && sizes.keys.max(sizes.rows) <= FEW;
        (if suits { Rank::MadeForIt } else { Rank::General }) as u32
    }

    fn reason(&self, _: &Setup<'_>) -> String {
        "no workgroup memory, no features: runs everywhere".into()
    }

    fn needs(&self, setup: &Setup<'_>) -> Result<Needs, String> {
        needs(setup)
    }

    fn kernel(&self, setup: &Setup<'_>) -> Result<Kernel> {
        let mut kernel = setup.begin()?;
        for (pass, label, module) in [
            (Pass::Rows(ROWS), "plain: queries", "attention_grad::plain_rows"),
            (Pass::Keys(ROWS), "plain: keys", "attention_grad::plain_keys"),
        ] {
            for outputs in setup.launches_of(pass, 0) {
                let source = reads(setup, setup.specialize(module, &outputs));
                kernel.launches.push(setup.launch(label, source, pass, &outputs, None)?);
            }
        }
        elements(setup, &mut kernel)?;
        Ok(kernel)
    }
}
