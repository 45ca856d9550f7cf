//! The graphs that a generator runs.

use super::{Autoregressive, Request, Step, Strategy};
use crate::{
    DType, Error, Graph, Result, Shape, Tensor,
    nn::{Cache, Memory},
};

/// One of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Encodes sources of up to so many tokens.
    Remember { tokens: usize },
    /// So many tokens of each item; says which token comes after the last real one.
    Step { tokens: usize, readback: Readback },
    /// Each item takes over the cache of one of them.
    Reorder,
}

/// What a step says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Readback {
    /// The likeliest ids.
    Ids,
    /// The logits of all.
    Logits,
}

impl Readback {
    /// What the strategy needs of a step. A penalty changes logits, so that the device's choice is not the answer.
    pub(super) fn of(request: &Request) -> Self {
        match request.strategy {
            Strategy::Greedy if request.repetition_penalty == 1.0 => Readback::Ids,
            Strategy::Greedy | Strategy::Sample { .. } | Strategy::Beam { .. } => Readback::Logits,
        }
    }
}

/// Sizes that all programs of a generator share.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) items: usize,
    /// Places of the cache.
    pub(super) places: usize,
    pub(super) circular: bool,
    /// Tokens of a prompt that are taken at once, increasing.
    pub(super) chunks: Vec<usize>,
    /// Tokens of a source that there are programs for, increasing; the last is the most. Empty without a source.
    pub(super) sources: Vec<usize>,
    /// What [`Kind::Reorder`] moves.
    pub(super) caches: Vec<(String, DType, Shape)>,
}

/// The least size that takes so many tokens, or the largest there is.
pub(super) fn bucket(sizes: &[usize], tokens: usize) -> usize {
    sizes.iter().copied().find(|&size| size >= tokens).or(sizes.last().copied()).unwrap_or(1)
}

impl Plan {
    pub(super) fn graph(&self, model: &impl Autoregressive, kind: Kind) -> Result<Graph> {
        let mut g = Graph::new();
        match kind {
            Kind::Remember { tokens } => {
                let ids = g.input("ids", DType::I32, [self.items, tokens])?;
                let memory = self.memory(&mut g)?;
                model.remember(&mut g, ids, &memory)?;
            }
            Kind::Step { tokens, readback } => self.step(&mut g, model, tokens, readback)?,
            Kind::Reorder => {
                let parents = g.input("parents", DType::I32, [self.items])?;
                for (name, dtype, shape) in &self.caches {
                    let state = g.input(name, *dtype, shape.clone())?;
                    let next = g.gather(state, parents, 0)?;
                    g.update(state, next)?;
                }
            }
        }
        Ok(g)
    }

    fn memory(&self, g: &mut Graph) -> Result<Memory> {
        let lengths = g.input("source lengths", DType::I32, [self.items])?;
        Memory::new(g, lengths, self.sources.last().copied().unwrap_or(0))
    }

    fn step(&self, g: &mut Graph, model: &impl Autoregressive, tokens: usize, readback: Readback) -> Result<()> {
        let items = self.items;
        let ids = g.input("ids", DType::I32, [items, tokens])?;
        let starts = g.input("starts", DType::I32, [items])?;
        let cache = Cache::new(g, starts, tokens, self.places, model.window(), self.circular)?;
        let memory = if self.sources.is_empty() { None } else { Some(self.memory(g)?) };
        let x = model.step(g, &Step { ids, cache, memory })?;
        let &[b, t, width] = &g.shape(x)[..] else {
            return Err(Error::op("generate", format!("a step gave {}, expected [B, T, E]", g.describe(x))));
        };
        if [b, t] != [items, tokens] {
            return Err(Error::op(
                "generate",
                format!("a step gave {}, expected [{items}, {tokens}, E]", g.describe(x)),
            ));
        }
        let rows = g.reshape(x, [items * tokens, width])?;
        let last = if tokens == 1 {
            rows
        } else {
            // Row `tokens·b + last real token` of each item; of an idle one any.
            let lasts = g.input("lasts", DType::I32, [items])?;
            let begins: Vec<i32> = (0..items).map(|b| (b * tokens) as i32).collect();
            let begins = g.constant(Tensor::new([items], begins)?)?;
            let at = g.add(begins, lasts)?;
            g.gather(rows, at, 0)?
        };
        let logits = model.logits(g, last)?;
        if g.shape(logits) != &Shape::from([items, model.vocabulary()]) {
            return Err(Error::op(
                "generate",
                format!("the logits are {}, expected [{items}, {}]", g.describe(logits), model.vocabulary()),
            ));
        }
        match readback {
            Readback::Logits => g.output("next", logits),
            Readback::Ids => {
                let ids = g.argmax(logits, -1, false)?;
                g.output("next", ids)?;
                // That of the id: a NaN counts as the largest, so that it tells whether all are numbers.
                let all = g.reshape(logits, [items * model.vocabulary()])?;
                let begins: Vec<i32> = (0..items).map(|b| (b * model.vocabulary()) as i32).collect();
                let begins = g.constant(Tensor::new([items], begins)?)?;
                let at = g.add(begins, ids)?;
                let logit = g.gather(all, at, 0)?;
                let logit = g.cast(logit, DType::F32)?;
                g.output("logit", logit)
            }
        }
    }
}
