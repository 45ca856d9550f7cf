//! The list of kernel families, each with its name and its folder of `shaders/`; all code that depends on the family matches on it.

macro_rules! families {
    ($($family:ident $name:literal $folder:literal,)*) => {
        /// A kernel family that operations of a graph lead to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Family {
            $($family,)*
        }

        impl Family {
            const ALL: &[Family] = &[$(Family::$family,)*];

            /// The folder of `shaders/` that has its kernels.
            pub(crate) fn shaders(self) -> &'static str {
                match self {
                    $(Family::$family => $folder,)*
                }
            }

            /// The family of this name.
            pub(crate) fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().zip(FAMILIES).find_map(|(family, known)| (known == name).then_some(family))
            }
        }

        /// The names of all families that operations of a graph lead to.
        pub const FAMILIES: [&str; Family::ALL.len()] = [$($name,)*];
    };
}

families! {
    Append "append" "append",
    Argmax "argmax" "argmax",
    Attention "attention" "attention",
    AttentionGrad "attention_grad" "attention_grad",
    AttentionMerge "attention_merge" "attention",
    Concat "concat" "copy",
    Copy "copy" "copy",
    CrossEntropy "cross_entropy" "cross_entropy",
    Dequantize "dequantize" "dequantize",
    Gather "gather" "gather",
    Matmul "matmul" "matmul",
    Norm "norm" "norm",
    Pad "pad" "copy",
    Pointwise "pointwise" "pointwise",
    Reduce "reduce" "reduce",
    Rotary "rotary" "rotary",
    ScatterAdd "scatter_add" "scatter_add",
    Softmax "softmax" "softmax",
}
