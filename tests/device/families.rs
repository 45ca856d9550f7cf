//! The families of kernels, for tests of all of them.

/// One test a family that runs `check` with its name, so that families run side by side; and one that none is forgotten.
macro_rules! of_each_family {
    ($check:ident) => {
        of_each_family!(
            $check: append, argmax, attention, attention_grad, attention_merge, concat, copy, cross_entropy, dequantize, gather, matmul, norm,
            pad, pointwise, reduce, rotary, scatter_add, softmax
        );
    };
    ($check:ident: $($family:ident),*) => {
        #[test]
        fn every_kernel_family_has_a_test() {
            assert_eq!([$(stringify!($family)),*], tilewise::kernel::FAMILIES);
        }
        $(
            #[test]
            fn $family() {
                $check(stringify!($family));
            }
        )*
    };
}

pub(crate) use of_each_family;
