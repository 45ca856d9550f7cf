//! Attention's scores and weights, for those who must look at them.

use super::{Attention, AttentionArgs, AttentionOperand as A, Graph, ValueId, written_out::Terms};
use crate::{Error, Result, Tensor};

/// A stage of attention's scores, for [`Graph::attention_scores`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreStage {
    /// `scale · q·k`.
    Scaled,
    /// After the softcap.
    Capped,
    /// After bias, ALiBi and masks: −inf for a masked key.
    Masked,
    /// After softmax: all 0 in a fully masked row.
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
        self.all_or_nothing(|g| g.scores(q, k, args.into(), stage))
    }

    fn scores(&mut self, q: ValueId, k: ValueId, args: AttentionArgs, stage: ScoreStage) -> Result<ValueId> {
        const OP: &str = "attention_scores";
        let (op, operands) = args.resolve(self, k)?;
        if op.is_packed() {
            return Err(Error::op(OP, "packed sequences have no common score matrix: look at one sequence at a time"));
        }
        let inputs: Vec<ValueId> = [q, k, k].into_iter().chain(operands).collect();
        let led = self.led(&op, &inputs)?;
        let (inputs, q, k, operands) = (&led.inputs, led.inputs[0], led.inputs[1], &led.inputs[3..]);
        // The operands are checked by the attention that they belong to.
        let shapes: Vec<_> = inputs.iter().map(|&v| (self.dtype(v), self.shape(v))).collect();
        super::infer(&super::Op::Attention(op.clone()), &shapes)?;
        if op.has_functions() && stage == ScoreStage::Weights {
            let weights = self.weights_by_values(q, k, &op, operands)?;
            return led.back(self, weights);
        }
        if op.has_functions() && stage == ScoreStage::Masked {
            return Err(Error::op(
                OP,
                "scores after a function of the user's are never stored: look at ScoreStage::Weights, or at a stage before",
            ));
        }
        let operands: Vec<(A, ValueId)> = op.operands.iter().copied().zip(operands.iter().copied()).collect();
        let k = match operands.iter().find(|(kind, _)| *kind == A::BlockTable) {
            Some(&(_, table)) => self.unpaged(k, table)?,
            None => k,
        };
        let scores = self.staged([q, k], &op, &operands, stage)?;
        led.back(self, scores)
    }

    /// The scores of q and k `[B, H, T, D]` at a stage.
    fn staged(
        &mut self,
        [q, k]: [ValueId; 2],
        op: &Attention,
        operands: &[(A, ValueId)],
        stage: ScoreStage,
    ) -> Result<ValueId> {
        let [_, scaled] = self.scaled_scores(q, k, op)?;
        if stage == ScoreStage::Scaled {
            return Ok(scaled);
        }
        let capped = self.capped_scores(scaled, op)?;
        if stage == ScoreStage::Capped {
            return Ok(capped);
        }
        let Terms { added, seen } = self.score_terms([q, k], op, operands)?;
        let [_, masked] = self.masked_scores(capped, &Terms::values(&added), &Terms::values(&seen))?;
        if stage == ScoreStage::Masked { Ok(masked) } else { self.weights_of(masked, operands) }
    }

    /// The weights as what attention makes of the rows of an identity matrix, as many columns at a time as heads may have.
    fn weights_by_values(&mut self, q: ValueId, k: ValueId, op: &Attention, operands: &[ValueId]) -> Result<ValueId> {
        const COLUMNS: usize = 256;
        if let Some(at) = op.input_of(A::BlockTable) {
            let (mut op, mut operands) = (op.clone(), operands.to_vec());
            op.operands.remove(at - 3);
            let k = self.unpaged(k, operands.remove(at - 3))?;
            return self.weights_by_values(q, k, &op, &operands);
        }
        let &[items, heads, keys, _] = &self.shape(k)[..] else {
            return Err(Error::shape("attention_scores", "k", self.shape(k), "[B, H, T, D]"));
        };
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
}
