//! Axes that several operands walk together.

use super::super::Parameters;

/// An axis, and how far a step along it is in each of N operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Axis<const N: usize> {
    pub(in crate::kernel) size: usize,
    pub(in crate::kernel) strides: [isize; N],
}

impl<const N: usize> Axis<N> {
    /// The axes of a shape, outermost first: none of size 1, and neighbours are one axis where one stride covers both in
    /// each operand. At least one: that of a single element has size 1.
    pub(in crate::kernel) fn merged(shape: &[usize], strides: [&[isize]; N]) -> Vec<Self> {
        let mut axes: Vec<Self> = Vec::with_capacity(shape.len());
        for (i, &size) in shape.iter().enumerate().filter(|(_, size)| **size != 1) {
            let strides = strides.map(|strides| strides[i]);
            match axes.last_mut() {
                Some(outer) if outer.covers(size, strides) => {
                    *outer = Axis { size: outer.size * size, strides };
                }
                _ => axes.push(Axis { size, strides }),
            }
        }
        if axes.is_empty() {
            axes.push(Axis { size: 1, strides: [0; N] });
        }
        axes
    }

    fn covers(&self, size: usize, strides: [isize; N]) -> bool {
        self.strides.iter().zip(strides).all(|(&outer, inner)| outer == inner * size as isize)
    }

    /// Whether a step along it is whole vectors of `width` elements in each operand.
    pub(in crate::kernel) fn steps_whole(&self, width: usize) -> bool {
        self.strides.iter().all(|stride| stride % width as isize == 0)
    }

    /// Counts its strides in vectors of `width` elements. The axis along which they lie keeps its stride of 1.
    pub(in crate::kernel) fn in_vectors(&mut self, width: usize) {
        let width = width as isize;
        self.strides = self.strides.map(|stride| if stride % width == 0 { stride / width } else { stride });
    }

    /// The parameters of axes, outermost first, of operands with these names: `x_OUTERMOST`, the stride of the outermost axis,
    /// and of the others, innermost first, `size_I0` and `x_I0`, `size_I1` and `x_I1`, …
    pub(in crate::kernel) fn parameters(
        axes: &[Self],
        operands: [&str; N],
        outermost: &str,
        index: &str,
    ) -> Parameters {
        let mut all = Parameters::new();
        let Some((first, others)) = axes.split_first() else { return all };
        for (operand, stride) in operands.iter().zip(first.strides) {
            all = all.set(format!("{operand}_{outermost}"), stride);
        }
        for (i, axis) in others.iter().rev().enumerate() {
            all = all.set(format!("size_{index}{i}"), axis.size);
            for (operand, stride) in operands.iter().zip(axis.strides) {
                all = all.set(format!("{operand}_{index}{i}"), stride);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_merge_where_one_stride_covers_both_in_every_operand() {
        let axes = Axis::merged(&[2, 3, 1, 4], [&[12, 4, 9, 1], &[0, 0, 0, 1]]);
        assert_eq!(axes, [Axis { size: 6, strides: [4, 0] }, Axis { size: 4, strides: [1, 1] }]);
        assert_eq!(Axis::merged(&[2, 3], [&[-3, -1]]), [Axis { size: 6, strides: [-1] }]);
        assert_eq!(Axis::merged(&[1, 1], [&[7, 7]]), [Axis { size: 1, strides: [0] }]);
        let parameters = Parameters::new().set("x_row", 4usize).set("y_row", 0usize);
        let parameters = parameters.set("size_r0", 4usize).set("x_r0", 1usize).set("y_r0", 1usize);
        assert_eq!(Axis::parameters(&axes, ["x", "y"], "row", "r"), parameters);
    }
}
