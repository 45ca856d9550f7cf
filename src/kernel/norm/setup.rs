//! A norm that holds together, with its axes merged.

use super::{
    super::{
        Profile,
        access::{axes::Axis, elems::Elems, narrow::check_floats},
        rows::{Pack, Rows, rounds_in_blocks},
        variant,
    },
    problem::{NormKind, NormProblem},
};
use crate::{Error, Layout, Result};

/// A checked [`NormProblem`] on a device.
pub(super) struct Setup<'a> {
    pub(super) problem: &'a NormProblem,
    pub(super) profile: &'a Profile,
    pub(super) merged: Merged,
}

/// The axes of a norm.
pub(super) struct Merged {
    pub(super) rows: Rows,
    /// Elements of a row.
    pub(super) width: usize,
    /// Strides in x and residual, in elems.
    pub(super) leading: Vec<Axis<2>>,
    /// Strides in x, residual, weight and bias, in elems.
    pub(super) trailing: Vec<Axis<4>>,
    /// First elems of x, residual, weight and bias.
    pub(super) offsets: [usize; 4],
}

impl variant::Setup for Setup<'_> {
    const FAMILY: &'static str = NormProblem::FAMILY;

    fn profile(&self) -> &Profile {
        self.profile
    }
}

impl<'a> Setup<'a> {
    pub(super) fn new(problem: &'a NormProblem, profile: &'a Profile) -> Result<Self> {
        let merged = Merged::new(problem)?;
        match problem.in_place {
            Some(input) if !merged.fits_in_place(problem, input) => {
                let message = format!(
                    "y can't share the buffer of input {input}: it has to be x or residual, dense, \
                                       and stored in the width of y"
                );
                Err(Error::op(NormProblem::FAMILY, message))
            }
            Some(_) | None => Ok(Setup { problem, profile, merged }),
        }
    }
}

impl Merged {
    /// Of a problem, but for what it does in place.
    pub(super) fn new(problem: &NormProblem) -> Result<Self> {
        const FAMILY: &str = NormProblem::FAMILY;
        let NormProblem { kind, axes, epsilon, x, residual, weight, bias, .. } = problem;
        let fault = |message: String| Err(Error::op(FAMILY, message));
        let shape = &x.shape;
        let rank = shape.rank();
        if *axes == 0 || *axes > rank {
            return fault(format!("{axes} trailing axes of x {shape} can't be normalised; 1 to {rank} can"));
        }
        if !(*epsilon >= 0.0 && epsilon.is_finite()) {
            return fault(format!("epsilon is {epsilon}, expected 0 or a finite number above"));
        }
        if problem.mean && *kind == NormKind::Rms {
            return fault("an RMS norm has no mean to write".into());
        }
        let row_shape = problem.row_shape();
        for (name, layout, expected) in
            [("residual", residual, shape), ("weight", weight, &row_shape), ("bias", bias, &row_shape)]
        {
            if let Some(layout) = layout
                && layout.shape != *expected
            {
                return Err(Error::shape(FAMILY, name, &layout.shape, format!("{expected}: broadcast it first")));
            }
        }
        check_floats(FAMILY, problem.dtypes.named())?;
        shape.checked_elements(FAMILY)?;

        let first = rank - axes;
        let layouts = [Some(x), residual.as_ref(), weight.as_ref(), bias.as_ref()];
        let still = vec![0; rank];
        let [x, residual, weight, bias] = layouts.map(|layout| layout.map_or(&still[..], |layout| &layout.strides));
        let mut leading = Axis::merged(&shape[..first], [&x[..first], &residual[..first]]);
        let trailing = Axis::merged(&row_shape, [&x[first..], &residual[first..], &weight[..*axes], &bias[..*axes]]);
        let mut offsets = layouts.map(|layout| layout.map_or(0, |layout| layout.offset));
        let (rows, width) = (shape[..first].iter().product(), row_shape.iter().product());

        const PACK: usize = Pack::ELEMENTS;
        let dense = trailing.len() == 1
            && layouts.iter().zip(trailing[0].strides).all(|(layout, stride)| layout.is_none() || stride == 1);
        let aligned = width % PACK == 0
            && offsets.iter().all(|offset| offset % PACK == 0)
            && leading.iter().all(|axis| axis.steps_whole(PACK));
        let pack = if dense && aligned { PACK } else { 1 };
        offsets = offsets.map(|offset| offset / pack);
        leading.iter_mut().for_each(|axis| axis.in_vectors(pack));
        let side_by_side = leading.last().is_some_and(|axis| axis.strides[0].abs() == 1 && axis.size > 1) && !dense;
        // Of each element itself, weight and bias.
        let given = |operand: usize| usize::from(layouts[operand].is_some());
        let registers = 1 + given(2) + given(3);
        let elems = width / pack;
        let rows = Rows {
            rows,
            elems,
            pack,
            registers,
            accesses: 1 + registers + given(1) + usize::from(problem.sum),
            passes: 3,
            // And one for the head.
            plain_rounds: 9 + 2 * rounds_in_blocks(elems),
            side_by_side,
        };
        Ok(Merged { rows, width, leading, trailing, offsets })
    }

    /// Whether each elem of the input lies where the elem of y does.
    pub(super) fn fits_in_place(&self, problem: &NormProblem, input: usize) -> bool {
        let (layout, dtype) = match input {
            0 => (Some(&problem.x), problem.dtypes.x),
            1 => (problem.residual.as_ref(), problem.dtypes.residual),
            _ => return false,
        };
        let y = Elems { dtype: problem.dtypes.y, packed: self.rows.pack > 1 };
        layout.is_some_and(Layout::is_contiguous) && dtype.bytes() == y.dtype.bytes() && y.own_words()
    }
}
