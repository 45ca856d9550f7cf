//! Vectors of elements that lie side by side.

use super::super::access::axes::Axis;

/// What a vector of elements is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Pack {
    /// One row.
    Along,
    /// Rows that lie side by side.
    Across,
}

impl Pack {
    /// Elements of a vector.
    pub(in crate::kernel) const ELEMENTS: usize = 4;

    /// What vectors are of, given the axes of rows and those along a row, outermost first; `None` where no vectors fit.
    pub(in crate::kernel) fn of<const N: usize>(kept: &[Axis<N>], reduced: &[Axis<N>], offset: usize) -> Option<Self> {
        let fits = |pack: &Pack| pack.fits(Pack::ELEMENTS, kept, reduced, offset);
        [Pack::Along, Pack::Across].into_iter().find(fits)
    }

    /// Whether vectors of `width` elements fit: along their axis all strides are 1, and all else is whole vectors.
    pub(in crate::kernel) fn fits<const N: usize>(
        self,
        width: usize,
        kept: &[Axis<N>],
        reduced: &[Axis<N>],
        offset: usize,
    ) -> bool {
        let (along, others) = match self {
            Pack::Along => (reduced, kept),
            Pack::Across => (kept, reduced),
        };
        along.split_last().is_some_and(|(last, outer)| {
            last.strides == [1; N]
                && last.size.is_multiple_of(width)
                && offset.is_multiple_of(width)
                && outer.iter().chain(others).all(|axis| axis.steps_whole(width))
        })
    }

    /// Counts the axes in vectors, which fit.
    pub(in crate::kernel) fn count<const N: usize>(self, width: usize, kept: &mut [Axis<N>], reduced: &mut [Axis<N>]) {
        kept.iter_mut().chain(&mut *reduced).for_each(|axis| axis.in_vectors(width));
        let along = match self {
            Pack::Along => reduced,
            Pack::Across => kept,
        };
        if let Some(last) = along.last_mut() {
            last.size /= width;
        }
    }
}

/// The slot `total` for packed elems.
pub(in crate::kernel) const PACKED_TOTAL: &str = "fn total(v: elem) -> f32 { return (v.x + v.y) + (v.z + v.w); }";

/// The slot `largest` for packed elems.
pub(in crate::kernel) const PACKED_LARGEST: &str =
    "fn largest(v: elem) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }";
