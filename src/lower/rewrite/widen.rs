//! The one place where kernels that compute in f32 alone get their operands converted.

use std::collections::HashMap;

use super::rebuild::Rebuild;
use crate::{
    DType, Result, ValueId,
    graph::{NodeId, Op},
    kernel::{Lowering, Operands},
};

const RULE: &str = "widen";

/// What is known in f32 already, by the value of the new graph that it was converted from.
#[derive(Default)]
pub(super) struct Widened(HashMap<ValueId, ValueId>);

impl Widened {
    /// Puts conversions to f32 around an operation with narrow operands that no kernel reads as they are.
    pub(super) fn widen(&mut self, rebuild: &mut Rebuild<'_>, id: NodeId) -> Result<bool> {
        let graph = rebuild.old;
        let node = graph.node(id);
        let Lowering::Kernel(problem) = Lowering::of(&node.op) else { return Ok(false) };
        let mut operands = Operands::dense(graph, &node.inputs, &node.outputs);
        problem(&mut operands)?;
        let inputs: Vec<bool> = (0..node.inputs.len()).map(|i| operands.is_widened(i)).collect();
        if !inputs.contains(&true) {
            return Ok(false);
        }
        let mut operands = Vec::with_capacity(inputs.len());
        for (&old, widen) in node.inputs.iter().zip(inputs) {
            let new = rebuild.get(old)?;
            operands.push(if widen { self.cast(rebuild, new, old)? } else { new });
        }
        let results = rebuild.push(node.op.clone(), &operands, node.outputs[0])?;
        for (&new, &old) in results.iter().zip(&node.outputs) {
            let dtype = graph.dtype(old);
            rebuild.inherit(new, old);
            let new = if rebuild.new.dtype(new) == dtype {
                new
            } else {
                rebuild.push_one(Op::Cast { dtype }, &[new], old)?
            };
            rebuild.replace(old, new)?;
        }
        let dtype = graph.dtype(node.inputs[0]);
        rebuild.note(
            RULE,
            node.outputs[0],
            true,
            format!(
                "the kernels of {} take f32: its {dtype} operands are converted, and its result back",
                node.op.name()
            ),
        );
        Ok(true)
    }

    fn cast(&mut self, rebuild: &mut Rebuild<'_>, new: ValueId, old: ValueId) -> Result<ValueId> {
        if let Some(&wide) = self.0.get(&new) {
            return Ok(wide);
        }
        let wide = rebuild.push_one(Op::Cast { dtype: DType::F32 }, &[new], old)?;
        self.0.insert(new, wide);
        Ok(wide)
    }
}
