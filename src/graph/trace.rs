//! What values are, in the words of those who built them: paths of modules, beside names.

use super::{Graph, ValueId};
use crate::{Error, Result};

impl Graph {
    /// Notes that the module at `path` gave this value, as `decoder.layers.0.self_attn` in PyTorch's `named_modules`;
    /// returns the value.
    ///
    /// A trace is no name. A value has as many as modules end in it, none can clash with a name of yours, and none
    /// changes what is computed. A module that is called again (shared weights) leaves `path#2`, `path#3`, …. The empty
    /// path, a model's root, leaves none.
    ///
    /// ```
    /// use tilewise::{DType, Graph, nn};
    /// let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2, 3])?;
    /// let y = nn::LayerNorm::new(3).build(&mut g, "encoder.norm", x)?;
    /// assert_eq!(g.traced("encoder.norm"), Some(y));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Graph`] if the value is not of this graph.
    pub fn trace(&mut self, path: &str, value: ValueId) -> Result<ValueId> {
        if value.index() >= self.values.len() {
            return Err(Error::Graph(format!("trace `{path}`: %{} is no value of this graph", value.0)));
        }
        if !path.is_empty() {
            let mut own = path.to_string();
            if self.paths.contains_key(path) {
                let mut calls = self.calls.get(path).copied().unwrap_or(1);
                while self.paths.contains_key(&own) {
                    calls += 1;
                    own = format!("{path}#{calls}");
                }
                self.calls.insert(path.to_string(), calls);
            }
            self.paths.insert(own.clone(), value);
            self.traces.push((own, value));
        }
        Ok(value)
    }

    /// All traces, in the order in which they were left.
    pub fn traces(&self) -> impl Iterator<Item = (&str, ValueId)> {
        self.traces.iter().map(|(path, value)| (path.as_str(), *value))
    }

    /// The value that a path gave.
    pub fn traced(&self, path: &str) -> Option<ValueId> {
        self.paths.get(path).copied()
    }

    /// The paths that gave each value, by the value's index.
    pub(super) fn traces_by_value(&self) -> Vec<Vec<&str>> {
        let mut paths = vec![Vec::new(); self.values.len()];
        self.traces().for_each(|(path, value)| paths[value.index()].push(path));
        paths
    }

    /// The paths that gave a value.
    pub fn traces_of(&self, value: ValueId) -> impl Iterator<Item = &str> {
        self.traces().filter(move |(_, other)| *other == value).map(|(path, _)| path)
    }
}
