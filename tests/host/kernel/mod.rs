//! Kernels as data: what each family says of its problems on devices of which only the profile is there.

mod argmax;
mod attention;
mod ceiling;
mod copy;
mod cross_entropy;
mod matmul;
mod norm;
mod pointwise;
mod reduce;
mod softmax;
