//! Kernels as data: what each family says of its problems on devices of which only the profile is there.

mod attention;
mod pointwise;
