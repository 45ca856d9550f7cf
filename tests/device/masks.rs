//! docs/masks.md: each mask as a picture, drawn by attention itself, beside the line of code that makes it.
//!
//! With zero queries and keys all scores are equal, and with one-hot values `out[i, j] > 0` exactly where query i sees key
//! j. The page must be what the reference draws, and the device must draw the same. `UPDATE_DOCS=1` writes the page anew.

use std::{collections::BTreeMap, env, fmt::Write as _, fs, path::PathBuf};

use tilewise::{
    DType, Data, Graph, Result, Tensor, ValueId,
    graph::{Align, Mask, MaskMod},
    reference,
};

use crate::common::gpu;

/// Operands that masks name, by the names that the page uses.
struct Operands {
    lengths: ValueId,
    offsets: ValueId,
    pattern: ValueId,
    hidden: ValueId,
    starts: ValueId,
    documents: ValueId,
}

struct Picture {
    title: &'static str,
    note: &'static str,
    code: &'static str,
    sizes: [usize; 2],
    packed: bool,
    mask: fn(&Operands) -> Result<Mask>,
}

macro_rules! pictures {
    ($($title:literal, $note:literal, $tq:literal x $tk:literal $($packed:ident)?: |$o:ident| $mask:expr;)*) => {
        [$(Picture {
            title: $title,
            note: $note,
            code: stringify!($mask),
            sizes: [$tq, $tk],
            packed: [$(stringify!($packed) == "packed",)? false][0],
            mask: |$o| { let _ = $o; Ok($mask) },
        }),*]
    };
}

fn pictures() -> Vec<Picture> {
    pictures! {
        "Nothing masked", "Every query attends to every key.", 4 x 6: |o| Mask::none();
        "Causal, top left", "Query i attends to the keys up to i. PyTorch's `is_causal`; the self-attention of a decoder in training.",
            6 x 6: |o| Mask::causal(Align::TopLeft);
        "Causal, top left, fewer queries than keys", "The last keys are masked for all queries.",
            3 x 6: |o| Mask::causal(Align::TopLeft);
        "Causal, bottom right, fewer queries than keys", "The last query attends to all keys: decoding with a cache, FlashAttention's alignment.",
            3 x 6: |o| Mask::causal(Align::BottomRight);
        "Causal, bottom right, more queries than keys", "The first rows are fully masked: their result is exactly 0.",
            6 x 3: |o| Mask::causal(Align::BottomRight);
        "Causal, an explicit offset", "Query 0 stands at key 2.", 4 x 6: |o| Mask::causal(Align::Offset(2));
        "Causal, a negative offset", "Query 0 stands before the first key: its row is fully masked.",
            5 x 5: |o| Mask::causal(Align::Offset(-2));
        "Causal, an offset from a buffer", "One offset per batch item, read on the device: here 1.",
            4 x 6: |o| Mask::causal(Align::PerItem) & Mask::offsets(o.offsets);
        "Sliding window, to the left", "The query's own key and the two before it.",
            7 x 7: |o| Mask::window(2, 0, Align::TopLeft);
        "Sliding window, both sides", "One key before, two after.", 7 x 7: |o| Mask::window(1, 2, Align::TopLeft);
        "Sliding window, open to the right", "No key further back than one.", 6 x 6: |o| Mask::window(1, None, Align::TopLeft);
        "Window and causal, bottom right", "Parts are combined with `&`: a key is masked if any part masks it.",
            4 x 7: |o| Mask::causal(Align::BottomRight) & Mask::window(2, None, Align::BottomRight);
        "Key lengths", "Padding: keys from the length on are masked. The length, here 4, is read on the device.",
            4 x 6: |o| Mask::key_lengths(o.lengths);
        "Key lengths and causal, bottom right", "The offset follows the length: the last query stands at the last real key.",
            3 x 6: |o| Mask::key_lengths(o.lengths) & Mask::causal(Align::BottomRight);
        "Query lengths", "Rows from the length on are fully masked, and give 0.", 6 x 5: |o| Mask::query_lengths(o.lengths);
        "A boolean mask", "True where a key takes part. Read in place, in any shape that broadcasts.",
            6 x 6: |o| Mask::boolean(o.pattern);
        "An additive mask", "−inf masks; every finite number is a score like any other.", 6 x 6: |o| Mask::bias(o.hidden);
        "A boolean mask and causal", "", 6 x 6: |o| Mask::boolean(o.pattern) & Mask::causal(Align::TopLeft);
        "Packed sequences", "Three sequences of 3, 1 and 4 tokens, end to end: each attends to itself only. No padding is computed.",
            8 x 8 packed: |o| Mask::packed(o.starts, o.starts);
        "Packed sequences, causal", "Positions count within each sequence.",
            8 x 8 packed: |o| Mask::packed(o.starts, o.starts) & Mask::causal(Align::TopLeft);
        "A function: blocks", "Any predicate in WGSL over `b`, `h`, `h_kv`, `i`, `j`, `position`, `q_len` and `k_len`, with a twin in Rust for the reference.",
            7 x 7: |o| Mask::function(MaskMod::new("i / 3 == j / 3", |s| s.i / 3 == s.j / 3)?);
        "A function: a prefix for all queries", "What comes after it is causal.", 6 x 6: |o| Mask::function(MaskMod::new("j < 2 || j <= position", |s| s.j < 2 || s.j <= s.position)?);
        "A function: dilated window", "Every other key of the last four before the query's own.",
            8 x 8: |o| Mask::function(MaskMod::new("(i - j) % 2 == 0 && i - j <= 4", |s| (s.i - s.j) % 2 == 0 && s.i - s.j <= 4)?) & Mask::causal(Align::TopLeft);
        "A function with a table: documents", "`table[...]` reads an f32 value of the graph: here the document of each token, 0 0 0 1 1 2 2 2.",
            8 x 8: |o| Mask::function(MaskMod::new("table[i] == table[j]", |s| s.table(s.i) == s.table(s.j))?) & Mask::table(o.documents);
    }
    .into()
}

impl Picture {
    /// A graph whose output `seen` is `[Tq, Tk]`, and what it needs.
    fn graph(&self) -> (Graph, BTreeMap<String, Tensor>) {
        let [tq, tk] = self.sizes;
        let mut g = Graph::new();
        let mut given = BTreeMap::new();
        let mut add = |g: &mut Graph, name: &str, shape: &[usize], data: Data| -> ValueId {
            let tensor = Tensor::new(shape, data).expect("fits");
            let value = g.input(name, tensor.dtype(), shape).expect("a new name");
            given.insert(name.to_string(), tensor);
            value
        };
        let shape = |t: usize, d: usize| if self.packed { vec![t, 1, d] } else { vec![1, 1, t, d] };
        let q = add(&mut g, "q", &shape(tq, 1), vec![0.0f32; tq].into());
        let k = add(&mut g, "k", &shape(tk, 1), vec![0.0f32; tk].into());
        let one_hot: Vec<f32> = (0..tk * tk).map(|e| f32::from(e / tk == e % tk)).collect();
        let v = add(&mut g, "v", &shape(tk, tk), one_hot.into());
        let pattern: Vec<bool> = (0..tq * tk).map(|e| (e / tk * 3 + e % tk * 5) % 4 != 0).collect();
        let hidden: Vec<f32> =
            (0..tq * tk).map(|e| if (e / tk + e % tk) % 3 == 1 { f32::NEG_INFINITY } else { 0.5 }).collect();
        let operands = Operands {
            lengths: add(&mut g, "lengths", &[1], vec![4i32].into()),
            offsets: add(&mut g, "offsets", &[1], vec![1i32].into()),
            pattern: add(&mut g, "pattern", &[tq, tk], pattern.into()),
            hidden: add(&mut g, "hidden", &[tq, tk], hidden.into()),
            starts: add(&mut g, "starts", &[4], vec![0i32, 3, 4, 8].into()),
            documents: add(&mut g, "documents", &[8], vec![0.0f32, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 2.0].into()),
        };
        let out = g.attention(q, k, v, (self.mask)(&operands).expect(self.title)).expect(self.title);
        let seen = g.reshape(out, [tq, tk]).expect("same elements");
        g.output("seen", seen).expect("a new name");
        (g, given)
    }

    fn draw(&self, seen: &Tensor) -> String {
        let [tq, tk] = self.sizes;
        let weights = seen.as_f32().expect("f32");
        let mut text = String::from("     j");
        (0..tk).for_each(|j| write!(text, " {j}").expect("a string"));
        for i in 0..tq {
            write!(text, "\n i {i}  ").expect("a string");
            (0..tk).for_each(|j| text += if weights[i * tk + j] > 0.0 { " x" } else { " ." });
        }
        text + "\n"
    }
}

fn page() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/masks.md")
}

#[test]
fn the_page_shows_what_the_reference_sees() {
    let mut text = String::from(
        "# Masks, drawn\n\nRows are queries `i`, columns are keys `j`; `x` marks a key that is not masked. Attention itself draws each picture, \
         from the line of code above it\n(`tests/device/masks.rs`). In the code, `o` holds the mask's operands: `o.lengths` and \
         the like are values of the graph.\n",
    );
    for picture in pictures() {
        let (g, given) = picture.graph();
        let seen = &reference::evaluate(&g, &given).expect(picture.title)["seen"];
        let Picture { title, note, code, .. } = &picture;
        let note = if note.is_empty() { String::new() } else { format!("{note}\n\n") };
        write!(text, "\n## {title}\n\n{note}```text\n{code}\n\n{}```\n", picture.draw(seen)).expect("a string");
    }
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(page(), &text).expect("writable");
    }
    let found = fs::read_to_string(page()).expect("the page is there");
    assert!(found == text, "docs/masks.md is not what the reference draws; UPDATE_DOCS=1 writes it anew:\n{text}");
}

#[test]
fn the_device_sees_the_same() {
    for picture in pictures() {
        let (g, given) = picture.graph();
        let expected = picture.draw(&reference::evaluate(&g, &given).expect(picture.title)["seen"]);
        let mut program = gpu().compile(&g, []).expect(picture.title);
        let inputs: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let outputs = program.run(&inputs).expect(picture.title);
        assert_eq!(picture.draw(&outputs["seen"]), expected, "{}", picture.title);
        assert_eq!(outputs["seen"].dtype(), DType::F32);
    }
}
