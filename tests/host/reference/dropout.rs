//! What is drawn, against published numbers and the binomial distribution, and what a dropout makes of it.

use tilewise::{
    DType, Graph, Tensor,
    reference::{Array, Evaluation, Value, dropout, philox},
};

use crate::common::binomial::bounds;

/// Counter, key and result, of `kat_vectors` in Random123.
#[test]
fn the_known_answers_of_philox_4x32_10() {
    let cases = [
        ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
    ];
    for (counter, key, expected) in cases {
        assert_eq!(philox(counter, key), expected, "{counter:x?} {key:x?}");
    }
}

fn ones(n: usize, seed: [u32; 4], p: f64, stream: u32) -> Vec<f64> {
    let seed = Value::<f64>::U32(Array::new([4], seed.to_vec()).expect("fits"));
    let x = Array::new([n], vec![1.0; n]).expect("fits");
    dropout(&x, &seed, p, stream).expect("fits").into_data()
}

/// Element i has word i mod 4 of the block i div 4, and is kept from the threshold on.
#[test]
fn an_element_is_kept_from_its_threshold_on() {
    let (seed, stream) = ([1, 2, 3, 4], 5);
    for i in 0..11usize {
        let word = philox([(i / 4) as u32, stream, 3, 4], [1, 2])[i % 4];
        for (threshold, kept) in [(u64::from(word), true), (u64::from(word) + 1, false)] {
            let y = ones(11, seed, threshold as f64 / 2f64.powi(32), stream);
            assert_eq!(y[i] > 0.0, kept, "element {i}, threshold {threshold:x}");
        }
    }
    // Of p the nearest multiple of 2⁻³² counts.
    let word = u64::from(philox([0, 0, 0, 0], [0, 0])[0]);
    for (p, kept) in [(word as f64 + 0.49, true), (word as f64 + 0.5, false)] {
        assert_eq!(ones(4, [0; 4], p / 2f64.powi(32), 0)[0] > 0.0, kept, "{p}");
    }
}

#[test]
fn the_ends_of_p() {
    assert_eq!(ones(9, [7; 4], 0.0, 0), [1.0; 9]);
    assert_eq!(ones(9, [7; 4], 1.0, 0), [0.0; 9]);
    // Above the highest threshold there is no word.
    assert_eq!(ones(9, [7; 4], 1.0 - 2f64.powi(-50), 0), [0.0; 9]);
}

/// A product with 0, as PyTorch's.
#[test]
fn what_is_not_finite_is_not_dropped_silently() {
    let seed = Value::<f64>::U32(Array::new([4], vec![0; 4]).expect("fits"));
    let x = |number: f64| Array::new([2], vec![number; 2]).expect("fits");
    // Of the seed 0 the first is under ½, the second is not.
    let [dropped, kept] = dropout(&x(f64::INFINITY), &seed, 0.5, 0).expect("fits").into_data()[..] else { panic!() };
    assert!(dropped.is_nan() && kept == f64::INFINITY);
    assert!(dropout(&x(f64::NAN), &seed, 0.5, 0).expect("fits").data().iter().all(|y| y.is_nan()));
}

/// How many are kept, of all and of each place in a block, and of neighbours both: as the binomial distribution has it, at one in
/// a billion.
#[test]
fn as_many_are_kept_as_the_binomial_distribution_has_it() {
    const N: usize = 40_000;
    for p in [0.1, 0.5, 0.9] {
        let kept: Vec<bool> = ones(N, [3, 0, 1, 0], p, 0).iter().map(|y| *y > 0.0).collect();
        let within = |what: &str, flags: &[bool], chance: f64| {
            let count = flags.iter().filter(|flag| **flag).count();
            let (least, most) = bounds(flags.len(), chance, 1e-9);
            assert!((least..=most).contains(&count), "{what}, p = {p}: {count}, expected {least} to {most}");
        };
        let keep = 1.0 - p;
        within("all", &kept, keep);
        for place in 0..4 {
            within("a place", &kept.iter().copied().skip(place).step_by(4).collect::<Vec<_>>(), keep);
        }
        // Pairs that don't overlap are independent.
        within("neighbours", &kept.chunks(2).map(|pair| pair[0] && pair[1]).collect::<Vec<_>>(), keep * keep);
        // Another seed, step or stream is another draw.
        let others = [([4, 0, 1, 0], 0), ([3, 1, 1, 0], 0), ([3, 0, 2, 0], 0), ([3, 0, 1, 1], 0), ([3, 0, 1, 0], 1)];
        for (seed, stream) in others {
            let other = ones(N, seed, p, stream);
            let both: Vec<bool> = kept.iter().zip(other).map(|(kept, y)| *kept && y > 0.0).collect();
            within("two draws", &both, keep * keep);
        }
    }
}

#[test]
fn the_bounds_are_those_of_the_distribution() {
    // Of two throws, no head, and two, have a chance of a quarter each.
    assert_eq!(bounds(2, 0.5, 0.49), (0, 2));
    assert_eq!(bounds(2, 0.5, 0.51), (1, 1));
    assert_eq!(bounds(10, 0.0, 1e-9), (0, 0));
    assert_eq!(bounds(10, 1.0, 1e-9), (10, 10));
    // Mean 50, standard deviation 5: six of them are one in a billion.
    let (least, most) = bounds(100, 0.5, 1e-9);
    assert_eq!(least + most, 100);
    assert!((18..=24).contains(&least), "{least}");
}

#[test]
fn dropouts_of_a_graph_have_streams_of_their_own() {
    let mut g = Graph::new();
    let x = g.constant(Tensor::new([256], vec![1.0f32; 256]).expect("fits")).expect("fits");
    let seed = g.input("seed", DType::I32, [4]).expect("fits");
    let (a, b) = (g.dropout(x, seed, 0.5).expect("fits"), g.dropout(x, seed, 0.5).expect("fits"));
    // Bits of an i32 are taken as they are.
    let given = |words: [i32; 4]| [("seed".to_string(), Tensor::new([4], words.to_vec()).expect("fits"))].into();
    let values = Evaluation::<f64>::new(&g, &given([-1, 2, 3, 4])).expect("evaluates");
    let [a, b] = [a, b].map(|value| values.value(value).to_f64().iter().map(|y| y / 2.0).collect::<Vec<_>>());
    assert_ne!(a, b);
    assert_eq!(a, ones(256, [u32::MAX, 2, 3, 4], 0.5, 0).iter().map(|y| y / 2.0).collect::<Vec<_>>());
    assert_eq!(b, ones(256, [u32::MAX, 2, 3, 4], 0.5, 1).iter().map(|y| y / 2.0).collect::<Vec<_>>());
    // A graph that is read again goes on behind what it has; without dropout it is as it was but for p.
    let mut again = Graph::from_json(&g.to_json().expect("writes")).expect("reads");
    let seed = again.find("seed").expect("there");
    let third = again.dropout(x, seed, 0.5).expect("fits");
    let streams = |g: &Graph| g.to_string().matches("stream=").count();
    assert!(matches!(again.definition(third).op, tilewise::graph::Op::Dropout { stream: 2, .. }));
    assert_eq!((streams(&g), streams(&again)), (2, 3));
    let without = g.without_dropout();
    assert_eq!(without.values(), g.values());
    assert_eq!(without.to_string().matches("p=0.0").count(), 2);
    // None is left behind the last.
    again.push(tilewise::graph::Op::Dropout { p: 0.5, stream: u32::MAX }, &[x, seed]).expect("fits");
    let why = again.dropout(x, seed, 0.5).expect_err("is refused").to_string();
    assert_eq!(why, "dropout: no stream is left after 2³² − 1: push `Op::Dropout` with one of your own");
}
