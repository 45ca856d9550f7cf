//! Narrow floats as they are stored: read in place, summed in f32, rounded once.

use tilewise::{
    DType::{self, BF16, F16, F32},
    graph::{Align, AttentionOperand as A},
    kernel::Problem,
    reference::compare::Check,
};

use super::{MANY_KEYS, MANY_QUERIES};
use crate::common::{
    attention::{Case, Draw, Kind, Lie, tensor},
    gpu,
};

/// Of q (and out), k, v and bias.
const STORED: [[DType; 4]; 6] = [
    [F16, F16, F16, F16],
    [BF16, BF16, BF16, BF16],
    [F32, F16, BF16, F16],
    [F16, F32, F32, F32],
    [BF16, F32, F16, BF16],
    [F32, F32, F32, BF16],
];

/// Each result is a value of v, which may have to be rounded.
fn routed(name: String, draw: &mut Draw) -> Case {
    let sizes = if draw.below(2) == 0 { MANY_KEYS } else { MANY_QUERIES };
    let mut case = Case::routed(name, sizes, draw);
    case.v = draw.floats(case.v.shape().clone(), 99.0);
    case
}

#[test]
fn narrow_operands_are_exact_in_any_mixture() {
    let mut draw = Draw::new(61);
    for (n, stored) in STORED.into_iter().enumerate() {
        let lie = Lie::ALL[n % 5];
        let mut case = Kind::Bias.apply(routed(format!("{stored:?} {lie:?}"), &mut draw), &mut draw).stored(stored);
        case.lies = [lie, Lie::ALL[(n + 1) % 5], Lie::ALL[(n + 2) % 5], lie];
        case.out = [Lie::Dense, Lie::HeadsInner, Lie::Columns][n % 3];
        case.check_all(gpu(), Check::Exact);
    }
}

/// Rows of whole words, of whole groups of four, and words that two rows share.
#[test]
fn widths() {
    let mut draw = Draw::new(62);
    for (n, (d, dv)) in [(1, 1), (8, 8), (3, 6), (64, 64), (5, 33), (40, 128), (256, 255)].into_iter().enumerate() {
        let stored = STORED[[0, 1, 4, 0, 1, 2, 0][n]];
        let case = Case::new(format!("D={d} Dv={dv} {stored:?}"), (2, 2, 1, 35, 67, d, dv), &mut draw);
        case.stored(stored).causal(Align::BottomRight).check_all(gpu(), Check::measured());
    }
}

#[test]
fn packed_sequences_share_words() {
    let mut draw = Draw::new(63);
    for (stored, dv) in [(STORED[0], 5), (STORED[1], 8)] {
        let name = format!("packed {stored:?}");
        let starts = (&[0, 5, 5, 70, 71][..], &[0, 40, 43, 43, 90][..]);
        let case = Case::packed(name, starts, (73, 4, 2, 90, 8, dv), &mut draw);
        case.stored(stored).causal(Align::TopLeft).check_all(gpu(), Check::measured());
    }
}

/// −∞ in the bias hides a key also where it is narrow; its lowest finite value doesn't.
#[test]
fn a_narrow_bias_hides_keys_by_its_bits() {
    let mut draw = Draw::new(64);
    for dtype in [F16, BF16] {
        let lowest = if dtype == F16 { -65504.0 } else { half::bf16::MIN.to_f32() };
        for low in [f32::NEG_INFINITY, lowest] {
            let mut case = routed(format!("{dtype} bias {low}"), &mut draw)
                .with(A::Bias, tensor([1], vec![low]))
                .stored([F32, F32, F32, dtype]);
            if low != f32::NEG_INFINITY {
                case.k = tensor(case.k.shape(), vec![0.0; case.k.len()]);
            }
            case.check_all(gpu(), Check::measured());
        }
    }
}

#[test]
fn narrow_storage_halves_the_bytes() {
    let mut draw = Draw::new(65);
    let case = Case::new("bytes", (1, 2, 2, 64, 64, 16, 16), &mut draw);
    let bytes = |case: &Case, variant: &str| {
        let mut case = case.clone();
        case.lse = false;
        let kernel = case.problem().0.kernel(variant, gpu().profile()).expect("runs");
        assert!(kernel.launches.iter().all(|launch| !launch.label.contains("round")), "{variant}");
        kernel.launches[0].bytes
    };
    // The others hold sums in f32 on the way.
    for variant in ["plain", "tiled"] {
        let wide = bytes(&case, variant);
        assert_eq!(wide, 4 * 4 * 2 * 64 * 16);
        assert_eq!(bytes(&case.clone().stored([F16; 4]), variant), wide / 2, "{variant}");
        assert_eq!(bytes(&case.clone().stored([F32, BF16, BF16, F32]), variant), wide / 4 * 3, "{variant}");
    }
}
