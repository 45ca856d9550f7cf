use super::case::{Cases, Draft, ODD_ROWS, ODD_WIDTHS};
use crate::{DType, Result, Shape, Tensor, ValueId, graph::CrossEntropyArgs, reference::compare::Check};

const FAMILY: &str = "cross_entropy";

/// ε, class weights, and whether there is a target to ignore.
type Options = (f32, bool, bool);

const OPTIONS: [Options; 4] = [(0.0, false, true), (0.0, true, false), (0.1, false, false), (0.1, true, true)];

pub(super) fn cases(mut all: Cases) -> Result<Cases> {
    let shapes = all.choose::<&[usize]>(
        &[&[1], &[7], &[0, 5], &[5, 0], &[5, 1], &[3, 64], &[67, 31], &[2, 257], &[2, 9, 17], &[3, 1028], &[2, 4099]],
        &[&[130, 129], &[2, 5003], &[1031, 7], &[2, 3, 4, 5, 6], &[3, 50_257], &[3, 50_260], &[1, 300_007]],
    );
    for shape in shapes {
        let shape = Shape::from(shape);
        for options in OPTIONS {
            all.add(FAMILY, format!("{shape}{}", said(options)), Check::measured(), |draft| {
                let x = draft.reals("x", DType::F32, &shape, [-8.0, 8.0])?;
                all_of(draft, x, options)
            })?;
        }
    }
    for dtype in [DType::F16, DType::BF16] {
        // Rows that share words, and whole words.
        for shape in all.choose(&[[5, 67], [5, 68], [3, 1028]], &[[2, 5003], [130, 128], [2, 50_257], [2, 50_260]]) {
            for options in OPTIONS {
                all.add(
                    FAMILY,
                    format!("{dtype} {}{}", Shape::from(shape), said(options)),
                    Check::measured(),
                    |draft| {
                        let x = draft.reals("x", dtype, shape, [-4.0, 4.0])?;
                        all_of(draft, x, options)
                    },
                )?;
            }
        }
    }
    // Equal logits, of which there is a power of two: all is exact but the logarithm.
    all.add(FAMILY, "equal logits", Check::measured(), |draft| {
        let x = draft.given("x", Tensor::new([3, 64], vec![-1e9f32; 3 * 64])?)?;
        all_of(draft, x, OPTIONS[0])
    })?;
    // Without the maximum taken off, exp would overflow or give only zeros.
    for shift in [-1e4, 1e4] {
        for options in OPTIONS {
            all.add(FAMILY, format!("shifted by {shift}{}", said(options)), Check::measured(), |draft| {
                let x = draft.reals("x", DType::F32, [5, 65], [shift - 4.0, shift + 4.0])?;
                all_of(draft, x, options)
            })?;
        }
    }
    for options in OPTIONS {
        // A batch of sequences whose last logits nobody asks for.
        all.add(FAMILY, format!("of views{}", said(options)), Check::measured(), |draft| {
            let x = draft.reals("x", DType::F32, [2, 6, 36], [-4.0, 4.0])?;
            let x = draft.graph.slice(x, 1, 0, 5)?;
            all_of(draft, x, options)
        })?;
        all.add(FAMILY, format!("of classes that lie apart{}", said(options)), Check::measured(), |draft| {
            let x = draft.reals("x", DType::F32, [4, 35, 6], [-4.0, 4.0])?;
            let x = draft.graph.permute(x, &[2, 0, 1])?;
            all_of(draft, x, options)
        })?;
    }
    // The least and the largest that are no class.
    all.add(FAMILY, "targets that are no class", Check::measured(), |draft| {
        let x = draft.reals("x", DType::F32, [8, 12], [-4.0, 4.0])?;
        let targets = vec![i32::MIN, -100, -1, 0, 11, 12, 13, i32::MAX];
        let targets = draft.given("targets", Tensor::new([8], targets)?)?;
        results(draft, x, targets, CrossEntropyArgs::default())
    })?;
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        all.add(
            FAMILY,
            format!("{dtype} with −inf in some places, in one row everywhere"),
            Check::measured(),
            |draft| {
                let x: Vec<f64> = (0..4 * 36)
                    .map(|i| if i / 36 == 1 || i % 5 == 2 { f64::NEG_INFINITY } else { f64::from(i % 7) })
                    .collect();
                let x = draft.numbers("x", dtype, [4, 36], &x)?;
                // Targets with a probability; the row without one is ignored.
                let targets = draft.given("targets", Tensor::new([4], vec![0i32, -1, 5, 35])?)?;
                results(draft, x, targets, CrossEntropyArgs::default())
            },
        )?;
        for width in ODD_WIDTHS {
            for options in OPTIONS {
                let name = format!("{dtype} rows of {width}{}", said(options));
                all.add_not_finite(FAMILY, name, Check::measured(), |draft| {
                    let x = draft.odd_rows("x", dtype, width, false)?;
                    all_of(draft, x, options)
                })?;
            }
        }
        // With the target on what is not finite, and beside it.
        for smoothing in [0.0, 0.1] {
            let name = format!("{dtype} targets of −inf, smoothing {smoothing}");
            all.add_not_finite(FAMILY, name, Check::measured(), |draft| {
                let x = draft.odd_rows("x", dtype, 68, false)?;
                let targets = (0..ODD_ROWS as i32).map(|row| if row % 2 == 0 { 67 } else { 0 }).collect::<Vec<_>>();
                let targets = draft.given("targets", Tensor::new([ODD_ROWS], targets)?)?;
                results(draft, x, targets, CrossEntropyArgs { smoothing, ..Default::default() })
            })?;
        }
    }
    Ok(all)
}

fn said((smoothing, weight, ignore): Options) -> String {
    let smoothing = if smoothing > 0.0 { format!(", smoothing {smoothing}") } else { String::new() };
    let weight = if weight { ", weights" } else { "" };
    let ignore = if ignore { ", ignored rows" } else { "" };
    format!("{smoothing}{weight}{ignore}")
}

/// Of logits, with targets drawn among the classes, of which the first is ignored.
fn all_of(draft: &mut Draft, x: ValueId, (smoothing, weight, ignore): Options) -> Result<Vec<ValueId>> {
    let shape = draft.graph.shape(x).clone();
    let (rows, classes) = (&shape[..shape.rank() - 1], shape[shape.rank() - 1]);
    let few = classes.min(5) as i64;
    // Many of the first classes, so that some are ignored.
    let highest = if ignore { few } else { classes as i64 } - 1;
    let targets = draft.wholes("targets", DType::I32, rows, [0.min(highest), highest])?;
    let weight = weight.then(|| draft.reals("weight", DType::F32, [classes], [0.25, 2.0])).transpose()?;
    results(draft, x, targets, CrossEntropyArgs { weight, ignore: ignore.then_some(0), smoothing })
}

fn results(draft: &mut Draft, x: ValueId, targets: ValueId, args: CrossEntropyArgs) -> Result<Vec<ValueId>> {
    let found = draft.graph.cross_entropy(x, targets, args)?;
    Ok(vec![found.loss, found.lse, found.weight])
}
