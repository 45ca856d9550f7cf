//! Attention as people write it out, `softmax(q@kᵀ·scale + mask) @ v`, becomes one operation.
//!
//! The weights (the softmax) are followed back to the product of q and k through what stands between: from the outside
//! in, masks and biases in any order, then a softcap, then factors. Everything on that path must have one reader, since
//! none of it is in memory afterwards.

use std::cell::Cell;

use super::rebuild::Rebuild;
use crate::{
    DType, Graph, Layout, Result, Shape, ValueId,
    graph::{Attention, AttentionOperand, Binary, NodeId, Op, Unary},
    kernel::{AttentionProblem, Candidate, Problem, Profile},
    lower::pattern::{scaled, swaps_last_two, unary_of},
};

const RULE: &str = "recognise attention";

/// Values that are looked at on the way back from a product, and factors on one of its operands: more than anyone writes.
const BUDGET: u32 = 64;

/// Why a product with a softmax does not become attention.
enum Refusal {
    /// There is no product behind the softmax: it isn't attention at all.
    NotAttention,
    /// It looks like attention, but for this.
    Because(String),
}

impl From<String> for Refusal {
    fn from(reason: String) -> Self {
        Refusal::Because(reason)
    }
}

/// An operand of a product, its last two axes swapped or not; a value of the old graph.
#[derive(Clone, Copy)]
struct Matrix {
    value: ValueId,
    transposed: bool,
}

/// What was found between the weights and q and k; values of the old graph.
struct Scores {
    q: Matrix,
    k: Matrix,
    /// Factor on the product, inside the softcap.
    scale: f64,
    softcap: Option<f64>,
    masks: Vec<Mask>,
    biases: Vec<Bias>,
    /// Values that vanish, from the product outwards.
    path: Vec<ValueId>,
}

/// A condition under which a key is masked, or takes part.
struct Mask {
    condition: ValueId,
    hides: bool,
    /// The shape of the scores where it is applied.
    at: Shape,
}

/// A term added to the scores, or subtracted.
struct Bias {
    value: ValueId,
    negative: bool,
    /// The shape of the scores where it is applied.
    at: Shape,
}

/// Replaces `softmax(…) @ v` by attention, or notes why not.
pub(super) fn recognise(rebuild: &mut Rebuild<'_>, id: NodeId, profile: &Profile) -> Result<bool> {
    let node = rebuild.old.node(id);
    let Op::Matmul { transpose_a: false, transpose_b } = node.op else { return Ok(false) };
    let v = Matrix { value: node.inputs[1], transposed: transpose_b };
    let found = Search { rebuild, graph: rebuild.old, budget: Cell::new(BUDGET) }.weights(id);
    let plan = found.and_then(|scores| Plan::new(rebuild, id, scores, v, profile).map_err(Refusal::Because));
    match plan {
        Ok(plan) => plan.write(rebuild, id).map(|()| true),
        Err(Refusal::NotAttention) => Ok(false),
        Err(Refusal::Because(reason)) => {
            rebuild.note(RULE, node.outputs[0], false, reason);
            Ok(false)
        }
    }
}

/// The way back from the weights to q and k.
struct Search<'a> {
    rebuild: &'a Rebuild<'a>,
    graph: &'a Graph,
    /// Values that may still be looked at: sums are followed on both sides.
    budget: Cell<u32>,
}

impl Search<'_> {
    /// Follows the first operand of a product back through the softmax.
    fn weights(&self, product: NodeId) -> Result<Scores, Refusal> {
        let (graph, rebuild) = (self.graph, self.rebuild);
        let mut value = graph.node(product).inputs[0];
        let mut outside = Vec::new();
        loop {
            let node = graph.definition(value);
            outside.push(value);
            match node.op {
                Op::Softmax { axis } => {
                    let mut scores = self.follow(node.inputs[0])?;
                    if axis + 1 != graph.shape(value).rank() {
                        return Err(
                            format!("the softmax {} is not along the last axis", rebuild.survey.quote(value)).into()
                        );
                    }
                    for value in outside.into_iter().rev() {
                        rebuild.survey.sole_reader(value)?;
                        scores.path.push(value);
                    }
                    return Ok(scores);
                }
                Op::Cast { .. } if self.converts_floats(value) => value = node.inputs[0],
                Op::Reshape { .. } if self.keeps_matrices(value) => value = node.inputs[0],
                _ => return Err(Refusal::NotAttention),
            }
        }
    }

    /// The scores behind `value`.
    fn follow(&self, value: ValueId) -> Result<Scores, Refusal> {
        let left = self.budget.get().checked_sub(1).ok_or(Refusal::NotAttention)?;
        self.budget.set(left);
        let id = self.graph.value(value).node;
        let node = self.graph.node(id);
        let mut scores = match &node.op {
            &Op::Matmul { transpose_a, transpose_b } => {
                let (q, q_factor) = self.operand(node.inputs[0], transpose_a);
                let (k, k_factor) = self.operand(node.inputs[1], !transpose_b);
                let (scale, path) = (q_factor * k_factor, Vec::new());
                Scores { q, k, scale, softcap: None, masks: Vec::new(), biases: Vec::new(), path }
            }
            Op::Cast { .. } if self.converts_floats(value) => self.follow(node.inputs[0])?,
            Op::Reshape { .. } if self.keeps_matrices(value) => self.follow(node.inputs[0])?,
            Op::Where => self.masked(id)?,
            Op::Binary { function: Binary::Add } => self.biased(id, false)?,
            Op::Binary { function: Binary::Sub } => self.biased(id, true)?,
            Op::Binary { function: Binary::Mul | Binary::Div } => self.factored(id)?,
            Op::Unary { function: Unary::Tanh } => {
                let inner = self.bare(self.follow(node.inputs[0])?, value, "tanh")?;
                Scores { softcap: Some(1.0), ..inner }
            }
            _ => return Err(Refusal::NotAttention),
        };
        self.rebuild.survey.sole_reader(value)?;
        scores.path.push(value);
        Ok(scores)
    }

    /// `where(mask, scores, −inf)`, or with the branches swapped.
    fn masked(&self, id: NodeId) -> Result<Scores, Refusal> {
        let &[condition, a, b] = &self.graph.node(id).inputs[..] else { return Err(Refusal::NotAttention) };
        let (scores, fill, hides) = match (self.graph.uniform(a), self.graph.uniform(b)) {
            (None, Some(fill)) => (a, fill, false),
            (Some(fill), None) => (b, fill, true),
            _ => return Err(Refusal::NotAttention),
        };
        let mut found = self.follow(scores)?;
        let result = self.graph.node(id).outputs[0];
        if fill != f64::NEG_INFINITY {
            return Err(format!(
                "{} puts {:e} in the place of masked scores, a number like any other: a fully masked row then weighs \
                 all keys equally, which a mask does not; put −inf there",
                self.rebuild.survey.quote(result),
                fill as f32
            )
            .into());
        }
        found.masks.push(Mask { condition, hides, at: self.graph.shape(result).clone() });
        Ok(found)
    }

    /// `scores + bias`, in either order, or `scores − bias`. A bias that is 0 or −inf by a condition is a mask.
    fn biased(&self, id: NodeId, negative: bool) -> Result<Scores, Refusal> {
        let &[a, b] = &self.graph.node(id).inputs[..] else { return Err(Refusal::NotAttention) };
        let (mut found, value) = match self.follow(a) {
            Ok(found) => (found, b),
            Err(first) if negative => return Err(first),
            // A bias may itself be a product: what isn't attention on one side may be on the other.
            Err(first) => match (self.follow(b), first) {
                (Ok(found), _) => (found, a),
                (Err(second), Refusal::NotAttention) => return Err(second),
                (Err(_), first) => return Err(first),
            },
        };
        let at = self.graph.shape(self.graph.node(id).outputs[0]).clone();
        match self.condition_of(value) {
            Some((condition, hides)) if !negative => found.masks.push(Mask { condition, hides, at }),
            _ => found.biases.push(Bias { value, negative, at }),
        }
        Ok(found)
    }

    /// The condition of `where(condition, 0, −inf)`, and whether it is the other way round.
    fn condition_of(&self, bias: ValueId) -> Option<(ValueId, bool)> {
        let node = self.graph.definition(bias);
        let (&Op::Where, &[condition, a, b]) = (&node.op, &node.inputs[..]) else { return None };
        let (a, b) = (self.graph.uniform(a)?, self.graph.uniform(b)?);
        let hides = match (a == 0.0 && b == f64::NEG_INFINITY, a == f64::NEG_INFINITY && b == 0.0) {
            (true, _) => false,
            (_, true) => true,
            _ => return None,
        };
        Some((condition, hides))
    }

    /// A factor on the scores: part of the scale, or c of `c·tanh(scores/c)`.
    fn factored(&self, id: NodeId) -> Result<Scores, Refusal> {
        let node = self.graph.node(id);
        let Some((value, factor)) = scaled(self.graph, node) else {
            for (scores, factor) in [(node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])] {
                if self.follow(scores).is_ok() {
                    let factor = self.rebuild.survey.quote(factor);
                    return Err(format!("the factor {factor} on the scores is not a constant number").into());
                }
            }
            return Err(Refusal::NotAttention);
        };
        let found = self.follow(value)?;
        // c·tanh(t) is softcap(c·t).
        let is_tanh = unary_of(self.graph, value).is_some_and(|(function, _)| function == Unary::Tanh);
        if is_tanh && factor > 0.0 {
            return Ok(Scores { softcap: Some(factor), scale: found.scale * factor, ..found });
        }
        let found = self.bare(found, node.outputs[0], node.op.name())?;
        Ok(Scores { scale: found.scale * factor, ..found })
    }

    /// The scores, if nothing but factors was applied to them before the operation that gives `outer`.
    fn bare(&self, found: Scores, outer: ValueId, op: &str) -> Result<Scores, Refusal> {
        let inner = match (&found.softcap, &found.masks[..], &found.biases[..]) {
            (None, [], []) => return Ok(found),
            (Some(_), ..) => "capped by tanh",
            (None, [_, ..], _) => "masked",
            (None, [], _) => "biased",
        };
        let outer = self.rebuild.survey.quote(outer);
        Err(format!("the scores are {inner} before the {op} that gives {outer}; attention does that after").into())
    }

    /// An operand of a product without the constant factors and transpositions on it, and the product of the factors.
    fn operand(&self, value: ValueId, transposed: bool) -> (Matrix, f64) {
        let mut matrix = Matrix { value, transposed };
        let mut factors = 1.0;
        for _ in 0..BUDGET {
            let node = self.graph.definition(matrix.value);
            if let Op::Permute { order } = &node.op
                && swaps_last_two(order)
            {
                matrix = Matrix { value: node.inputs[0], transposed: !matrix.transposed };
            } else if let Some((value, factor)) = scaled(self.graph, node) {
                matrix.value = value;
                factors *= factor;
            } else {
                break;
            }
        }
        (matrix, factors)
    }

    fn converts_floats(&self, value: ValueId) -> bool {
        let operand = self.graph.definition(value).inputs[0];
        self.graph.dtype(value).is_float() && self.graph.dtype(operand).is_float()
    }

    /// Whether a reshape only groups the leading axes anew.
    fn keeps_matrices(&self, value: ValueId) -> bool {
        let (to, from) = (self.graph.shape(value), self.graph.shape(self.graph.definition(value).inputs[0]));
        to.rank() >= 2 && from.rank() >= 2 && to[to.rank() - 2..] == from[from.rank() - 2..]
    }
}

/// A recognised attention whose every part fits the operation.
struct Plan {
    scores: Scores,
    v: Matrix,
    /// `[B, Hq]`
    heads: [usize; 2],
    sharing: Sharing,
    attention: Attention,
}

/// How query heads share keys and values.
enum Sharing {
    /// Each has its own.
    None,
    /// k and v have one head for all, which the products stretch.
    One,
    /// k and v were repeated this many times; the values before that.
    Repeated(usize, [ValueId; 2]),
}

impl Plan {
    fn new(rebuild: &Rebuild<'_>, id: NodeId, scores: Scores, v: Matrix, profile: &Profile) -> Result<Self, String> {
        let graph = rebuild.old;
        let [q, k] = [scores.q, scores.k];
        let [dq, dk, dv] = [q, k, v].map(|matrix| graph.dtype(matrix.value));
        if dq != dk || dq != dv {
            return Err(format!("q is {dq}, k is {dk} and v is {dv}: products of one dtype are recognised"));
        }
        if [q, k, v].iter().any(|matrix| graph.shape(matrix.value).rank() < 2) {
            return Err("one of q, k and v is a vector".into());
        }
        let heads = heads(rebuild, &scores.path)?;
        let product = graph.shape(scores.path[0]);
        let [weights, out] = [graph.node(id).inputs[0], graph.node(id).outputs[0]].map(|v| graph.shape(v));
        if leading(out) != leading(weights) {
            return Err(format!("v {} stretches the weights {weights}", graph.shape(v.value)));
        }
        let sharing = sharing(graph, [(k, leading(product)), (v, leading(weights))], heads);
        let key_heads = match sharing {
            Sharing::None => heads[1],
            Sharing::One => 1,
            Sharing::Repeated(times, _) => heads[1] / times,
        };
        let operands = [
            (!scores.masks.is_empty()).then_some(AttentionOperand::Mask),
            (!scores.biases.is_empty()).then_some(AttentionOperand::Bias),
        ];
        let attention = Attention {
            scale: Some(scores.scale as f32),
            softcap: scores.softcap.map(|c| c as f32),
            operands: operands.into_iter().flatten().collect(),
            ..Attention::default()
        };

        let [tq, tk] = [product[product.rank() - 2], product[product.rank() - 1]];
        let [d, width] = [q, v].map(|matrix| {
            let shape = graph.shape(matrix.value);
            shape[shape.rank() - if matrix.transposed { 2 } else { 1 }]
        });
        let dense = |heads_of: usize, t: usize, d: usize| Layout::contiguous([heads[0], heads_of, t, d]);
        let problem = AttentionProblem::new(
            attention.clone(),
            dense(heads[1], tq, d),
            dense(key_heads, tk, d),
            dense(key_heads, tk, width),
            attention.operands.iter().map(|_| dense(heads[1], tq, tk)).collect(),
        );
        let candidates = problem.candidates(profile);
        if !candidates.iter().any(Candidate::is_usable) {
            return Err(format!("no attention kernel takes it: {}", Candidate::refusals(&candidates).join("; ")));
        }
        Ok(Plan { scores, v, heads, sharing, attention })
    }

    fn write(self, rebuild: &mut Rebuild<'_>, id: NodeId) -> Result<()> {
        let graph = rebuild.old;
        let [weights, result] = [graph.node(id).inputs[0], graph.node(id).outputs[0]];
        let Plan { scores, v, heads: [batch, heads], sharing, attention } = self;
        let product = leading(graph.shape(scores.path[0])).to_vec();
        let q = matrices(rebuild, scores.q, &product, [batch, heads])?;
        let keys = [(scores.k, product), (v, leading(graph.shape(weights)).to_vec())];
        let mut inputs = vec![q];
        for (i, (matrix, mut leading)) in keys.into_iter().enumerate() {
            inputs.push(match &sharing {
                Sharing::None => matrices(rebuild, matrix, &leading, [batch, heads])?,
                Sharing::One => {
                    leading.pop();
                    leading.push(1);
                    matrices(rebuild, matrix, &leading, [batch, 1])?
                }
                Sharing::Repeated(times, before) => {
                    regrouped(rebuild, Matrix { value: before[i], ..matrix }, [batch, heads / times])?
                }
            });
        }
        let mut words = vec![format!("scale {}", attention.scale.unwrap_or(1.0))];
        words.extend(attention.softcap.map(|c| format!("softcap {c}")));
        if let Some(mask) = join_masks(rebuild, &scores.masks, [batch, heads])? {
            inputs.push(mask);
            words.push("a boolean mask".into());
        }
        if let Some(bias) = join_biases(rebuild, &scores.biases, [batch, heads])? {
            inputs.push(bias);
            words.push("a bias".into());
        }
        match &sharing {
            Sharing::None => {}
            Sharing::One => words.push("one key head for all query heads".into()),
            Sharing::Repeated(times, _) => words.push(format!("{times} query heads a key head")),
        }
        let attended = rebuild.push(Op::Attention(attention), &inputs, result)?[0];
        rebuild.cover(attended, scores.path.iter().copied().chain([result]));
        let reason = format!(
            "softmax(q@kᵀ)@v with {}; the scores {} are never in memory",
            words.join(", "),
            graph.shape(scores.path[0])
        );
        rebuild.note(RULE, result, true, reason);
        let out = reshaped(rebuild, attended, graph.shape(result), result)?;
        rebuild.replace(result, out)
    }
}

/// The axes before the last two.
fn leading(shape: &Shape) -> &[usize] {
    &shape[..shape.rank().saturating_sub(2)]
}

/// `[B, Hq]` for scores that have these shapes from the product to the weights.
fn heads(rebuild: &Rebuild<'_>, path: &[ValueId]) -> Result<[usize; 2], String> {
    let graph = rebuild.old;
    let product = graph.shape(path[0]);
    let mut heads = match leading(product) {
        [] => [1, 1],
        &[n] => [1, n],
        &[batch, heads] => [batch, heads],
        _ => return Err(format!("the scores {product} have more than four axes")),
    };
    let mut known = product.rank() == 4;
    for &value in path {
        let shape = graph.shape(value);
        if shape.elements() != product.elements() {
            return Err(format!("{} stretches the scores {product} to {shape}", rebuild.survey.quote(value)));
        }
        match leading(shape) {
            [] | [_] => {}
            &[b, h] if !known || heads == [b, h] => (heads, known) = ([b, h], true),
            _ => return Err(format!("{} groups the scores {product} anew, as {shape}", rebuild.survey.quote(value))),
        }
    }
    Ok(heads)
}

/// Whether query heads share keys and values; `matrices` are k and v with the leading axes of the products they are in.
fn sharing(graph: &Graph, matrices: [(Matrix, &[usize]); 2], [batch, heads]: [usize; 2]) -> Sharing {
    let [k, v] = matrices.map(|(matrix, _)| repeated(graph, matrix.value));
    if let (Some((k, times)), Some((v, same))) = (k, v)
        && times == same
        && heads % times == 0
    {
        return Sharing::Repeated(times, [k, v]);
    }
    // A head axis of 1, where the product has another.
    let one = |(matrix, product): (Matrix, &[usize])| {
        let missing = leading(graph.shape(matrix.value)).last().is_none_or(|&size| size == 1);
        missing && (product.len() == 2 || (product.len() == 1 && batch == 1))
    };
    if heads > 1 && matrices.into_iter().all(one) { Sharing::One } else { Sharing::None }
}

/// Matrices `[…, H, T, D]` that are each of `[…, H/n, T, D]` n times in a row: the value before, `[…, H/n, 1, T, D]`, and n.
fn repeated(graph: &Graph, value: ValueId) -> Option<(ValueId, usize)> {
    let node = graph.definition(value);
    let Op::Reshape { shape: joined } = &node.op else { return None };
    let stretch = graph.definition(node.inputs[0]);
    let Op::Broadcast { shape: stretched } = &stretch.op else { return None };
    let before = graph.shape(stretch.inputs[0]);
    let (rank, axis) = (stretched.rank(), stretched.rank().checked_sub(3)?);
    let only_there = before.rank() == rank
        && before[axis] == 1
        && (0..rank).all(|i| i == axis || before[i] == stretched[i])
        && joined.rank() >= 3
        && joined[joined.rank() - 2..] == stretched[rank - 2..];
    (only_there && stretched[axis] > 1).then_some((stretch.inputs[0], stretched[axis]))
}

/// An operand of a product, stretched to the product's leading axes, as `[B, H, T, D]`.
fn matrices(rebuild: &mut Rebuild<'_>, matrix: Matrix, product: &[usize], heads: [usize; 2]) -> Result<ValueId> {
    let value = rebuild.get(matrix.value)?;
    let shape = rebuild.old.shape(matrix.value);
    let stretched = Shape::from([product, &shape[shape.rank() - 2..]].concat());
    let value = if *shape == stretched {
        value
    } else {
        rebuild.push_one(Op::Broadcast { shape: stretched }, &[value], matrix.value)?
    };
    regrouped_as(rebuild, value, matrix, heads)
}

/// Matrices with their leading axes grouped as `[B, H]`.
fn regrouped(rebuild: &mut Rebuild<'_>, matrix: Matrix, heads: [usize; 2]) -> Result<ValueId> {
    let value = rebuild.get(matrix.value)?;
    regrouped_as(rebuild, value, matrix, heads)
}

fn regrouped_as(rebuild: &mut Rebuild<'_>, value: ValueId, matrix: Matrix, heads: [usize; 2]) -> Result<ValueId> {
    let shape = rebuild.new.shape(value);
    let shape = Shape::from([&heads[..], &shape[shape.rank() - 2..]].concat());
    let value = reshaped(rebuild, value, &shape, matrix.value)?;
    if !matrix.transposed {
        return Ok(value);
    }
    rebuild.push_one(Op::Permute { order: vec![0, 1, 3, 2] }, &[value], matrix.value)
}

fn reshaped(rebuild: &mut Rebuild<'_>, value: ValueId, shape: &Shape, towards: ValueId) -> Result<ValueId> {
    if rebuild.new.shape(value) == shape {
        return Ok(value);
    }
    rebuild.push_one(Op::Reshape { shape: shape.clone() }, &[value], towards)
}

/// A mask or bias for scores of shape `at` as one for `[B, H, Tq, Tk]`.
fn for_scores(rebuild: &mut Rebuild<'_>, value: ValueId, at: &Shape, heads: [usize; 2]) -> Result<ValueId> {
    let shape = rebuild.old.shape(value);
    let to = match &shape[..] {
        [] => Shape::from([1]),
        // One matrix for each of the B·H in a row.
        &[n, rows, columns] if at.rank() == 3 && n != 1 => Shape::from([heads[0], heads[1], rows, columns]),
        _ => shape.clone(),
    };
    let new = rebuild.get(value)?;
    reshaped(rebuild, new, &to, value)
}

fn join_masks(rebuild: &mut Rebuild<'_>, masks: &[Mask], heads: [usize; 2]) -> Result<Option<ValueId>> {
    let mut all = None;
    for Mask { condition, hides, at } in masks {
        let mut mask = for_scores(rebuild, *condition, at, heads)?;
        if *hides {
            mask = rebuild.push_one(Op::Unary { function: Unary::Not }, &[mask], *condition)?;
        }
        all = Some(match all {
            None => mask,
            Some(other) => rebuild.push_one(Op::Binary { function: Binary::And }, &[other, mask], *condition)?,
        });
    }
    Ok(all)
}

fn join_biases(rebuild: &mut Rebuild<'_>, biases: &[Bias], heads: [usize; 2]) -> Result<Option<ValueId>> {
    let mut sum = None;
    // What is subtracted comes last, so that it has something to be subtracted from.
    let (negative, positive): (Vec<&Bias>, Vec<&Bias>) = biases.iter().partition(|bias| bias.negative);
    for Bias { value, negative, at } in positive.into_iter().chain(negative) {
        let mut bias = for_scores(rebuild, *value, at, heads)?;
        if biases.len() > 1 && rebuild.new.dtype(bias) != DType::F32 {
            bias = rebuild.push_one(Op::Cast { dtype: DType::F32 }, &[bias], *value)?;
        }
        let (op, operands) = match (sum, negative) {
            (None, false) => {
                sum = Some(bias);
                continue;
            }
            (None, true) => (Op::Unary { function: Unary::Neg }, vec![bias]),
            (Some(sum), false) => (Op::Binary { function: Binary::Add }, vec![sum, bias]),
            (Some(sum), true) => (Op::Binary { function: Binary::Sub }, vec![sum, bias]),
        };
        sum = Some(rebuild.push_one(op, &operands, *value)?);
    }
    Ok(sum)
}
