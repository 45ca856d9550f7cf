//! Keys and values in pages, read through a table.

use tilewise::{
    Tensor,
    graph::{Align, AttentionFault as Fault, AttentionOperand as A, Op},
    kernel::Problem,
    reference::{Value, apply, compare::Check},
};

use crate::common::{
    attention::{Case, Draw, Kind, Lie, i32s, tensor},
    gpu,
};

fn bits(tensors: &[Tensor]) -> Vec<u32> {
    tensors.iter().flat_map(|t| t.as_f32().expect("f32").iter().map(|x| x.to_bits()).collect::<Vec<_>>()).collect()
}

/// With each kind of operand, wherever the pages lie: the bits of the same attention over keys in a row.
#[test]
fn paged_is_contiguous_bit_for_bit() {
    let mut draw = Draw::new(71);
    let kinds =
        [Kind::BottomRight, Kind::WindowBoth, Kind::Mask, Kind::Bias, Kind::KeyLengths, Kind::ScoreMod, Kind::MaskMod];
    for (n, kind) in kinds.into_iter().enumerate() {
        let (rows, sizes) =
            [(16, (3, 4, 2, 9, 71, 5, 6)), (1, (2, 4, 1, 3, 19, 8, 8)), (7, (2, 2, 2, 40, 33, 4, 4))][n % 3];
        let mut case = kind.apply(Case::new(format!("{kind:?}"), sizes, &mut draw), &mut draw);
        if kind != Kind::KeyLengths {
            let lengths: Vec<i32> = (0..sizes.0).map(|b| (sizes.4 - 11 * b) as i32).collect();
            case = case.with(A::KeyLengths, i32s(&lengths));
        }
        let mut paged = case.paged(rows, false, &mut draw);
        let lie = [Lie::Dense, Lie::HeadsInner, Lie::Gaps, Lie::Columns][n % 4];
        paged.lies = [Lie::Dense, lie, lie, Lie::Dense];
        for variant in case.variants(gpu()) {
            // Keys are shared out alike only if the host sees as many.
            if variant != "split_kv" {
                let whole = bits(&case.run(variant, gpu()).expect("runs"));
                assert!(bits(&paged.run(variant, gpu()).expect("runs")) == whole, "{variant}: {}", paged.name);
            }
            paged.check(variant, gpu(), Check::measured());
        }
    }
}

/// A common prefix is stored once.
#[test]
fn items_share_pages() {
    let mut draw = Draw::new(72);
    let case = Case::new("prefix", (3, 4, 2, 5, 40, 8, 6), &mut draw).causal(Align::BottomRight);
    let shared = case.paged(8, true, &mut draw);
    // What all items then read.
    let mut same = case.clone().with(A::KeyLengths, i32s(&[40; 3]));
    for x in [&mut same.k, &mut same.v] {
        let one = x.as_f32().expect("f32")[..x.len() / 3].repeat(3);
        *x = tensor(x.shape(), one);
    }
    for variant in case.variants(gpu()) {
        shared.check(variant, gpu(), Check::measured());
        if variant != "split_kv" {
            assert!(bits(&shared.run(variant, gpu()).expect("runs")) == bits(&same.run(variant, gpu()).expect("runs")));
        }
    }
}

/// Packed queries of several lengths over pages: continuous batching.
#[test]
fn packed_queries_read_pages() {
    let mut draw = Draw::new(73);
    for (rows, lengths) in [(4, [9, 0, 26, 1]), (32, [64, 33, 2, 31])] {
        let keys = Case::new("keys", (4, 4, 2, 1, 64, 8, 6), &mut draw).with(A::KeyLengths, i32s(&lengths));
        let paged = keys.paged(rows, false, &mut draw);
        let mut case = paged.clone();
        case.name = format!("packed queries, pages of {rows}");
        case.q = draw.floats([71, 4, 8], 1.0);
        case.options.operands = vec![A::QueryOffsets, A::KeyLengths, A::BlockTable];
        case.extra = vec![i32s(&[1, 3, 3, 70, 71]), paged.extra[0].clone(), paged.extra[1].clone()];
        case.status = true;
        let case = Kind::MaskMod.apply(Kind::Slopes.apply(case.causal(Align::BottomRight), &mut draw), &mut draw);
        case.check_all(gpu(), Check::measured());
    }
}

/// Entries that name no page are held at the nearest one, and reported for their item; entries past the keys are not looked at.
#[test]
fn pages_that_are_not_there_are_reported() {
    let mut draw = Draw::new(74);
    let mut case = Case::new("broken table", (4, 2, 1, 3, 20, 4, 4), &mut draw)
        .with(A::KeyLengths, i32s(&[20, 9, 0, 21]))
        .paged(8, false, &mut draw);
    case.status = true;
    let table = case.extra[1].as_i32().expect("i32").to_vec();
    let (each, count) = (table.len() / 4, case.k.shape()[0] as i32);
    let broken = |changes: &[(usize, usize, i32)]| {
        let mut table = table.clone();
        changes.iter().for_each(|&(b, n, page)| table[b * each + n] = page);
        case.clone().with_last(tensor([4, each], table))
    };
    let fine = broken(&[(1, 2, i32::MAX), (2, 0, -5)]);
    let faulty = broken(&[(0, 1, -1), (1, 1, count), (2, 0, -5), (3, 0, i32::MIN)]);
    let held = broken(&[(0, 1, 0), (1, 1, count - 1), (3, 0, 0)]);
    for variant in case.variants(gpu()) {
        let status = |case: &Case| {
            let results = case.run(variant, gpu()).expect("runs");
            (results[2].as_i32().expect("i32").to_vec(), bits(&results[..2]))
        };
        let no_page = Fault::BlockTable as i32;
        assert_eq!(status(&fine).0, [0, 0, 0, 0], "{variant}");
        let (found, faulty_bits) = status(&faulty);
        assert_eq!(found, [no_page, no_page, 0, no_page], "{variant}");
        assert!(faulty_bits == status(&held).1, "{variant}: held at the nearest page");
        faulty.check(variant, gpu(), Check::measured());
        let operands: Vec<Value<f64>> =
            [&faulty.q, &faulty.k, &faulty.v].into_iter().chain(&faulty.extra).map(Value::from).collect();
        let expected =
            apply(&Op::Attention(faulty.options.clone()), &operands.iter().collect::<Vec<_>>()).expect("valid");
        assert_eq!(expected[2].to_f64(), found.iter().map(|&x| f64::from(x)).collect::<Vec<_>>());
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let mut draw = Draw::new(75);
    let case = Case::new("", (2, 2, 1, 3, 20, 4, 4), &mut draw).paged(8, false, &mut draw);
    let message = |case: &Case| case.problem().0.kernel("plain", gpu().profile()).expect_err("refused").to_string();
    let other = case.clone().with_last(tensor([3, 4], vec![0i32; 12]));
    assert!(
        message(&other).contains("`block_table` has shape [3, 4], expected [B, pages of an item] with B = 2"),
        "{}",
        message(&other)
    );
    let mut short = case.clone();
    short.v = draw.floats([case.k.shape()[0], 7, 1, 4], 1.0);
    assert!(message(&short).contains("k and v must have the same heads and page size"), "{}", message(&short));
}
