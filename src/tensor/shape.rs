use std::{fmt, ops::Deref};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The sizes of a tensor's axes, outermost first. A scalar has none; a size may be 0.
///
/// ```
/// use tilewise::Shape;
/// let shape = Shape::from([2, 3, 4]);
/// assert_eq!(shape.elements(), Some(24));
/// assert_eq!(shape.broadcast(&Shape::from([3, 1])), Some(Shape::from([2, 3, 4])));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shape(Vec<usize>);

impl Shape {
    /// The shape of a single number: no axes.
    pub const SCALAR: Shape = Shape(Vec::new());

    /// A shape with these sizes.
    pub fn new(sizes: impl Into<Vec<usize>>) -> Self {
        Shape(sizes.into())
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// The number of elements, or `None` if it does not fit a `usize`.
    pub fn elements(&self) -> Option<usize> {
        if self.0.contains(&0) {
            return Some(0);
        }
        self.0.iter().try_fold(1usize, |product, &size| product.checked_mul(size))
    }

    /// The number of elements, if 32-bit indices can reach them all.
    ///
    /// ```
    /// use tilewise::Shape;
    /// assert_eq!(Shape::from([2, 3]).checked_elements("example")?, 6);
    /// let error = Shape::from([1 << 16, 1 << 16]).checked_elements("example").unwrap_err();
    /// assert!(error.to_string().starts_with("example: elements of [65536, 65536]"));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Limit`] if there are more than 2³¹ − 1 elements, or would be if the empty axes had one: sizes and strides
    /// are products of some of the axes, whatever the others are. [`Error::Op`] if that number overflows a `usize`. The
    /// message begins with `op`.
    pub fn checked_elements(&self, op: &str) -> Result<usize> {
        const LIMIT: usize = i32::MAX as usize;
        let empty = self.0.contains(&0);
        let beside = if empty { " beside its empty axes" } else { "" };
        match self.0.iter().filter(|&&size| size != 0).try_fold(1usize, |product, &size| product.checked_mul(size)) {
            Some(n) if n <= LIMIT => Ok(if empty { 0 } else { n }),
            Some(n) => Err(Error::Limit {
                what: format!("{op}: elements of {self}{beside} (indices are 32-bit)"),
                value: n as u64,
                limit: LIMIT as u64,
                hint: "split the tensor".into(),
            }),
            None => Err(Error::op(
                op,
                format!(
                    "{self} has more elements{beside} than can be counted; the limit is {LIMIT} (indices are 32-bit)"
                ),
            )),
        }
    }

    /// The common shape of two operands by NumPy's rule: aligned from the right, and a size of 1 stretches.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let rank = self.rank().max(other.rank());
        let size = |s: &Shape, axis: usize| (axis + s.rank()).checked_sub(rank).map_or(1, |i| s.0[i]);
        (0..rank)
            .map(|axis| match (size(self, axis), size(other, axis)) {
                (a, b) if a == b => Some(a),
                (1, b) => Some(b),
                (a, 1) => Some(a),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(Shape)
    }

    /// Whether a tensor of this shape can be read as one of shape `target`, by NumPy's rule.
    pub fn broadcasts_to(&self, target: &Shape) -> bool {
        self.broadcast(target).as_ref() == Some(target)
    }

    /// Strides of a dense row-major tensor, in elements.
    pub fn strides(&self) -> Vec<isize> {
        let mut strides = vec![1isize; self.rank()];
        for axis in (0..self.rank().saturating_sub(1)).rev() {
            // No tensor has a shape whose strides don't fit (`checked_elements`).
            strides[axis] = strides[axis + 1].saturating_mul(self.0[axis + 1].max(1) as isize);
        }
        strides
    }

    /// The number of an axis that may be counted from the end: −1 is the last.
    ///
    /// ```
    /// use tilewise::Shape;
    /// assert_eq!(Shape::from([2, 3, 4]).axis("example", -1)?, 2);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if there is no such axis. The message begins with `op`.
    pub fn axis(&self, op: &str, axis: isize) -> Result<usize> {
        let rank = self.rank() as isize;
        if (-rank..rank).contains(&axis) {
            Ok((if axis < 0 { axis + rank } else { axis }) as usize)
        } else {
            Err(Error::op(op, format!("axis {axis} is out of range for {self} (rank {rank})")))
        }
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl From<Vec<usize>> for Shape {
    fn from(sizes: Vec<usize>) -> Self {
        Shape(sizes)
    }
}

impl From<&[usize]> for Shape {
    fn from(sizes: &[usize]) -> Self {
        Shape(sizes.to_vec())
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(sizes: [usize; N]) -> Self {
        Shape(sizes.to_vec())
    }
}

impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Self {
        shape.clone()
    }
}

impl FromIterator<usize> for Shape {
    fn from_iter<I: IntoIterator<Item = usize>>(sizes: I) -> Self {
        Shape(sizes.into_iter().collect())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[")?;
        for (i, size) in self.0.iter().enumerate() {
            write!(f, "{}{size}", if i > 0 { ", " } else { "" })?;
        }
        write!(f, "]")
    }
}
