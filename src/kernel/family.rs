//! The list of kernel families; what else there is by family matches on it.

macro_rules! families {
    ($($family:ident $name:literal,)*) => {
        /// A kernel family that operations of a graph lead to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Family {
            $($family,)*
        }

        impl Family {
            const ALL: &[Family] = &[$(Family::$family,)*];

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
    Append "append",
    Argmax "argmax",
    Attention "attention",
    AttentionMerge "attention_merge",
    Concat "concat",
    Copy "copy",
    Dequantize "dequantize",
    Gather "gather",
    Matmul "matmul",
    Norm "norm",
    Pad "pad",
    Pointwise "pointwise",
    Reduce "reduce",
    Rotary "rotary",
    Softmax "softmax",
}
