//! What is asked for: operands, sizes and the epilogue, checked and folded.

use crate::{
    DType, Error, Layout, Result, Shape,
    graph::Unary,
    kernel::access::{axes::Axis, matrix::Matrix, narrow::check_floats},
    quantize::Packing,
};

/// `out = activation(scale · (a · b) + bias) + residual`.
///
/// Operands and result are f32 unless [`MatmulProblem::stored_as`] says otherwise; sums are f32 in any case.
///
/// Inputs in order: `a [batch… M K]`, `b [batch… K N]`, then the bias and the residual if the epilogue has them. The one
/// output is `[batch… M N]`, dense. Batch axes broadcast by NumPy's rule. A transposed operand, permuted heads, a slice
/// or any other view is said by the strides of its layout and costs nothing.
///
/// Over `K = 0` the product is 0, and the epilogue applies. An empty result dispatches nothing.
///
/// ```
/// use tilewise::{Layout, Shape};
/// use tilewise::kernel::{Epilogue, MatmulProblem, Problem};
///
/// // x [4, 10, 64] · wᵀ with w [32, 64], as a linear layer has it: one product of 40 rows.
/// let w = Layout::contiguous([32, 64]).permute(&[1, 0]);
/// let bias = Epilogue { bias: Some(Layout::contiguous([32])), ..Epilogue::default() };
/// let linear = MatmulProblem::new(&Layout::contiguous([4, 10, 64]), &w, bias)?;
/// assert_eq!(linear.output_shape(), &Shape::from([4, 10, 32]));
/// assert_eq!(linear.summary(), "M=40 N=32 K=64 +bias");
/// # Ok::<(), tilewise::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MatmulProblem {
    pub(super) shape: Shape,
    /// Rows of a product.
    pub(super) m: usize,
    /// Columns of a product.
    pub(super) n: usize,
    /// Length of the axis that is summed.
    pub(super) k: usize,
    /// Axes of separate products, outermost first.
    pub(super) batch: Vec<Axis<4>>,
    pub(super) a: Matrix,
    pub(super) b: Matrix,
    pub(super) bias: Option<Matrix>,
    pub(super) residual: Option<Matrix>,
    pub(super) scale: f32,
    pub(super) activation: Option<Unary>,
    /// The inputs that a and b are.
    pub(super) factors: [usize; 2],
    /// Distinct elements of a, b, bias and residual.
    pub(super) reads: [usize; 4],
    /// The dtypes of a, b, bias and residual.
    pub(super) dtypes: [DType; 4],
    /// The dtype of the result.
    pub(super) out: DType,
    /// How b lies in few bits, if it does.
    pub(super) quantized: Option<Quantized>,
}

/// How a b of few bits lies, and the dtype of its scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quantized {
    pub(super) packing: Packing,
    pub(super) scales: DType,
}

/// The dtypes in which the operands and the result of a [`MatmulProblem`] lie in memory: f32, f16 or bf16, each its own.
/// A kernel widens what it reads and rounds what it writes, once, to the nearest, halves to even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MatmulDTypes {
    /// Of a.
    pub a: DType,
    /// Of b.
    pub b: DType,
    /// Of the bias, if there is one.
    pub bias: DType,
    /// Of the residual, if there is one.
    pub residual: DType,
    /// Of the result.
    pub out: DType,
}

impl MatmulDTypes {
    /// The same for all.
    pub fn all(dtype: DType) -> Self {
        MatmulDTypes { a: dtype, b: dtype, bias: dtype, residual: dtype, out: dtype }
    }
}

/// What a matmul does to each element of the product before it is written: `activation(scale · x + bias) + residual`.
#[derive(Clone, Debug, Default)]
pub struct Epilogue {
    /// Factor on the product.
    pub scale: Option<f32>,
    /// Added to the scaled product; broadcasts to the result from the right (`[N]` as a rule).
    pub bias: Option<Layout>,
    /// Applied to the sum.
    pub activation: Option<Unary>,
    /// Added last; broadcasts to the result from the right.
    pub residual: Option<Layout>,
}

/// Places in [`Axis::strides`], and wherever there is something for each operand.
pub(super) const A: usize = 0;
pub(super) const B: usize = 1;
pub(super) const BIAS: usize = 2;
pub(super) const RESIDUAL: usize = 3;

impl MatmulProblem {
    /// Checks the operands' shapes and folds what can be folded: neighbouring batch axes that one stride covers are one
    /// axis, and batch axes that share `b` are further rows of one product.
    ///
    /// # Errors
    /// [`Error::Op`] if the operands' shapes don't fit, or if bias or residual does not broadcast to the result;
    /// [`Error::Limit`] if that has more than 2³¹ − 1 elements.
    pub fn new(a: &Layout, b: &Layout, epilogue: Epilogue) -> Result<Self> {
        let (&[ref a_batch @ .., m, k], &[ref b_batch @ .., b_k, n]) = (&a.shape[..], &b.shape[..]) else {
            return Err(mismatch(format!("a {} and b {}: both need at least two axes", a.shape, b.shape)));
        };
        if k != b_k {
            return Err(mismatch(format!(
                "a {} has {k} columns, b {} has {b_k} rows; they must agree",
                a.shape, b.shape
            )));
        }
        let Some(batch) = Shape::from(a_batch).broadcast(&b_batch.into()) else {
            return Err(mismatch(format!("the batch axes of a {} and b {} don't broadcast", a.shape, b.shape)));
        };
        let with = |tail: [usize; 2]| Shape::from([&batch[..], &tail].concat());
        let shape = with([m, n]);
        shape.checked_elements("matmul")?;
        let Epilogue { scale, bias, activation, residual } = epilogue;
        let on_result = |name: &str, layout: Option<Layout>| match layout {
            Some(layout) if !layout.shape.broadcasts_to(&shape) => {
                Err(mismatch(format!("the {name} {} does not broadcast to the result {shape}", layout.shape)))
            }
            layout => Ok(layout.map(|layout| layout.broadcast(&shape))),
        };
        let (a, b) = (a.broadcast(&with([m, k])), b.broadcast(&with([k, n])));
        let bias = on_result("bias", bias)?;
        let residual = on_result("residual", residual)?;
        let distinct = |layout: &Layout| -> usize {
            layout
                .shape
                .iter()
                .zip(&layout.strides)
                .map(|(&size, &stride)| if stride == 0 { 1 } else { size })
                .product()
        };
        let reads = [Some(&a), Some(&b), bias.as_ref(), residual.as_ref()].map(|layout| layout.map_or(0, distinct));

        // The axes of the result but the last. The rows of a product share its b.
        let rows = batch.rank();
        let (mut of_b, none) = (b.strides.clone(), vec![0; shape.rank()]);
        of_b[rows] = 0;
        let [of_bias, of_residual] = [&bias, &residual].map(|layout| layout.as_ref().map_or(&none, |x| &x.strides));
        let strides: [&[isize]; 4] = [&a.strides, &of_b, of_bias, of_residual];
        let mut axes = Axis::merged(&shape[..=rows], strides);
        axes.retain(|axis| axis.size != 1);
        let inner = axes.pop_if(|inner| inner.strides[B] == 0);
        let rows = inner.unwrap_or(Axis { size: m, strides: strides.map(|strides| strides[rows]) });
        let with_rows = |view: Matrix, operand: usize| Matrix { row: rows.strides[operand], ..view };
        let mut problem = MatmulProblem {
            m: rows.size,
            n,
            k,
            batch: axes,
            a: with_rows(Matrix::of(&a), A),
            b: Matrix::of(&b),
            bias: bias.as_ref().map(|bias| with_rows(Matrix::of(bias), BIAS)),
            residual: residual.as_ref().map(|residual| with_rows(Matrix::of(residual), RESIDUAL)),
            scale: scale.unwrap_or(1.0),
            activation,
            factors: [0, 1],
            reads,
            dtypes: [DType::F32; 4],
            out: DType::F32,
            quantized: None,
            shape,
        };
        if problem.n == 1 && problem.m > 1 {
            problem.transpose();
        }
        Ok(problem)
    }

    /// The problem with operands and a result of these dtypes in memory.
    ///
    /// # Errors
    /// [`Error::Op`] if one is no float.
    pub fn stored_as(mut self, dtypes: MatmulDTypes) -> Result<Self> {
        let MatmulDTypes { a, b, bias, residual, out } = dtypes;
        check_floats("matmul", [("a", a), ("b", b), ("bias", bias), ("residual", residual), ("out", out)])?;
        let [first, second] = if self.factors == [0, 1] { [a, b] } else { [b, a] };
        (self.dtypes, self.out) = ([first, second, bias, residual], out);
        Ok(self)
    }

    /// The problem with a b of few bits: `bᵀ [N, K]` lies as the packing says. Its words are input 1, and its scales and
    /// (if it has them) zero points the next inputs, before bias and residual. All are dense.
    ///
    /// # Errors
    /// If b has batch axes, lies in another way than the transposed dense `[N, K]`, or is not of the packing's columns.
    pub fn quantized(mut self, packing: Packing, scales: DType) -> Result<Self> {
        packing.check()?;
        if !scales.is_float() {
            return Err(Error::dtype("matmul", "scale", scales, "f32, f16 or bf16"));
        }
        if self.factors != [0, 1] {
            self.transpose(); // Few bits are read as b.
        }
        let dense = Matrix { offset: 0, row: 1, column: self.k as isize };
        let shared = self.batch.iter().all(|axis| axis.strides[B] == 0);
        // A step along an axis of one element, or of none, is never taken.
        let lies =
            (self.k <= 1 || self.b.row == dense.row) && (self.n <= 1 || self.k == 0 || self.b.column == dense.column);
        if !shared || packing.columns != self.k || self.b.offset != 0 || !lies {
            return Err(mismatch(format!(
                "b of few bits is [{}, {}] transposed, dense and without batch axes; this one is [{}, {}] with steps of {} \
                 and {}",
                self.n, packing.columns, self.n, self.k, self.b.column, self.b.row
            )));
        }
        self.b = Matrix { column: packing.pitch() as isize, ..dense };
        self.reads[B] = 0;
        self.quantized = Some(Quantized { packing, scales });
        Ok(self)
    }

    /// Bytes of the distinct elements of operands and result.
    pub(super) fn bytes(&self) -> u64 {
        let read: usize = self.reads.iter().zip(self.dtypes).map(|(n, dtype)| n * dtype.bytes()).sum();
        let packed = self.quantized.map_or(0, |b| b.packing.bytes(self.n, b.scales));
        (read + self.elements() * self.out.bytes()) as u64 + packed
    }

    /// The shape of the result.
    pub fn output_shape(&self) -> &Shape {
        &self.shape
    }

    /// Computes `outᵀ = bᵀ·aᵀ`. A result of one column lies like one of one row, so that a matrix times a vector is a
    /// vector times a matrix.
    fn transpose(&mut self) {
        (self.m, self.n) = (self.n, self.m);
        (self.a, self.b) = (self.b.transposed(), self.a.transposed());
        self.factors.swap(0, 1);
        self.reads.swap(A, B);
        self.bias = self.bias.map(Matrix::transposed);
        self.residual = self.residual.map(Matrix::transposed);
        self.batch.iter_mut().for_each(|axis| axis.strides.swap(A, B));
    }

    /// Whether b is dense along k, as the weights of a linear layer are.
    pub(super) fn b_dense_by_k(&self) -> bool {
        self.b.row == 1
    }

    /// Whether anything is done to a sum before it is the result.
    pub(super) fn has_epilogue(&self) -> bool {
        let by_column = self.quantized.is_some_and(|b| b.packing.group.is_none());
        let options = self.bias.is_some() || self.residual.is_some() || self.activation.is_some();
        self.scale != 1.0 || by_column || options
    }

    /// Elements of the result.
    pub(super) fn elements(&self) -> usize {
        self.products() * self.m * self.n
    }

    /// Multiplications of all sums.
    pub(super) fn multiplications(&self) -> u64 {
        self.elements() as u64 * self.k as u64
    }

    /// Tiles of so many rows and columns, of all products.
    pub(super) fn tiles(&self, rows: usize, columns: usize) -> usize {
        self.products() * self.m.div_ceil(rows) * self.n.div_ceil(columns)
    }

    /// The number of separate products.
    pub(super) fn products(&self) -> usize {
        self.batch.iter().map(|axis| axis.size).product()
    }
}

fn mismatch(message: String) -> Error {
    Error::op("matmul", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Problem;

    fn summary(a: &Layout, b: &Layout, epilogue: Epilogue) -> String {
        MatmulProblem::new(a, b, epilogue).expect("the shapes fit").summary()
    }

    #[test]
    fn batch_axes_fold_into_rows_where_b_is_shared() {
        let dense = |shape: &[usize]| Layout::contiguous(shape);
        let plain = Epilogue::default;
        assert_eq!(summary(&dense(&[2, 3, 4, 5]), &dense(&[5, 6]), plain()), "M=24 N=6 K=5");
        assert_eq!(summary(&dense(&[2, 3, 4, 5]), &dense(&[2, 1, 5, 6]), plain()), "batch=2 M=12 N=6 K=5");
        assert_eq!(summary(&dense(&[2, 3, 4, 5]), &dense(&[3, 5, 6]), plain()), "batch=6 M=4 N=6 K=5");
        assert_eq!(summary(&dense(&[4, 5]), &dense(&[3, 5, 6]), plain()), "batch=3 M=4 N=6 K=5");
        // Rows of a that no stride covers, and a bias for each product, keep the products apart.
        assert_eq!(summary(&dense(&[4, 2, 5]).permute(&[1, 0, 2]), &dense(&[5, 6]), plain()), "batch=2 M=4 N=6 K=5");
        let bias = Epilogue { bias: Some(dense(&[2, 1, 6])), ..plain() };
        assert_eq!(summary(&dense(&[2, 4, 5]), &dense(&[5, 6]), bias), "batch=2 M=4 N=6 K=5 +bias");
        // One row each: the products of a batch are the rows.
        assert_eq!(
            summary(&dense(&[2, 3, 1, 5]).permute(&[1, 0, 2, 3]), &dense(&[5, 6]), plain()),
            "batch=3 M=2 N=6 K=5"
        );
        assert_eq!(summary(&dense(&[7, 1, 5]), &dense(&[5, 6]), plain()), "M=7 N=6 K=5");
    }

    #[test]
    fn a_single_column_is_computed_as_a_row() {
        let problem = MatmulProblem::new(
            &Layout::contiguous([3, 4, 5]),
            &Layout::contiguous([5, 1]),
            Epilogue { bias: Some(Layout::contiguous([3, 4, 1])), ..Epilogue::default() },
        )
        .expect("the shapes fit");
        assert_eq!(problem.summary(), "M=1 N=12 K=5 +bias");
        assert_eq!(
            (problem.a, problem.b),
            (Matrix { offset: 0, row: 0, column: 1 }, Matrix { offset: 0, row: 1, column: 5 })
        );
        assert_eq!(problem.bias, Some(Matrix { offset: 0, row: 0, column: 1 }));
    }

    #[test]
    fn errors_name_the_operands() {
        let message = |a: &[usize], b: &[usize], bias: &[usize]| {
            let bias = Epilogue { bias: Some(Layout::contiguous(bias)), ..Epilogue::default() };
            MatmulProblem::new(&Layout::contiguous(a), &Layout::contiguous(b), bias)
                .expect_err("must be refused")
                .to_string()
        };
        assert_eq!(message(&[4], &[4, 2], &[2]), "matmul: a [4] and b [4, 2]: both need at least two axes");
        assert_eq!(
            message(&[3, 4], &[5, 2], &[2]),
            "matmul: a [3, 4] has 4 columns, b [5, 2] has 5 rows; they must agree"
        );
        assert_eq!(
            message(&[2, 3, 4], &[3, 4, 2], &[2]),
            "matmul: the batch axes of a [2, 3, 4] and b [3, 4, 2] don't broadcast"
        );
        assert_eq!(message(&[3, 4], &[4, 2], &[3]), "matmul: the bias [3] does not broadcast to the result [3, 2]");
    }
}
