//! Axes that several operands walk together.

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

    /// The words of a uniform block: the strides of the outermost axis, then size and strides of the others, innermost
    /// first. Indices are sums modulo 2³², so that negative strides need no sign.
    pub(in crate::kernel) fn words(axes: &[Self]) -> (Vec<u32>, Vec<u32>) {
        let strides = |axis: &Self| axis.strides.map(|stride| stride as u32);
        let outermost = axes.first().map_or_else(Vec::new, |axis| strides(axis).to_vec());
        let others = axes.iter().skip(1).rev();
        (outermost, others.flat_map(|axis| [axis.size as u32].into_iter().chain(strides(axis))).collect())
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
        assert_eq!(Axis::words(&axes), (vec![4, 0], vec![4, 1, 1]));
    }
}
