//! What kernels have in common that write their output block by block, each of four elements (`shaders/shared/blocks.wesl`):
//! copies, chains of pointwise functions, gathers.

use super::{
    AdapterKind, Binding, Launch, Parameters, Profile, Specialization,
    access::{
        bits::{LANES, Word, block, pack},
        strided::Words,
    },
    fold_grid,
    variant::{Needs, Only},
};
use crate::{DType, Result};

/// Invocations of a workgroup.
const WORKGROUP: u64 = 256;
/// Blocks of an invocation, the most.
const MOST_BLOCKS: usize = 8;

/// The one variant of a family whose kernel is such a one.
pub(super) const fn only(family: &'static str) -> Only {
    Only { family, reason: "each invocation writes whole blocks of four elements" }
}

/// What a kernel needs of the device that binds so many buffers.
pub(super) fn needs(buffers: usize) -> Needs {
    Needs { invocations: WORKGROUP, buffers: buffers as u64, ..Needs::default() }
}

/// Whether an output is so large that the invocations of a software adapter take several blocks.
pub(super) fn is_long(elements: usize, profile: &Profile) -> bool {
    profile.kind == AdapterKind::Cpu && elements as u64 >= LANES as u64 * MOST_BLOCKS as u64 * 8 * WORKGROUP
}

/// Blocks that an invocation writes, each from so many loads.
///
/// A software adapter takes as long to begin eight invocations as to load and store a block in each, and compiles for some
/// milliseconds a load.
fn unroll(elements: usize, loads: usize, profile: &Profile) -> usize {
    const LOADS: usize = 32;
    if is_long(elements, profile) {
        (LOADS / loads.max(1)).clamp(1, MOST_BLOCKS)
    } else {
        // Coalesced, and as many invocations as there can be; or too few to go round on a software adapter.
        1
    }
}

/// A dispatch that writes an output block by block.
pub(super) struct Blocks<'a> {
    pub(super) family: &'static str,
    pub(super) label: &'a str,
    /// Lacks the slots of `blocks.wesl`.
    pub(super) source: Specialization,
    pub(super) bindings: Vec<Binding>,
    pub(super) words: Words,
    /// Of the output.
    pub(super) dtype: DType,
    pub(super) elements: usize,
    /// What blocks are written in.
    pub(super) word: Word,
    /// Loads for a block.
    pub(super) loads: usize,
    pub(super) flops: u64,
    pub(super) bytes: u64,
}

impl Blocks<'_> {
    pub(super) fn launch(self, profile: &Profile) -> Result<Launch> {
        let Blocks { family, label, source, bindings, words, dtype, elements, word, loads, flops, bytes } = self;
        let blocks = elements.div_ceil(LANES);
        let unroll = unroll(elements, loads, profile);
        let source = source
            .ty("block", block(dtype, word))
            .function("pack", pack(dtype, word))
            .value("WORDS", words.vectors())
            .value("UNROLL", unroll)
            .source()?;
        let params = Parameters::new()
            .set("blocks", blocks)
            .set("last", elements.saturating_sub(1))
            .set_words("words", words.padded());
        Ok(Launch {
            label: label.into(),
            params: source.words(&params)?,
            source,
            bindings,
            grid: fold_grid((blocks as u64).div_ceil(WORKGROUP * unroll as u64), profile, family)?,
            flops,
            exponentials: 0,
            bytes,
        })
    }
}
