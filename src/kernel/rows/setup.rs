//! What a family of rows says of a problem.

use super::{
    super::{
        Kernel,
        variant::{self, Needs},
    },
    deal::Deal,
    shape::Rows,
};
use crate::Result;

/// A checked problem, on a device.
pub(in crate::kernel) trait RowSetup: variant::Setup {
    /// The rows.
    fn rows(&self) -> &Rows;

    /// The dispatches that deal each row as a whole.
    fn whole(&self, deal: Deal) -> Result<Kernel>;

    /// Into how many shares the split variant deals a row, and what it needs for that.
    fn shares(&self) -> (usize, Needs);

    /// The dispatches of the split variant.
    fn split(&self) -> Result<Kernel>;
}
