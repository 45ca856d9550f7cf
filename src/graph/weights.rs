//! Attention written out with plain operations: for those who must look at scores or weights.

use super::{Align, Attention, AttentionArgs, AttentionOperand, Binary, Graph, ValueId};
use crate::{Error, Result, Shape, Tensor};

/// A stage of attention's scores, for [`Graph::attention_scores`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreStage {
    /// `scale · q·k`.
    Scaled,
    /// After the softcap.
    Capped,
    /// After bias, ALiBi and masks: −inf for a hidden key.
    Masked,
    /// After softmax: all 0 for a row that sees nothing.
    Weights,
}

impl Graph {
    /// The weights of [`Graph::attention`], `softmax_j(s)`, `[B, Hq, Tq, Tk]`. Every score is stored, which attention
    /// itself never does.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, graph::{Align, Mask}, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let q = g.constant(Tensor::zeros(DType::F32, [1, 1, 2, 4])?)?;
    /// let weights = g.attention_weights(q, q, Mask::causal(Align::TopLeft))?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(weights).to_f64(), [1.0, 0.0, 0.5, 0.5]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Graph::attention_scores`].
    pub fn attention_weights(&mut self, q: ValueId, k: ValueId, args: impl Into<AttentionArgs>) -> Result<ValueId> {
        self.attention_scores(q, k, args, ScoreStage::Weights)
    }

    /// The scores of [`Graph::attention`] at some stage, `[B, Hq, Tq, Tk]`, from plain operations: what to compare an
    /// implementation of your own with, stage by stage.
    ///
    /// Functions of scores and masks are WGSL, which plain operations can't run. With them there are the stages before
    /// them, and [`ScoreStage::Weights`], which attention over one-hot values computes.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, graph::{Align, Mask, ScoreStage}, reference::Evaluation};
    /// # let mut g = Graph::new();
    /// let q = g.constant(Tensor::new([1, 1, 2, 1], vec![1.0f32, 2.0])?)?;
    /// let scores = g.attention_scores(q, q, Mask::causal(Align::TopLeft), ScoreStage::Masked)?;
    /// let values = Evaluation::<f64>::new(&g, &Default::default())?;
    /// assert_eq!(values.value(scores).to_f64(), [1.0, f64::NEG_INFINITY, 2.0, 4.0]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Graph::attention`]. [`Error::Op`] too if sequences are packed, which have no common matrix of scores; if
    /// `q` and `k` differ in dtype; and for [`ScoreStage::Masked`] with functions.
    pub fn attention_scores(
        &mut self,
        q: ValueId,
        k: ValueId,
        args: impl Into<AttentionArgs>,
        stage: ScoreStage,
    ) -> Result<ValueId> {
        const OP: &str = "attention_scores";
        let (op, operands) = args.into().resolve(self)?;
        if op.is_packed() {
            return Err(Error::op(OP, "packed sequences have no common score matrix: look at one sequence at a time"));
        }
        // The operands are checked by the attention that they belong to.
        let inputs: Vec<ValueId> = [q, k, k].into_iter().chain(operands.iter().copied()).collect();
        let shapes: Vec<_> = inputs.iter().map(|&v| (self.dtype(v), self.shape(v))).collect();
        super::infer(&super::Op::Attention(op.clone()), &shapes)?;
        if op.has_functions() && stage == ScoreStage::Weights {
            return self.weights_by_values(q, k, &op, &operands);
        }
        if op.has_functions() && stage == ScoreStage::Masked {
            return Err(Error::op(
                OP,
                "scores after a function of the user's are never stored: look at ScoreStage::Weights, or at a stage before",
            ));
        }
        let given = |kind| op.input_of(kind).map(|i| inputs[i]);
        let k = match given(AttentionOperand::BlockTable) {
            Some(table) => self.unpaged(k, table)?,
            None => k,
        };
        let mut s = self.scaled_scores(q, k, &op)?;
        if stage == ScoreStage::Scaled {
            return Ok(s);
        }
        if let Some(cap) = op.softcap {
            let c = self.scalar(cap.into(), s)?;
            let ratio = self.div(s, c)?;
            let bent = self.tanh(ratio)?;
            s = self.mul(c, bent)?;
        }
        if stage == ScoreStage::Capped {
            return Ok(s);
        }
        let keys = self.shape(k)[2];
        if let Some(bias) = given(AttentionOperand::Bias) {
            let bias = self.extended(bias, keys, f64::NEG_INFINITY)?;
            let bias = self.cast(bias, self.dtype(s))?;
            s = self.add(s, bias)?;
        }
        let offset = self.offset(q, k, &op, &given)?;
        if let Some(slopes) = given(AttentionOperand::Slopes) {
            let distance = self.distance(q, k, offset)?;
            let distance = self.cast(distance, self.dtype(s))?;
            let heads = self.shape(slopes)[0];
            let slopes = self.reshape(slopes, [heads, 1, 1])?;
            let slopes = self.cast(slopes, self.dtype(s))?;
            let tilt = self.mul(slopes, distance)?;
            s = self.add(s, tilt)?;
        }
        if let Some(seen) = self.seen(q, k, offset, &op, &given)? {
            let hidden = self.scalar(f64::NEG_INFINITY, s)?;
            s = self.select(seen, s, hidden)?;
        }
        if stage == ScoreStage::Masked { Ok(s) } else { self.softmax(s, -1) }
    }

    /// The weights as what attention makes of the rows of an identity matrix, as many columns at a time as heads may have.
    fn weights_by_values(&mut self, q: ValueId, k: ValueId, op: &Attention, operands: &[ValueId]) -> Result<ValueId> {
        const COLUMNS: usize = 256;
        if let Some(at) = op.input_of(AttentionOperand::BlockTable) {
            let (mut op, mut operands) = (op.clone(), operands.to_vec());
            op.operands.remove(at - 3);
            let k = self.unpaged(k, operands.remove(at - 3))?;
            return self.weights_by_values(q, k, &op, &operands);
        }
        let [items, heads, keys, _] = axes(self.shape(k));
        let mut parts = Vec::new();
        for first in (0..keys.max(1)).step_by(COLUMNS) {
            let columns = COLUMNS.min(keys - first);
            let one_hot =
                (0..keys * columns).map(|e| f32::from(e / columns == first + e % columns)).collect::<Vec<_>>();
            let values = self.constant(Tensor::new([keys, columns], one_hot)?)?;
            let values = self.cast(values, self.dtype(k))?;
            let values = self.broadcast(values, [items, heads, keys, columns])?;
            let inputs: Vec<ValueId> = [q, k, values].into_iter().chain(operands.iter().copied()).collect();
            parts.push(self.push(super::Op::Attention(op.clone()), &inputs)?[0]);
        }
        if let &[whole] = &parts[..] { Ok(whole) } else { self.concat(&parts, -1) }
    }

    /// Pages `[N, S, H, D]` by a table `[B, P]` as `[B, H, P·S, D]`.
    fn unpaged(&mut self, pages: ValueId, table: ValueId) -> Result<ValueId> {
        let [_, rows, heads, width] = axes(self.shape(pages));
        let (items, each) = (self.shape(table)[0], self.shape(table)[1]);
        // An entry out of range takes the nearest page; to `gather`, a negative one counts from the end.
        let zero = self.integer(0)?;
        let table = self.max(table, zero)?;
        let picked = self.gather(pages, table, 0)?;
        let rows = self.reshape(picked, [items, each * rows, heads, width])?;
        self.permute(rows, &[0, 2, 1, 3])
    }

    /// `scale · q·kᵀ`, each query head with its key head.
    fn scaled_scores(&mut self, q: ValueId, k: ValueId, op: &Attention) -> Result<ValueId> {
        let [b, hq, tq, d] = axes(self.shape(q));
        let [_, hkv, tk, _] = axes(self.shape(k));
        let product = if hq == hkv {
            self.matmul_transposed(q, k)?
        } else {
            let q = self.reshape(q, [b, hkv, hq / hkv, tq, d])?;
            let k = self.reshape(k, [b, hkv, 1, tk, d])?;
            let product = self.matmul_transposed(q, k)?;
            self.reshape(product, [b, hq, tq, tk])?
        };
        let scale = self.scalar(op.scale.map_or_else(|| 1.0 / (d as f64).sqrt(), f64::from), product)?;
        self.mul(product, scale)
    }

    /// A mask or bias whose last axis is shorter than the keys, with `hidden` past its end.
    fn extended(&mut self, value: ValueId, keys: usize, hidden: f64) -> Result<ValueId> {
        let shape = self.shape(value).clone();
        let last = shape.last().copied().unwrap_or(1);
        if last == 1 || last >= keys {
            return Ok(value);
        }
        let mut frame = vec![(0, 0); shape.rank()];
        frame[shape.rank() - 1].1 = keys - last;
        self.pad(value, &frame, hidden)
    }

    /// i32: where query 0 stands among the keys, of rank 0 or `[B, 1, 1, 1]`.
    fn offset(
        &mut self,
        q: ValueId,
        k: ValueId,
        op: &Attention,
        given: &impl Fn(AttentionOperand) -> Option<ValueId>,
    ) -> Result<ValueId> {
        let (tq, tk) = (self.shape(q)[2], self.shape(k)[2]);
        match (op.align, given(AttentionOperand::Offsets)) {
            (Align::PerItem, Some(offsets)) => self.per_item(offsets),
            (Align::BottomRight, _) => {
                let length = |g: &mut Graph, kind, whole: usize| match given(kind) {
                    Some(lengths) => {
                        let lengths = g.per_item(lengths)?;
                        let (zero, most) = (g.integer(0)?, g.integer(whole as i64)?);
                        let lengths = g.max(lengths, zero)?;
                        g.min(lengths, most)
                    }
                    None => g.integer(whole as i64),
                };
                let keys = length(self, AttentionOperand::KeyLengths, tk)?;
                let queries = length(self, AttentionOperand::QueryLengths, tq)?;
                self.sub(keys, queries)
            }
            (Align::Offset(offset), _) => self.integer(offset.into()),
            (Align::TopLeft | Align::PerItem, _) => self.integer(0),
        }
    }

    /// i32 `[…, Tq, Tk]`: `j − (i + offset)`.
    fn distance(&mut self, q: ValueId, k: ValueId, offset: ValueId) -> Result<ValueId> {
        let (i, j) = (self.positions(self.shape(q)[2], true)?, self.positions(self.shape(k)[2], false)?);
        let own = self.add(i, offset)?;
        self.sub(j, own)
    }

    /// bool: the conjunction of every mask, or `None` where nothing hides anything.
    fn seen(
        &mut self,
        q: ValueId,
        k: ValueId,
        offset: ValueId,
        op: &Attention,
        given: &impl Fn(AttentionOperand) -> Option<ValueId>,
    ) -> Result<Option<ValueId>> {
        let (tq, tk) = (self.shape(q)[2], self.shape(k)[2]);
        let mut parts = Vec::new();
        let right = if op.causal { Some(0) } else { op.window.right };
        if right.is_some() || op.window.left.is_some() {
            let distance = self.distance(q, k, offset)?;
            if let Some(right) = right {
                let most = self.integer(right.into())?;
                parts.push(self.binary(Binary::LessEqual, distance, most)?);
            }
            if let Some(left) = op.window.left {
                let least = self.integer(-i64::from(left))?;
                parts.push(self.binary(Binary::GreaterEqual, distance, least)?);
            }
        }
        if let Some(mask) = given(AttentionOperand::Mask) {
            parts.push(self.extended(mask, tk, 0.0)?);
        }
        for (kind, length, column) in
            [(AttentionOperand::KeyLengths, tk, false), (AttentionOperand::QueryLengths, tq, true)]
        {
            if let Some(lengths) = given(kind) {
                let lengths = self.per_item(lengths)?;
                let at = self.positions(length, column)?;
                parts.push(self.binary(Binary::Less, at, lengths)?);
            }
        }
        let mut parts = parts.into_iter();
        let Some(first) = parts.next() else { return Ok(None) };
        parts.try_fold(first, |all, part| self.binary(Binary::And, all, part)).map(Some)
    }

    fn positions(&mut self, length: usize, column: bool) -> Result<ValueId> {
        let shape = if column { Shape::from([length, 1]) } else { Shape::from([length]) };
        self.constant(Tensor::new(shape, (0..length as i32).collect::<Vec<_>>())?)
    }

    fn per_item(&mut self, value: ValueId) -> Result<ValueId> {
        let items = self.shape(value)[0];
        self.reshape(value, [items, 1, 1, 1])
    }

    fn integer(&mut self, value: i64) -> Result<ValueId> {
        let value = value.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        self.constant(Tensor::new(Shape::default(), vec![value])?)
    }
}

fn axes(shape: &Shape) -> [usize; 4] {
    [shape[0], shape[1], shape[2], shape[3]]
}
