//! Tiles that a mask hides are not visited, those that it leaves whole are not asked about, and no bit of a result changes.

use tilewise::{
    Tensor,
    graph::{Align, AttentionOperand as A},
    kernel::{Problem, Profile},
};

use crate::common::{
    attention::{Case, Draw, Kind, Lie, Sizes, i32s, tensor},
    gpu,
};

/// Three tiles of rows and five of keys, none of them whole at the end.
const SIZES: Sizes = (2, 4, 2, 150, 139, 8, 6);

/// Keys of the query's own block of 40.
fn diagonal(tq: usize, tk: usize) -> Tensor {
    tensor([tq, tk], (0..tq * tk).map(|at| at / tk / 40 == at % tk / 40).collect::<Vec<_>>())
}

fn bits(results: &[Tensor]) -> Vec<u32> {
    results.iter().flat_map(|result| result.as_f32().expect("f32").iter().map(|x| x.to_bits())).collect()
}

#[test]
fn results_have_the_same_bits() {
    let mut draw = Draw::new(81);
    let (b, h, _, tq, tk, ..) = SIZES;
    let masks = [
        ("diagonal", diagonal(tq, tk)),
        ("half", draw.bools([b, h, tq, tk], 50)),
        ("few", draw.bools([b, 1, tq, tk], 1)),
        ("nothing hidden", tensor([1, 1], vec![true])),
        ("everything hidden", tensor([tq, tk], vec![false; tq * tk])),
        ("keys", draw.bools([b, 1, 1, tk], 20)),
        ("rows", draw.bools([h, tq, 1], 50)),
        ("short", diagonal(tq, 100)),
        ("short by a tile and a word", diagonal(tq, 68)),
    ];
    let options: [fn(Case, &mut Draw) -> Case; 6] = [
        |case, _| case,
        |case, _| case.causal(Align::BottomRight),
        |case, _| case.window(Some(50), Some(9)),
        |case, draw| Kind::KeyLengths.apply(case, draw),
        |case, draw| Kind::Bias.apply(case, draw),
        |case, draw| Kind::MaskMod.apply(case, draw),
    ];
    for (n, (name, mask)) in masks.into_iter().enumerate() {
        for option in [options[0], options[1 + n % 5], options[1 + (n + 2) % 5]] {
            let mut case = option(Case::new(name, SIZES, &mut draw).with(A::Mask, mask.clone()), &mut draw);
            case.lies[3] = [Lie::Dense, Lie::Gaps, Lie::Columns, Lie::Backwards][n % 4];
            let [tiled, blocks] = ["tiled", "block_mask"].map(|variant| bits(&case.run(variant, gpu()).expect("runs")));
            assert!(tiled == blocks, "{name}: {:#?}", case.problem().0);
        }
    }
}

/// What nobody looks at may be anything: NaN would show.
#[test]
fn hidden_tiles_are_never_visited() {
    let mut draw = Draw::new(82);
    let (b, _, hkv, tq, tk, d, dv) = SIZES;
    // The second and the fourth tile of keys.
    let hidden = |j: usize| j / 32 % 2 == 1;
    let mask = tensor([tk], (0..tk).map(|j| !hidden(j)).collect::<Vec<_>>());
    let case = Case::new("NaN", SIZES, &mut draw).with(A::Mask, mask);
    let mut broken = case.clone();
    for (x, width) in [(&mut broken.k, d), (&mut broken.v, dv)] {
        let values = x.as_f32().expect("f32").iter().enumerate();
        let values: Vec<f32> =
            values.map(|(at, &value)| if hidden(at / width % tk) { f32::NAN } else { value }).collect();
        *x = tensor([b, hkv, tk, width], values);
    }
    assert!(tq > 64 && tk > 128, "several tiles");
    let run = |case: &Case, variant: &str| bits(&case.run(variant, gpu()).expect("runs"));
    assert!(run(&broken, "block_mask") == run(&case, "tiled"));
    assert!(run(&broken, "tiled") != run(&case, "tiled"), "the other variant does visit them");
}

#[test]
fn it_is_chosen_where_tiles_are_many() {
    let mut draw = Draw::new(83);
    let first = |sizes: Sizes, mask: Option<&[usize]>, profile: &Profile| {
        let mut case = Case::new("", sizes, &mut Draw::new(1));
        case.lse = false;
        if let Some(shape) = mask {
            case = case.with(A::Mask, tensor(shape, vec![true; shape.iter().product()]));
        }
        let candidates = case.problem().0.candidates(profile);
        candidates.into_iter().find(tilewise::kernel::Candidate::is_usable).expect("one takes it").variant
    };
    let portable = Profile::portable();
    assert_eq!(first((4, 8, 8, 512, 512, 64, 64), Some(&[512, 512]), &portable), "block_mask");
    assert_eq!(first((4, 8, 8, 512, 512, 64, 64), None, &portable), "tiled");
    assert_eq!(first((16, 8, 8, 128, 128, 64, 64), Some(&[128, 128]), &portable), "tiled");
    assert_eq!(first((4, 8, 8, 512, 512, 4, 4), Some(&[4, 8, 512, 512]), &portable), "tiled");
    let none = Case::new("no mask", (1, 1, 1, 5, 5, 4, 4), &mut draw).with(A::KeyLengths, i32s(&[3]));
    let error = none.kernel("block_mask", gpu()).expect_err("nothing to look at").to_string();
    assert_eq!(error, "attention: no variant can run here: block_mask: there is no boolean mask");
}
