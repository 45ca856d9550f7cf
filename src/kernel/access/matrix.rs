//! Matrices in memory.

use crate::Layout;

/// Where an operand's first matrix begins, and its strides from row to row and from column to column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Matrix {
    pub(in crate::kernel) offset: usize,
    pub(in crate::kernel) row: isize,
    pub(in crate::kernel) column: isize,
}

impl Matrix {
    /// The last two axes of a layout.
    pub(in crate::kernel) fn of(layout: &Layout) -> Self {
        let rows = layout.shape.rank() - 2;
        Matrix { offset: layout.offset, row: layout.strides[rows], column: layout.strides[rows + 1] }
    }

    /// The same elements, with rows for columns.
    pub(in crate::kernel) fn transposed(self) -> Self {
        Matrix { offset: self.offset, row: self.column, column: self.row }
    }
}
