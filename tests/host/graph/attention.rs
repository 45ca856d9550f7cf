//! What attention infers and refuses, and how masks become operands.

use tilewise::{
    DType, Graph, ValueId,
    graph::{Align, Attention, AttentionArgs, AttentionOperand as A, Binary, Mask, Op, ScoreStage, Window},
};

use super::{Operand, bools, f32s, gives, i32s, inferred, refuses};

/// q, k and v of 2 items, 6 query heads, 3 key heads, lengths 4 and 5, sizes 8 and 7.
fn qkv() -> [Operand; 3] {
    [f32s([2, 6, 4, 8]), f32s([2, 3, 5, 8]), f32s([2, 3, 5, 7])]
}

/// 9 queries and 11 keys of 2 sequences.
fn packed() -> [Operand; 5] {
    [f32s([9, 6, 8]), f32s([11, 3, 8]), f32s([11, 3, 7]), i32s([3]), i32s([3])]
}

fn with(operands: &[A]) -> Op {
    let align = if operands.contains(&A::Offsets) { Align::PerItem } else { Align::TopLeft };
    Op::Attention(Attention { operands: operands.to_vec(), align, ..Attention::default() })
}

#[test]
fn shapes() {
    let results = [f32s([2, 6, 4, 7]), f32s([2, 6, 4]), i32s([2])];
    gives(&with(&[]), &qkv(), &results);
    for shape in [vec![5], vec![1], vec![4, 5], vec![4, 1], vec![6, 1, 5], vec![2, 1, 1, 5], vec![2, 6, 4, 3]] {
        for (kind, dtype) in [(A::Mask, DType::Bool), (A::Bias, DType::F32), (A::Bias, DType::BF16)] {
            let operands = [&qkv()[..], &[(dtype, shape.clone().into())]].concat();
            gives(&with(&[kind]), &operands, &results);
        }
    }
    let all = [A::Mask, A::Bias, A::KeyLengths, A::QueryLengths, A::Offsets, A::Slopes];
    let operands = [bools([5]), f32s([4, 5]), i32s([2]), i32s([2]), i32s([2]), f32s([6])];
    gives(&with(&all), &[&qkv()[..], &operands].concat(), &results);

    let offsets = [A::QueryOffsets, A::KeyOffsets];
    gives(&with(&offsets), &packed(), &[f32s([9, 6, 7]), f32s([9, 6]), i32s([2])]);
    let lengths = [&packed()[..], &[i32s([2])]].concat();
    gives(
        &with(&[A::QueryOffsets, A::KeyOffsets, A::KeyLengths]),
        &lengths,
        &[f32s([9, 6, 7]), f32s([9, 6]), i32s([2])],
    );

    // lse is f32 whatever q is; no query and no key are fine.
    let half = |shape: &[usize]| (DType::F16, shape.into());
    let operands = [half(&[2, 6, 0, 8]), half(&[2, 3, 0, 8]), half(&[2, 3, 0, 7])];
    gives(&with(&[]), &operands, &[half(&[2, 6, 0, 7]), f32s([2, 6, 0]), i32s([2])]);
    // A cache may be narrower than what asks it, and v than k.
    let operands = [f32s([2, 6, 4, 8]), half(&[2, 3, 5, 8]), (DType::BF16, [2, 3, 5, 7].into())];
    gives(&with(&[]), &operands, &[f32s([2, 6, 4, 7]), f32s([2, 6, 4]), i32s([2])]);
}

#[test]
fn refusals() {
    const THREE: &str = "attention: `q` is [2, 6, 4, 8], `k` is";
    let [q, _, v] = qkv();
    let three = |k: Operand, v: Operand| [q.clone(), k, v];
    for (k, v, why) in [
        (f32s([1, 3, 5, 8]), v.clone(), "[1, 3, 5, 8], `v` is [2, 3, 5, 7]: the batch sizes differ"),
        (f32s([2, 3, 5, 9]), v.clone(), "[2, 3, 5, 9], `v` is [2, 3, 5, 7]: q and k must have the same head size"),
        (
            f32s([2, 3, 6, 8]),
            v.clone(),
            "[2, 3, 6, 8], `v` is [2, 3, 5, 7]: k and v must have the same heads and length",
        ),
        (
            f32s([2, 1, 5, 8]),
            v.clone(),
            "[2, 1, 5, 8], `v` is [2, 3, 5, 7]: k and v must have the same heads and length",
        ),
        (
            f32s([2, 4, 5, 8]),
            f32s([2, 4, 5, 7]),
            "[2, 4, 5, 8], `v` is [2, 4, 5, 7]: 6 query heads are no multiple of 4 key heads",
        ),
        (
            f32s([2, 0, 5, 8]),
            f32s([2, 0, 5, 7]),
            "[2, 0, 5, 8], `v` is [2, 0, 5, 7]: 6 query heads are no multiple of 0 key heads",
        ),
    ] {
        refuses(&with(&[]), &three(k, v), &format!("{THREE} {why}"));
    }
    refuses(
        &with(&[]),
        &three(f32s([2, 5, 8]), v.clone()),
        "attention: `k` has shape [2, 5, 8], expected rank 4: [B, H, T, D]",
    );
    refuses(&with(&[]), &three(i32s([2, 3, 5, 8]), v.clone()), "attention: `k` is i32, expected f32, f16 or bf16");
    refuses(
        &with(&[A::Mask, A::Slopes]),
        &qkv(),
        "attention: 3 operands were given, expected 5 (q, k, v, mask, slopes)",
    );

    let one = |kind: A, operand: Operand| (with(&[kind]), [&qkv()[..], &[operand]].concat());
    for (kind, operand, why) in [
        (A::Mask, f32s([5]), "`mask` is f32, expected bool"),
        (A::Bias, bools([5]), "`bias` is bool, expected f32, f16 or bf16"),
        (A::Mask, bools([]), "`mask` has shape [], expected one that broadcasts to [B, Hq, Tq, Tk] = [2, 6, 4, 5]"),
        (A::Mask, bools([6]), "`mask` has shape [6], expected one that broadcasts to [B, Hq, Tq, Tk] = [2, 6, 4, 5]"),
        (
            A::Bias,
            f32s([3, 5]),
            "`bias` has shape [3, 5], expected one that broadcasts to [B, Hq, Tq, Tk] = [2, 6, 4, 5]",
        ),
        (
            A::Bias,
            f32s([1, 2, 6, 4, 5]),
            "`bias` has shape [1, 2, 6, 4, 5], expected one that broadcasts to [B, Hq, Tq, Tk] = [2, 6, 4, 5]",
        ),
        (A::KeyLengths, f32s([2]), "`key_lengths` is f32, expected i32"),
        (A::KeyLengths, i32s([3]), "`key_lengths` has shape [3], expected [B] = [2]"),
        (A::QueryLengths, i32s([2, 1]), "`query_lengths` has shape [2, 1], expected [B] = [2]"),
        (A::Offsets, i32s([]), "`offsets` has shape [], expected [B] = [2]"),
        (A::Slopes, f32s([3]), "`slopes` has shape [3], expected [Hq] = [6]"),
        (A::Slopes, i32s([6]), "`slopes` is i32, expected f32"),
    ] {
        let (op, operands) = one(kind, operand);
        refuses(&op, &operands, &format!("attention: {why}"));
    }
    refuses(
        &with(&[A::Mask, A::Mask]),
        &[&qkv()[..], &[bools([5]), bools([5])]].concat(),
        "attention: `mask` is given twice",
    );
    let align = |align| Op::Attention(Attention { align, ..Attention::default() });
    refuses(&align(Align::PerItem), &qkv(), "attention: alignment per item and the operand `offsets` need each other");
}

#[test]
fn refusals_of_packed_sequences() {
    let [q, k, v, starts, _] = packed();
    refuses(
        &with(&[A::QueryOffsets]),
        &[q.clone(), k.clone(), v.clone(), starts.clone()],
        "attention: packed sequences need both `query_offsets` and `key_offsets`",
    );
    let both = [A::QueryOffsets, A::KeyOffsets];
    refuses(
        &with(&both),
        &[&qkv()[..], &[starts.clone(), starts.clone()]].concat(),
        "attention: `q` has shape [2, 6, 4, 8], expected rank 3: [ΣT, H, D]",
    );
    let offsets = |starts: Operand, keys: Operand| [q.clone(), k.clone(), v.clone(), starts, keys];
    refuses(&with(&both), &offsets(f32s([3]), starts.clone()), "attention: `query_offsets` is f32, expected i32");
    for (queries, keys, name, given) in
        [(i32s([3]), i32s([4]), "key_offsets", "[4]"), (i32s([0]), i32s([0]), "query_offsets", "[0]")]
    {
        let why = "expected [sequences + 1], the same for queries and keys";
        refuses(&with(&both), &offsets(queries, keys), &format!("attention: `{name}` has shape {given}, {why}"));
    }
    refuses(
        &with(&[A::QueryOffsets, A::KeyOffsets, A::Bias]),
        &[&packed()[..], &[f32s([11])]].concat(),
        "attention: `bias` is not taken with packed sequences",
    );
}

#[test]
fn numbers_are_finite() {
    let op = |scale, softcap| Op::Attention(Attention { scale, softcap, ..Attention::default() });
    for number in [f32::NAN, f32::INFINITY] {
        refuses(&op(Some(number), None), &qkv(), &format!("attention: scale is {number}, expected a finite number"));
    }
    for number in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let why = format!("attention: softcap is {number}, expected a finite number > 0");
        refuses(&op(None, Some(number)), &qkv(), &why);
    }
    let empty = [f32s([1, 1, 2, 0]), f32s([1, 1, 3, 0]), f32s([1, 1, 3, 4])];
    refuses(
        &op(None, None),
        &empty,
        "attention: `q` is [1, 1, 2, 0], `k` is [1, 1, 3, 0], `v` is [1, 1, 3, 4]: a head size of 0 has no 1/√D; give a \
         scale",
    );
    assert!(inferred(&op(Some(1.0), None), &empty).is_ok());
}

struct Masked {
    g: Graph,
    q: ValueId,
    k: ValueId,
    v: ValueId,
}

impl Masked {
    fn new() -> Self {
        let mut g = Graph::new();
        let mut input = |name, shape: [usize; 4]| g.input(name, DType::F32, shape).expect("fits");
        let (q, k, v) = (input("q", [2, 6, 4, 8]), input("k", [2, 3, 5, 8]), input("v", [2, 3, 5, 7]));
        Masked { g, q, k, v }
    }

    fn input(&mut self, name: &str, dtype: DType, shape: impl Into<tilewise::Shape>) -> ValueId {
        self.g.input(name, dtype, shape).expect("fits")
    }

    /// The operation that a mask becomes, and the labels of its operands behind v.
    fn op(&mut self, args: impl Into<AttentionArgs>) -> (Attention, Vec<String>) {
        let out = self.g.attention(self.q, self.k, self.v, args).expect("fits");
        self.g.verify().expect("valid");
        let node = self.g.definition(out);
        let Op::Attention(attention) = &node.op else { panic!("{:?}", node.op) };
        (attention.clone(), node.inputs[3..].iter().map(|&v| self.g.label(v)).collect())
    }

    fn error(&mut self, args: impl Into<AttentionArgs>) -> String {
        self.g.attention(self.q, self.k, self.v, args).expect_err("refused").to_string()
    }
}

#[test]
fn masks_become_options_and_operands() {
    let mut m = Masked::new();
    assert_eq!(m.op(Mask::none()), (Attention::default(), vec![]));
    let (seen, lengths) = (m.input("seen", DType::Bool, [5]), m.input("lengths", DType::I32, [2]));
    let mask = Mask::key_lengths(lengths) & Mask::causal(Align::BottomRight) & Mask::boolean(seen);
    let expected = Attention {
        causal: true,
        align: Align::BottomRight,
        operands: vec![A::Mask, A::KeyLengths],
        ..Attention::default()
    };
    assert_eq!(m.op(mask), (expected, vec!["seen".to_string(), "lengths".to_string()]));

    let mask = Mask::window(3, 1, Align::TopLeft) & Mask::window(None, 2, Align::TopLeft);
    assert_eq!(m.op(mask).0.window, Window { left: Some(3), right: Some(1) });

    let mask = Mask::causal(Align::PerItem) & Mask::offsets(lengths);
    let (op, operands) = m.op(mask);
    assert_eq!((op.align, operands), (Align::PerItem, vec!["lengths".to_string()]));
}

#[test]
fn two_parts_of_a_kind_become_one() {
    let mut m = Masked::new();
    let bias = [m.input("row", DType::F32, [5]), m.input("column", DType::F32, [4, 1])];
    let (op, operands) = m.op(Mask::bias(bias[0]) & Mask::bias(bias[1]));
    assert_eq!((op.operands, operands.len()), (vec![A::Bias], 1));
    let sum = m.g.nodes().iter().find(|node| node.op == Op::Binary { function: Binary::Add }).expect("a sum");
    assert_eq!((sum.inputs.as_slice(), m.g.label(sum.outputs[0])), (&bias[..], operands[0].clone()));
    // The same value twice is one part, not a sum.
    let (_, operands) = m.op(Mask::bias(bias[0]) & Mask::bias(bias[0]));
    assert_eq!(operands, ["row"]);
}

#[test]
fn masks_that_contradict_are_refused() {
    let mut m = Masked::new();
    let lengths = [m.input("a", DType::I32, [2]), m.input("b", DType::I32, [2])];
    assert_eq!(
        m.error(Mask::causal(Align::TopLeft) & Mask::window(1, 1, Align::BottomRight)),
        "attention: parts of the mask are aligned top-left and bottom-right: one attention has one alignment"
    );
    assert_eq!(
        m.error(Mask::offsets(lengths[0]) & Mask::offsets(lengths[1])),
        "attention: a mask names offsets, packed sequences or pages twice"
    );
    assert_eq!(
        m.error(Mask::causal(Align::PerItem)),
        "attention: alignment per item and the operand `offsets` need each other"
    );
}

#[test]
fn scores_are_written_out_for_who_wants_them() {
    let mut m = Masked::new();
    let lengths = m.input("lengths", DType::I32, [2]);
    let mask = Mask::causal(Align::TopLeft) & Mask::key_lengths(lengths);
    for stage in [ScoreStage::Scaled, ScoreStage::Capped, ScoreStage::Masked, ScoreStage::Weights] {
        let scores = m.g.attention_scores(m.q, m.k, mask.clone(), stage).expect("fits");
        assert_eq!(m.g.shape(scores), &[2, 6, 4, 5].into(), "{stage:?}");
    }
    m.g.verify().expect("valid");
    let starts = m.input("starts", DType::I32, [3]);
    let message = m.g.attention_weights(m.q, m.k, Mask::packed(starts, starts)).expect_err("refused").to_string();
    assert_eq!(
        message,
        "attention_scores: packed sequences have no common score matrix: look at one sequence at a time"
    );
}

#[test]
fn key_padding_is_of_items_and_keys() {
    let attended = |dtype: DType, shape: &[usize]| {
        let mut g = Graph::new();
        let q = g.input("q", DType::F32, [2, 4, 3, 8])?;
        let k = g.input("k", DType::F32, [2, 4, 5, 8])?;
        let real = g.input("real", dtype, shape)?;
        g.attention(q, k, k, Mask::key_padding(real)).map(|_| ())
    };
    attended(DType::Bool, &[2, 5]).expect("fits");
    attended(DType::Bool, &[5]).expect("the same for all items");
    let refused = |dtype, shape: &[usize]| attended(dtype, shape).expect_err("refused").to_string();
    assert_eq!(
        refused(DType::I32, &[2, 5]),
        "attention: `key_padding` is i32, expected bool, true for the keys that may be seen"
    );
    assert_eq!(
        refused(DType::Bool, &[2, 4]),
        "attention: `key_padding` has shape [2, 4], expected [B, Tk] with Tk = 5, an element for each key"
    );
    assert_eq!(refused(DType::Bool, &[]), "attention: `key_padding` has shape [], expected [B, Tk]");
    assert!(refused(DType::Bool, &[3, 5]).contains("`mask` has shape [3, 1, 1, 5]"));
}
