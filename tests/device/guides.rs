//! The figures of the guides are drawn by the layers that they speak of. `UPDATE_DOCS=1` writes them anew.

use std::{collections::BTreeMap, env, fmt::Write as _, fs, path::PathBuf, time::Instant};

use tilewise::{
    DType, Graph, Tensor, ValueId,
    graph::{Align, Mask},
    kernel::Profile,
    lower::{self, Options, Step},
    nn::EncoderLayer,
    reference,
};

use crate::common::gpu;

/// What stands between `<!-- NAME -->` and `<!-- end -->` in a guide must be this text.
fn figure(guide: &str, name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join(guide);
    let page = fs::read_to_string(&path).expect("the guide is there");
    let begin = format!("<!-- {name} -->\n");
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("{guide} has no {begin}"));
    let (found, after) = rest.split_once("<!-- end -->").expect("the figure ends");
    if found == text {
        return;
    }
    assert!(env::var_os("UPDATE_DOCS").is_some(), "{guide}, {name} should be; UPDATE_DOCS=1 writes it:\n{text}");
    fs::write(&path, format!("{before}{begin}{text}<!-- end -->{after}")).expect("writable");
}

/// Which keys each query sees: all scores are equal with zero queries and keys, and values are one-hot.
fn seen(tq: usize, tk: usize, lengths: &[i32], mask: impl FnOnce(ValueId) -> Mask) -> Vec<f32> {
    let (mut g, batch) = (Graph::new(), lengths.len());
    let zeros = |t: usize| Tensor::zeros(DType::F32, [batch, 1, t, 1]).expect("fits");
    let one_hot: Vec<f32> = (0..batch * tk * tk).map(|e| f32::from(e / tk % tk == e % tk)).collect();
    let given: BTreeMap<String, Tensor> = [
        ("q", zeros(tq)),
        ("k", zeros(tk)),
        ("v", Tensor::new([batch, 1, tk, tk], one_hot).expect("fits")),
        ("lengths", Tensor::new([batch], lengths.to_vec()).expect("fits")),
    ]
    .map(|(name, tensor)| (name.to_string(), tensor))
    .into();
    let [q, k, v, lengths] = ["q", "k", "v", "lengths"].map(|name| {
        let tensor = &given[name];
        g.input(name, tensor.dtype(), tensor.shape().clone()).expect("a new name")
    });
    let out = g.attention(q, k, v, mask(lengths)).expect("valid");
    g.output("seen", out).expect("a new name");
    reference::evaluate(&g, &given).expect("runs")["seen"].as_f32().expect("f32").to_vec()
}

#[test]
fn the_decoder_guide_shows_what_each_query_sees() {
    let (target, source) = ([5, 3], [7, 4]);
    let own = seen(5, 5, &target, |lengths| Mask::causal(Align::TopLeft) & Mask::key_lengths(lengths));
    let over = seen(5, 7, &source, Mask::key_lengths);
    let mut text = String::from("```text\n");
    for item in 0..2 {
        writeln!(text, "item {item}: {} target tokens of 5, {} source tokens of 7", target[item], source[item])
            .expect("a string");
        text += "  self-attention, keys: target       encoder–decoder attention, keys: source\n";
        for i in 0..5 {
            let row = |weights: &[f32], tk: usize| -> String {
                let first = (item * 5 + i) * tk;
                weights[first..first + tk].iter().map(|&w| if w > 0.0 { " x" } else { " ." }).collect()
            };
            let padding = if i as i32 >= target[item] { "   (padding: nobody reads it)" } else { "" };
            writeln!(text, "  i {i}  {:<30}{}{padding}", row(&own, 5), row(&over, 7)).expect("a string");
        }
    }
    figure("decoder.md", "what each query sees", &(text + "```\n"));
}

const LENGTHS: [i32; 8] = [128, 90, 64, 40, 28, 20, 12, 6];

/// An encoder layer over a batch, padded with lengths or packed.
fn layer(packed: bool) -> (Graph, BTreeMap<String, Tensor>) {
    let (width, items, longest) = (384, LENGTHS.len(), 128);
    let mut starts = vec![0];
    LENGTHS.iter().for_each(|length| starts.push(starts[starts.len() - 1] + length));
    let total = starts[items] as usize;
    let mut g = Graph::new();
    let (shape, name, numbers) = match packed {
        true => (vec![total, width], "offsets", starts),
        false => (vec![items, longest, width], "lengths", LENGTHS.to_vec()),
    };
    let x = g.input("x", DType::F32, &shape[..]).expect("valid");
    let said = g.input(name, DType::I32, [numbers.len()]).expect("valid");
    let mask = if packed { Mask::packed(said, said) } else { Mask::key_lengths(said) };
    let y = EncoderLayer::new(width, 12, 4 * width).build(&mut g, "layer", x, &mask.into()).expect("valid");
    g.output("y", y).expect("a new name");
    let n = shape.iter().product::<usize>();
    let x = Tensor::new(&shape[..], (0..n).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<_>>()).expect("fits");
    let said = Tensor::new([numbers.len()], numbers).expect("fits");
    (g, [("x".to_string(), x), (name.to_string(), said)].into())
}

#[test]
fn the_padding_guide_says_what_each_way_costs() {
    let mut text = String::from("| | tokens | GFLOP | temporaries |\n|---|---|---|---|\n");
    let mut flops = [0; 2];
    for packed in [false, true] {
        let (g, given) = layer(packed);
        let program = lower::lower(&g, &Profile::portable(), &Options::default()).expect("lowers");
        flops[usize::from(packed)] = program.steps.iter().map(Step::flops).sum::<u64>();
        let name = if packed { "packed" } else { "padded to the longest, with lengths" };
        let tokens = given["x"].len() / 384;
        let (work, memory) =
            (flops[usize::from(packed)] as f64 / 1e9, program.peak_bytes() as f64 / f64::from(1 << 20));
        writeln!(text, "| {name} | {tokens} | {work:.2} | {memory:.1} MiB |").expect("a string");
    }
    figure("padding.md", "costs", &text);
    assert!(flops[1] * 2 < flops[0], "{flops:?}");
}

/// Less work is less time: on a batch where two thirds are padding, packed takes far less than the padded run.
#[test]
fn packed_is_faster_than_padded() {
    let mut runs: Vec<_> = [false, true]
        .into_iter()
        .map(|packed| {
            let (g, given) = layer(packed);
            let weights: Vec<(String, Tensor)> = g
                .parameters()
                .map(|(name, value)| {
                    (name.to_string(), Tensor::zeros(DType::F32, g.shape(value).clone()).expect("fits"))
                })
                .collect();
            let weights: Vec<(&str, &Tensor)> = weights.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
            let mut program = gpu().compile(&g, &weights[..]).expect("compiles");
            let given: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
            program.set_inputs(&given).expect("fits");
            (program, f64::INFINITY)
        })
        .collect();
    for _ in 0..5 {
        for (program, best) in &mut runs {
            let begun = Instant::now();
            program.bench(1, 1).expect("runs");
            *best = best.min(begun.elapsed().as_secs_f64());
        }
    }
    let [padded, packed] = [runs[0].1, runs[1].1];
    println!("padded {:.1} ms, packed {:.1} ms: {:.2} of the time", padded * 1e3, packed * 1e3, packed / padded);
    assert!(packed < 0.75 * padded, "packed {packed} s, padded {padded} s");
}
