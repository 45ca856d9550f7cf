//! The variants of matmul.

pub(crate) const VARIANTS: [&str; 13] = [
    "coop_16x16",
    "coop_8x8",
    "plain",
    "register",
    "tiled_32x32",
    "tiled_64x64",
    "tiled_128x128",
    "split_k",
    "vec",
    "subgroup",
    "panel",
    "panel_uniform",
    "panel_deep",
];
