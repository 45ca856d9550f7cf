//! Functions of a graph that come without a twin, and how they get one.

use super::{Function, FunctionKind, Graph, Op};
use crate::{Error, Result};

impl Graph {
    /// Gives the twin of a function to every function of the same text in this graph, and returns how many there are:
    /// for graphs from JSON, which keeps the text alone.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, graph::{Mask, MaskMod}};
    /// # let mut g = Graph::new();
    /// let q = g.input("q", DType::F32, [1, 1, 2, 1])?;
    /// g.attention(q, q, q, Mask::function(MaskMod::wgsl("i == j")?))?;
    /// assert_eq!(g.without_twins(), ["i == j"]);
    /// assert_eq!(g.attach(&MaskMod::new("i == j", |pair| pair.i == pair.j)?)?, 1);
    /// assert!(g.without_twins().is_empty());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the function has no twin, [`Error::Graph`] if the graph has no function of its text.
    pub fn attach<T: FunctionKind + ?Sized>(&mut self, function: &Function<T>) -> Result<usize> {
        function.expect_twin()?;
        let mut found = 0;
        for node in &mut self.nodes {
            let (Op::Attention(attention) | Op::AttentionGrad(attention)) = &mut node.op else { continue };
            let kind = T::among(&mut attention.score_mods, &mut attention.mask_mods);
            for same in kind.iter_mut().filter(|other| *other == function) {
                same.attach(function);
                found += 1;
            }
        }
        if found == 0 {
            return Err(Error::Graph(format!("no attention has the {} `{}`", T::NAME, function.text())));
        }
        Ok(found)
    }

    /// The texts of the functions that have no twin: what the reference needs before it can evaluate the graph.
    pub fn without_twins(&self) -> Vec<&str> {
        let mut texts = Vec::new();
        for node in &self.nodes {
            let (Op::Attention(attention) | Op::AttentionGrad(attention)) = &node.op else { continue };
            texts.extend(attention.score_mods.iter().filter(|f| f.twin().is_none()).map(Function::text));
            texts.extend(attention.mask_mods.iter().filter(|f| f.twin().is_none()).map(Function::text));
        }
        texts
    }
}
