//! Runs that must agree with each other.

use tilewise::{
    Tensor,
    graph::{Align, AttentionOperand as A},
    kernel::Source,
    reference::compare::Check,
};

use crate::common::{
    attention::{Case, Draw, Sizes, hiding, i32s, tensor},
    gpu,
};

fn run(case: &Case, variant: &str) -> Vec<Tensor> {
    case.run(variant, gpu()).unwrap_or_else(|error| panic!("{variant}: {}: {error}", case.name))
}

fn floats(tensor: &Tensor) -> &[f32] {
    tensor.as_f32().expect("f32")
}

/// Rows `rows` of axis `axis`.
fn part(tensor: &Tensor, axis: usize, rows: std::ops::Range<usize>) -> Tensor {
    let shape = tensor.shape();
    let inner: usize = shape[axis + 1..].iter().product();
    let mut sizes = shape.to_vec();
    sizes[axis] = rows.len();
    let chunks = floats(tensor).chunks(shape[axis] * inner);
    let data: Vec<f32> = chunks.flat_map(|chunk| chunk[rows.start * inner..rows.end * inner].to_vec()).collect();
    self::tensor(sizes, data)
}

fn assert_close(actual: &[f32], expected: &[f32], within: f32, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!((a - e).abs() <= within, "{what}: [{i}] is {a}, expected {e}");
    }
}

const SIZES: Sizes = (2, 4, 2, 67, 67, 8, 6);

#[test]
fn a_window_over_all_keys_is_none() {
    let mut draw = Draw::new(41);
    let case = Case::new("window", SIZES, &mut draw);
    for variant in case.variants(gpu()) {
        let open = run(&case, variant);
        for (left, right) in
            [(Some(66), Some(66)), (Some(u32::MAX), Some(u32::MAX)), (None, Some(66)), (Some(67), None)]
        {
            assert_eq!(run(&case.clone().window(left, right), variant), open, "{variant}: {left:?} {right:?}");
        }
        // Without keys to come, causal order is a window too.
        let causal = run(&case.clone().causal(Align::TopLeft), variant);
        assert_eq!(run(&case.clone().window(None, Some(0)), variant), causal, "{variant}");
    }
}

#[test]
fn a_causal_prefix_is_a_shorter_run() {
    let mut draw = Draw::new(42);
    let case = Case::new("whole", SIZES, &mut draw).causal(Align::TopLeft);
    for variant in case.variants(gpu()) {
        let whole = run(&case, variant);
        for n in [1, 16, 33, 66] {
            let mut prefix = case.clone();
            (prefix.q, prefix.k, prefix.v) = (part(&case.q, 2, 0..n), part(&case.k, 2, 0..n), part(&case.v, 2, 0..n));
            let short = run(&prefix, variant);
            for (short, whole) in short.iter().zip(&whole) {
                // The parts of a split, and panels for few keys, end elsewhere, so sums round otherwise.
                let within = if ["split_kv", "panel"].contains(&variant) { 2e-6 } else { 0.0 };
                assert_close(floats(short), floats(&part(whole, 2, 0..n)), within, &format!("{variant}: {n} rows"));
            }
        }
    }
}

#[test]
fn padded_packed_and_one_by_one_agree() {
    let mut draw = Draw::new(43);
    let (q_lens, k_lens) = ([67i32, 0, 13, 40], [35i32, 20, 0, 66]);
    let padded = Case::new("padded", (4, 4, 2, 67, 66, 8, 6), &mut draw)
        .causal(Align::BottomRight)
        .with(A::QueryLengths, i32s(&q_lens))
        .with(A::KeyLengths, i32s(&k_lens));

    // [B, H, T, D] without the padding, end to end, as [ΣT, H, D].
    let pack = |x: &Tensor, lens: &[i32]| {
        let (h, t, d) = (x.shape()[1], x.shape()[2], x.shape()[3]);
        let mut data = Vec::new();
        for (b, &len) in lens.iter().enumerate() {
            for row in 0..len as usize {
                for head in 0..h {
                    data.extend_from_slice(&floats(x)[((b * h + head) * t + row) * d..][..d]);
                }
            }
        }
        tensor([data.len() / (h * d), h, d], data)
    };
    let starts = |lens: &[i32]| {
        let mut starts = vec![0];
        lens.iter().for_each(|len| starts.push(starts[starts.len() - 1] + len));
        starts
    };
    let mut packed = padded.clone();
    packed.name = "packed".into();
    packed.options.operands = vec![A::QueryOffsets, A::KeyOffsets];
    packed.extra = vec![i32s(&starts(&q_lens)), i32s(&starts(&k_lens))];
    (packed.q, packed.k, packed.v) = (pack(&padded.q, &q_lens), pack(&padded.k, &k_lens), pack(&padded.v, &k_lens));

    for variant in padded.variants(gpu()) {
        let (padded_out, packed_out) = (run(&padded, variant), run(&packed, variant));
        assert_close(floats(&packed_out[0]), floats(&pack(&padded_out[0], &q_lens)), 2e-6, variant);
        let lse = padded_out[1].clone().reshaped([4, 4, 67, 1]).expect("the same");
        assert_close(floats(&packed_out[1]), floats(&pack(&lse, &q_lens)), 4e-6, variant);
        for (b, (&q_len, &k_len)) in q_lens.iter().zip(&k_lens).enumerate() {
            let (rows, keys) = (0..q_len as usize, 0..k_len as usize);
            let mut one = Case::new(format!("item {b}"), (1, 4, 2, 1, 1, 8, 6), &mut draw).causal(Align::BottomRight);
            one.q = part(&part(&padded.q, 0, b..b + 1), 2, rows.clone());
            one.k = part(&part(&padded.k, 0, b..b + 1), 2, keys.clone());
            one.v = part(&part(&padded.v, 0, b..b + 1), 2, keys);
            let expected = part(&part(&padded_out[0], 0, b..b + 1), 2, rows);
            assert_close(floats(&run(&one, variant)[0]), floats(&expected), 2e-6, &format!("{variant}: item {b}"));
        }
    }
}

/// The halves of the keys, joined by their lse, are the whole.
#[test]
fn halves_of_the_keys_join_to_the_whole() {
    let mut draw = Draw::new(44);
    let case = Case::new("whole", SIZES, &mut draw);
    for variant in case.variants(gpu()) {
        let whole = run(&case, variant);
        let halves = [0..30, 30..67].map(|keys| {
            let mut half = case.clone();
            (half.k, half.v) = (part(&case.k, 2, keys.clone()), part(&case.v, 2, keys));
            run(&half, variant)
        });
        let columns = case.v.shape()[3];
        for (row, &lse) in floats(&whole[1]).iter().enumerate() {
            let weights = [0, 1].map(|half| f64::from(floats(&halves[half][1])[row] - lse).exp());
            assert!((weights[0] + weights[1] - 1.0).abs() < 1e-5, "{variant}: row {row}: lse");
            for column in row * columns..(row + 1) * columns {
                let joined: f64 = (0..2).map(|half| weights[half] * f64::from(floats(&halves[half][0])[column])).sum();
                let error = (joined - f64::from(floats(&whole[0])[column])).abs();
                assert!(error < 2e-6, "{variant}: row {row}: {error:e}");
            }
        }
    }
}

#[test]
fn keys_may_be_permuted_with_their_mask() {
    let mut draw = Draw::new(45);
    let tk = 71;
    let mut order: Vec<usize> = (0..tk).collect();
    for i in (1..tk).rev() {
        order.swap(i, draw.below(i + 1));
    }
    let shuffled = |x: &Tensor, axis: usize| {
        let inner: usize = x.shape()[axis + 1..].iter().product();
        let data: Vec<f32> = floats(x)
            .chunks(tk * inner)
            .flat_map(|chunk| {
                order.iter().flat_map(|&j| chunk[j * inner..(j + 1) * inner].to_vec()).collect::<Vec<_>>()
            })
            .collect();
        tensor(x.shape(), data)
    };
    let bias = hiding(&draw.floats([4, 9, tk], 2.0), 30, &mut draw);
    let case = Case::new("in order", (2, 4, 2, 9, tk, 5, 6), &mut draw).with(A::Bias, bias.clone());
    let mut other = case.clone().with_last(shuffled(&bias, 2));
    (other.k, other.v) = (shuffled(&case.k, 2), shuffled(&case.v, 2));
    for variant in case.variants(gpu()) {
        let (a, b) = (run(&case, variant), run(&other, variant));
        assert_close(floats(&a[0]), floats(&b[0]), 2e-6, variant);
        assert_close(floats(&a[1]), floats(&b[1]), 4e-6, variant);
    }
}

#[test]
fn shifted_scores_shift_lse_alone() {
    let mut draw = Draw::new(46);
    let case = Case::new("shifted", SIZES, &mut draw);
    for variant in case.variants(gpu()) {
        let plain = run(&case, variant);
        let shifted = run(&case.clone().with(A::Bias, tensor([1], vec![32.0])), variant);
        assert_close(floats(&shifted[0]), floats(&plain[0]), 1e-5, variant);
        let lse: Vec<f32> = floats(&plain[1]).iter().map(|x| x + 32.0).collect();
        assert_close(floats(&shifted[1]), &lse, 1e-5, variant);
    }
}

/// Indices are proved in range, so a build with the driver's checks gives the same bits.
#[test]
fn checked_builds_give_the_same_bits() {
    let mut draw = Draw::new(47);
    let case = Case::new("checked", SIZES, &mut draw)
        .with(A::Mask, draw.bools([67, 67], 50))
        .with(A::KeyLengths, i32s(&[50, 67]))
        .causal(Align::BottomRight);
    for variant in case.variants(gpu()) {
        let mut kernel = case.kernel(variant, gpu()).expect("fits");
        let trusted = case.run_kernel(&kernel, gpu()).expect("runs");
        for launch in &mut kernel.launches {
            launch.source = Source::new(launch.source.name, launch.source.wgsl.clone()).into();
        }
        assert_eq!(case.run_kernel(&kernel, gpu()).expect("runs"), trusted, "{variant}");
        case.check(variant, gpu(), Check::measured());
    }
}
