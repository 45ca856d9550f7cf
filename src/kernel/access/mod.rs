//! How kernels read and write operands: axes and strides, narrow dtypes, words of several elements. The one vocabulary of
//! all families.

pub(super) mod axes;
pub(super) mod bits;
pub(super) mod elems;
pub(super) mod long;
pub(super) mod matrix;
pub(super) mod narrow;
pub(super) mod strided;
