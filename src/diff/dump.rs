//! What was given and what was dumped, checked and brought into the graph's form.

use std::collections::BTreeMap;

use super::names::{hint, quoted};
use crate::{DType, Data, Error, Graph, Result, Tensor};

/// The inputs and parameters of a graph out of what was given, floats converted to the graph's dtypes.
///
/// # Errors
/// [`Error::Binding`] with all that is missing (and the nearest names that were given) or has another shape or kind of
/// dtype.
pub fn check_given(graph: &Graph, given: &BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
    let mut taken = BTreeMap::new();
    let (mut faults, mut missing) = (Vec::new(), false);
    let states = graph.states().map(|(name, state, _)| (name, state));
    for (name, value) in graph.inputs().chain(graph.parameters()).chain(states) {
        let (dtype, shape) = (graph.dtype(value), graph.shape(value));
        match given.get(name) {
            None if graph.update_of(value).is_some() => {}
            None => {
                missing = true;
                let near = hint(name, given.keys().map(String::as_str));
                faults.push(format!("`{name}` ({dtype} {shape}) is missing{near}"));
            }
            Some(tensor) if tensor.shape() != shape => {
                faults.push(format!("`{name}` is {} {}, expected {dtype} {shape}", tensor.dtype(), tensor.shape()));
            }
            Some(tensor) => match converted(tensor, dtype) {
                Some(tensor) => drop(taken.insert(name.to_string(), tensor)),
                None => faults.push(format!("`{name}` is {} {shape}, expected {dtype}", tensor.dtype())),
            },
        }
    }
    if faults.is_empty() {
        return Ok(taken);
    }
    let found = match missing {
        true => format!("\nfound: {}", quoted(given.keys().map(String::as_str))),
        false => String::new(),
    };
    Err(Error::Binding(format!(
        "{} of the graph's inputs and parameters:\n  {}{found}",
        faults.len(),
        faults.join("\n  ")
    )))
}

/// The same numbers in another dtype of the same kind; `None` if the kinds differ.
pub(super) fn converted(tensor: &Tensor, dtype: DType) -> Option<Tensor> {
    if tensor.dtype() == dtype {
        return Some(tensor.clone());
    }
    if !tensor.dtype().is_float() {
        return None;
    }
    Tensor::new(tensor.shape(), Data::floats(dtype, tensor.to_f64().into_iter())?).ok()
}

/// Names in which `from` is replaced by `to`, wherever it stands as whole components of the path: `blocks=layers` makes
/// `decoder.layers.0` of `decoder.blocks.0`. An empty `to` takes components away.
///
/// # Errors
/// [`Error::Binding`] if two names become one.
pub fn rename(tensors: BTreeMap<String, Tensor>, rules: &[(String, String)]) -> Result<BTreeMap<String, Tensor>> {
    let mut renamed: BTreeMap<String, Tensor> = BTreeMap::new();
    for (name, tensor) in tensors {
        let new = rules.iter().fold(name.clone(), |name, (from, to)| replaced(&name, from, to));
        if renamed.insert(new.clone(), tensor).is_some() {
            return Err(Error::Binding(format!("`{name}` and another name would both be called `{new}`")));
        }
    }
    Ok(renamed)
}

fn replaced(name: &str, from: &str, to: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    let pattern: Vec<&str> = from.split('.').collect();
    let mut out: Vec<&str> = Vec::with_capacity(parts.len());
    let mut at = 0;
    while at < parts.len() {
        if parts[at..].starts_with(&pattern) {
            out.extend(to.split('.').filter(|part| !part.is_empty()));
            at += pattern.len();
        } else {
            out.push(parts[at]);
            at += 1;
        }
    }
    out.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_replace_whole_components() {
        for (name, from, to, expected) in [
            ("decoder.blocks.0.attn", "blocks", "layers", "decoder.layers.0.attn"),
            ("model.decoder.norm", "model", "", "decoder.norm"),
            ("a.b.c.b.c", "b.c", "x", "a.x.x"),
            ("myblocks.0", "blocks", "layers", "myblocks.0"),
        ] {
            assert_eq!(replaced(name, from, to), expected);
        }
        let two = ["a.x", "b.x"].map(|name| (name.to_string(), Tensor::scalar(1.0))).into();
        let message = rename(two, &[("a".into(), "b".into())]).expect_err("clash").to_string();
        assert!(message.contains("`b.x` and another name would both be called `b.x`"), "{message}");
    }
}
