use super::Shape;

/// The layout of a view in a buffer: element `i` is at `offset + Σ i[axis] · strides[axis]`.
///
/// Strides are in elements, may be 0 (broadcast) and may be negative (a slice that walks backwards). Permute, slice,
/// broadcast and most reshapes only change the layout; a kernel that takes strides then needs no copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// The sizes of the axes.
    pub shape: Shape,
    /// The step of each axis, in elements.
    pub strides: Vec<isize>,
    /// The index of the first element.
    pub offset: usize,
}

impl Layout {
    /// Dense, row-major, from the start of the buffer.
    pub fn contiguous(shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        let strides = shape.strides();
        Layout { shape, strides, offset: 0 }
    }

    /// Whether the elements lie densely in row-major order from the start of the buffer.
    pub fn is_contiguous(&self) -> bool {
        self.offset == 0 && self.is_dense()
    }

    /// Whether the elements lie densely in row-major order, wherever they start.
    pub fn is_dense(&self) -> bool {
        let dense = self.shape.strides();
        self.shape.contains(&0)
            || self.shape.iter().zip(self.strides.iter().zip(&dense)).all(|(&size, (a, b))| size == 1 || a == b)
    }

    /// The axes in another order: axis `i` of the result is axis `order[i]` of this one.
    pub fn permute(&self, order: &[usize]) -> Self {
        Layout {
            shape: order.iter().map(|&axis| self.shape[axis]).collect(),
            strides: order.iter().map(|&axis| self.strides[axis]).collect(),
            offset: self.offset,
        }
    }

    /// The same elements read as `shape`, by NumPy's broadcasting rule; the caller has checked that it applies.
    pub fn broadcast(&self, shape: &Shape) -> Self {
        let missing = shape.rank() - self.shape.rank();
        let strides = (0..shape.rank())
            .map(|axis| match axis.checked_sub(missing) {
                Some(i) if self.shape[i] == shape[axis] && shape[axis] != 1 => self.strides[i],
                _ => 0,
            })
            .collect();
        Layout { shape: shape.clone(), strides, offset: self.offset }
    }

    /// Every `steps[axis]`-th element from `starts[axis]`, `shape[axis]` of them.
    pub fn slice(&self, starts: &[usize], steps: &[isize], shape: &Shape) -> Self {
        if shape.contains(&0) {
            return Layout { shape: shape.clone(), strides: vec![0; shape.rank()], offset: 0 };
        }
        let start: isize = starts.iter().zip(&self.strides).map(|(&start, &stride)| start as isize * stride).sum();
        Layout {
            shape: shape.clone(),
            // A single element is not stepped from, whatever the step.
            strides: (self.strides.iter().zip(steps).zip(shape.iter()))
                .map(|((&stride, &step), &size)| if size > 1 { stride * step } else { 0 })
                .collect(),
            offset: (self.offset as isize + start) as usize,
        }
    }

    /// The same elements in the same order under another shape, if strides can say it; otherwise a copy is needed.
    pub fn reshape(&self, shape: &Shape) -> Option<Self> {
        if shape.contains(&0) {
            return Some(Layout { shape: shape.clone(), strides: shape.strides(), offset: self.offset });
        }
        let old: Vec<(usize, isize)> = self.merged();
        let mut strides = vec![0isize; shape.rank()];
        let mut groups = old.iter().rev();
        let (mut left, mut stride) = groups.next().copied().unwrap_or((1, 1));
        for axis in (0..shape.rank()).rev() {
            let size = shape[axis];
            if size == 1 {
                strides[axis] = stride;
                continue;
            }
            while left == 1 {
                (left, stride) = groups.next().copied()?;
            }
            if left % size != 0 {
                return None;
            }
            strides[axis] = stride;
            left /= size;
            stride *= size as isize;
        }
        (left == 1 && groups.next().is_none()).then(|| Layout { shape: shape.clone(), strides, offset: self.offset })
    }

    /// Axes as `(size, stride)`, outermost first, with axes of size 1 dropped and neighbours that one stride covers merged.
    /// A layout without elements is one empty axis.
    pub fn merged(&self) -> Vec<(usize, isize)> {
        if self.shape.contains(&0) {
            return vec![(0, 1)];
        }
        let mut axes: Vec<(usize, isize)> = Vec::with_capacity(self.shape.rank());
        for (&size, &stride) in self.shape.iter().zip(&self.strides) {
            if size == 1 {
                continue;
            }
            match axes.last_mut() {
                Some((outer, step)) if *step == stride * size as isize => {
                    *outer *= size;
                    *step = stride;
                }
                _ => axes.push((size, stride)),
            }
        }
        axes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices(layout: &Layout) -> Vec<isize> {
        let mut all = vec![layout.offset as isize];
        for (&size, &stride) in layout.shape.iter().zip(&layout.strides) {
            all = all.iter().flat_map(|&base| (0..size as isize).map(move |i| base + i * stride)).collect();
        }
        all
    }

    #[test]
    fn reshape_keeps_the_order_of_elements_or_refuses() {
        let base = Layout::contiguous([2, 3, 4]);
        for shape in [vec![24], vec![6, 4], vec![2, 12], vec![2, 1, 3, 2, 2], vec![1, 24, 1]] {
            let view = base.reshape(&shape.clone().into()).expect("dense");
            assert_eq!(indices(&view), indices(&base), "{shape:?}");
        }
        let turned = base.permute(&[1, 0, 2]);
        assert_eq!(turned.reshape(&[6, 4].into()), None);
        let split = turned.reshape(&[3, 2, 2, 2].into()).expect("only the last axis is split");
        assert_eq!(indices(&split), indices(&turned));
        let row = Layout::contiguous([4]).broadcast(&[3, 4].into());
        assert_eq!(row.reshape(&[12].into()), None);
        assert_eq!(indices(&row), [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn slice_walks_backwards() {
        let view = Layout::contiguous([2, 5]).slice(&[0, 4], &[1, -2], &[2, 3].into());
        assert_eq!(indices(&view), [4, 2, 0, 9, 7, 5]);
        assert!(!view.is_dense());
        assert!(Layout::contiguous([4, 5]).slice(&[1, 0], &[1, 1], &[2, 5].into()).is_dense());
    }

    #[test]
    fn merged_joins_what_one_stride_covers() {
        assert_eq!(Layout::contiguous([2, 1, 3, 4]).merged(), [(24, 1)]);
        assert_eq!(Layout::contiguous([2, 3, 4]).permute(&[1, 0, 2]).merged(), [(3, 4), (2, 12), (4, 1)]);
    }
}
