use std::collections::HashSet;

use super::{Graph, infer};
use crate::{Error, Result};

impl Graph {
    /// Checks every rule of the [module](super). The builder keeps them all: a graph that breaks one is the fault of
    /// the pass that made it, never of the user.
    ///
    /// ```
    /// # use tilewise::{DType, Graph};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// assert!(g.verify().is_ok());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Graph`] with the first rule that is broken, and where; [`Error::Op`] if the operands of a node don't
    /// fit it.
    pub fn verify(&self) -> Result<()> {
        let fail = |message: String| Err(Error::Graph(message));
        let mut defined = 0;
        for (at, node) in self.nodes.iter().enumerate() {
            let op = node.op.name();
            if let Some(late) = node.inputs.iter().find(|v| v.index() >= defined) {
                return fail(format!("node {at} ({op}) uses %{}, which is not defined before it", late.0));
            }
            let operands: Vec<_> = node.inputs.iter().map(|&v| (self.dtype(v), self.shape(v))).collect();
            let expected = infer(&node.op, &operands)?;
            if expected.len() != node.outputs.len() {
                return fail(format!(
                    "node {at} ({op}) has {} results, inference says {}",
                    node.outputs.len(),
                    expected.len()
                ));
            }
            for (&output, (dtype, shape)) in node.outputs.iter().zip(&expected) {
                if output.index() != defined {
                    return fail(format!("node {at} ({op}) defines %{} out of order", output.0));
                }
                defined += 1;
                let Some(value) = self.values.get(output.index()) else {
                    return fail(format!("node {at} ({op}) defines %{}, which is not in the table", output.0));
                };
                if value.node.index() != at {
                    return fail(format!("%{} is defined by node {at} but says node {}", output.0, value.node.0));
                }
                if value.dtype != *dtype || value.shape != *shape {
                    return fail(format!("{} should be {dtype} {shape}", self.describe(output)));
                }
            }
            if node.op.is_given() && self.value(node.outputs[0]).name.is_none() {
                return fail(format!("node {at} ({op}) has no name"));
            }
        }
        if defined != self.values.len() {
            return fail(format!("{} values are in the table, {defined} are defined", self.values.len()));
        }
        let named = self.values.iter().filter(|v| v.name.is_some()).count();
        let indexed = |(i, v): (usize, &super::Value)| match &v.name {
            Some(name) => self.names.get(name).is_some_and(|id| id.index() == i),
            None => true,
        };
        if named != self.names.len() || !self.values.iter().enumerate().all(indexed) {
            return fail("the index of names differs from the values' names".into());
        }
        if let Some((path, value)) = self.traces().find(|(_, value)| value.index() >= self.values.len()) {
            return fail(format!("trace `{path}` is %{}, which is no value", value.0));
        }
        let mut updated = HashSet::new();
        for &(state, next) in &self.updates {
            let known = state.index() < self.values.len() && next.index() < self.values.len();
            let fits = known
                && self.definition(state).op.is_given()
                && (self.dtype(state), self.shape(state)) == (self.dtype(next), self.shape(next));
            if !fits || !updated.insert(state) {
                return fail(format!("the update of %{} by %{} does not fit, or is there twice", state.0, next.0));
            }
        }
        let mut seen = HashSet::new();
        for (name, value) in &self.outputs {
            if !seen.insert(name) {
                return fail(format!("there are two outputs `{name}`"));
            }
            if value.index() >= self.values.len() {
                return fail(format!("output `{name}` is %{}, which is no value", value.0));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{DType, Graph};

    fn graph() -> Graph {
        let mut g = Graph::new();
        let x = g.input("x", DType::F32, [2, 3]).expect("fits");
        let y = g.relu(x).expect("fits");
        g.output("y", y).expect("fits");
        g
    }

    #[test]
    fn accepts_what_the_builder_makes() {
        graph().verify().expect("valid");
    }

    #[test]
    fn notices_each_broken_rule() {
        type Break = fn(&mut Graph);
        let cases: [(Break, &str); 8] = [
            (|g| g.values[1].shape = [3, 2].into(), "should be f32 [2, 3]"),
            (|g| g.values[1].dtype = DType::I32, "should be f32 [2, 3]"),
            (|g| g.nodes.swap(0, 1), "not defined before it"),
            (|g| g.values[0].name = None, "has no name"),
            (|g| g.outputs.push(("y".into(), super::super::ValueId(0))), "two outputs `y`"),
            (|g| g.outputs[0].1 = super::super::ValueId(9), "is no value"),
            (|g| g.values.push(g.values[1].clone()), "values are in the table"),
            (|g| g.values[1].name = Some("z".into()), "index of names"),
        ];
        for (break_it, expected) in cases {
            let mut g = graph();
            break_it(&mut g);
            let message = g.verify().expect_err(expected).to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
