//! Embeddings and positions, in a graph of one's own whose values have names.

use std::collections::BTreeMap;

use tilewise::{DType, Graph, Tensor, diff::Diff, nn};

use crate::common::diff::{
    fixture::{brief, found},
    theirs::{f32s, random},
};

/// The sum of scaled embeddings and positions, `[2, 4, 6]`, with `position(t)` in the place of t.
fn theirs(table: &Tensor, ids: &[i32], scale: f64, position: impl Fn(usize, usize) -> f64) -> Tensor {
    let table = table.to_f64();
    let row = |t: f64, c: usize| {
        let angle = t / 10_000f64.powf((c / 2 * 2) as f64 / 6.0);
        if c.is_multiple_of(2) { angle.sin() } else { angle.cos() }
    };
    let x: Vec<f64> = (0..2 * 4 * 6)
        .map(|at| {
            let (b, t, c) = (at / 24, at / 6 % 4, at % 6);
            let position = position(b, t);
            table[ids[b * 4 + t] as usize * 6 + c] * scale + if position.is_nan() { 0.0 } else { row(position, c) }
        })
        .collect();
    f32s(&[2, 4, 6], &x)
}

#[test]
fn embeddings_and_positions() {
    let ids = [3, 1, 4, 1, 5, 8, 2, 6];
    let build = |scaled: bool| {
        let mut g = Graph::new();
        let tokens = g.input("ids", DType::I32, [2, 4]).expect("fits");
        let mut x = nn::Embedding { entries: 9, width: 6 }.build(&mut g, "embedding", tokens).expect("fits");
        if scaled {
            let root = g.scalar(6f64.sqrt(), x).expect("fits");
            x = g.mul(x, root).expect("fits");
        }
        let table = nn::sinusoidal_positions(&mut g, 4, 6).expect("fits");
        let y = g.add(x, table).expect("fits");
        g.name(y, "embedded").expect("new");
        // As `tilewise run` and `tilewise diff` read it.
        Graph::from_json(&g.to_json().expect("writes")).expect("reads")
    };
    let table = random("table", &[9, 6], 1.0);
    let given = BTreeMap::from([
        ("ids".to_string(), Tensor::new([2, 4], ids.to_vec()).expect("fits")),
        ("embedding.weight".to_string(), table.clone()),
    ]);
    let root = 6f64.sqrt();
    type Position = fn(usize, usize) -> f64;
    let cases: [(bool, f64, Position, &[&str]); 7] = [
        (true, root, |_, t| t as f64, &[]),
        (true, 1.0, |_, t| t as f64, &["embedded: embedding not scaled"]),
        (false, root, |_, t| t as f64, &["embedded: embedding scaled by √E"]),
        (true, root, |_, _| f64::NAN, &["embedded: positions missing"]),
        (true, root, |_, t| t as f64 + 1.0, &["embedded: positions one too late"]),
        (true, root, |b, _| b as f64, &["embedded: positions along the batch"]),
        (true, 1.0, |_, t| t as f64 + 1.0, &["embedded: embedding not scaled and positions one too late"]),
    ];
    for (scaled, scale, position, expected) in cases {
        let dump = BTreeMap::from([("embedded".to_string(), theirs(&table, &ids, scale, position))]);
        let graph = build(scaled);
        let report = Diff::new(&graph, &given, &dump).run().expect("runs");
        assert_eq!(found(&report), expected, "{}", brief(&report));
    }
}
