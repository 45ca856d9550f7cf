//! What the families that reduce each row of a matrix have in common: which elements are loaded together, how rows are dealt
//! to invocations, and the variants. A family says what its rows are, and makes dispatches of a deal; a variant is a file here.

mod deal;
mod pack;
mod plain;
mod setup;
mod shape;
mod split;
mod stage;
mod subgroup;
mod workgroup;

use super::{
    Candidate, Kernel,
    variant::{self, Variant},
};
use crate::Result;

pub(super) use deal::Deal;
pub(super) use pack::{PACKED_LARGEST, PACKED_TOTAL, Pack};
pub(super) use setup::RowSetup;
pub(super) use shape::{Rows, most_rounds_in_blocks, rounds, rounds_in_blocks};
pub(super) use split::{MERGE, SHARES};
pub(super) use stage::{Stage, Staged};

/// Every variant.
///
/// Ranks: 0 for few long rows in shares; then 1 to 4 for whole rows, by how well a deal suits the device and the layout; 5 for
/// shares that nothing speaks for.
fn variants<'a, S: RowSetup + 'a>() -> [&'a dyn Variant<S>; 4] {
    [&plain::Plain, &workgroup::Workgroup, &subgroup::Subgroup, &split::Split]
}

/// Every variant with a verdict, those that can run first, in order of preference.
pub(super) fn candidates<S: RowSetup>(setup: Result<S>) -> Vec<Candidate> {
    match setup {
        Ok(setup) => {
            let mut all = variant::candidates(&variants(), &setup);
            all.sort_by_key(|candidate| !candidate.is_usable());
            all
        }
        Err(fault) => variant::refused::<S>(&variants(), &fault),
    }
}

/// The dispatches of the variant of this name.
pub(super) fn kernel<S: RowSetup>(setup: Result<S>, variant: &str) -> Result<Kernel> {
    variant::kernel(&variants(), variant, &setup?)
}
