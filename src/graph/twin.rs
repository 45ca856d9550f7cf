//! Functions of a graph that come without a twin, and how they get one.

use super::{Function, FunctionKind, Graph, Op};
use crate::{Error, Result};

impl Graph {
    /// Gives the twin of a function to every function of the same text in this graph, and says how many those are: for
    /// graphs that come from JSON, which has the text alone.
    ///
    /// # Errors
    /// If the function has no twin, or the graph no function of its text.
    pub fn attach<T: FunctionKind + ?Sized>(&mut self, function: &Function<T>) -> Result<usize> {
        function.expect_twin()?;
        let mut found = 0;
        for node in &mut self.nodes {
            let Op::Attention(attention) = &mut node.op else { continue };
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
            let Op::Attention(attention) = &node.op else { continue };
            texts.extend(attention.score_mods.iter().filter(|f| f.twin().is_none()).map(Function::text));
            texts.extend(attention.mask_mods.iter().filter(|f| f.twin().is_none()).map(Function::text));
        }
        texts
    }
}
