//! `cases.json`, the tensors of each case, and the graph of a case in the making.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value};
use tilewise::{DType, Graph, Tensor, ValueId, grad::gradients, graph::Reduce};

use crate::{Machine, Outputs, Source};

pub(crate) type Run<T> = Result<T, Box<dyn std::error::Error>>;

/// How a case is computed.
#[derive(Clone, Copy)]
pub(crate) enum Compute {
    /// By one graph, which declares the outputs that are expected.
    Graph(fn(&mut Net<'_>) -> Run<()>),
    /// By several, one after another.
    Steps(fn(&Case, &Machine) -> Run<Outputs>),
    /// By the steps of an optimizer.
    Training(fn(&mut Net<'_>) -> Run<ValueId>),
}

/// The list of cases.
pub(crate) struct Cases {
    pub(crate) source: String,
    pub(crate) headers: Vec<Header>,
}

/// What `cases.json` says of a case.
#[derive(Deserialize)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) group: String,
    pub(crate) op: String,
    file: String,
    config: Map<String, Value>,
    outputs: Vec<Output>,
    grads: Vec<Output>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
}

/// A case with its tensors.
pub(crate) struct Case {
    pub(crate) group: String,
    pub(crate) op: String,
    config: Map<String, Value>,
    pub(crate) inputs: BTreeMap<String, Tensor>,
    pub(crate) weights: BTreeMap<String, Tensor>,
    pub(crate) expected: BTreeMap<String, Tensor>,
    /// By which each output's gradient is multiplied.
    gouts: BTreeMap<String, Tensor>,
    /// The gradients that are expected, by the names of inputs and weights.
    pub(crate) grads: BTreeMap<String, Tensor>,
}

/// The graph of a case.
pub(crate) struct Net<'c> {
    pub(crate) case: &'c Case,
    pub(crate) g: Graph,
}

impl Cases {
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("cases.json");
        let fail = |e: String| format!("{}: {e}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|e| fail(e.to_string()))?;
        let mut file: Value = serde_json::from_str(&text).map_err(|e| fail(e.to_string()))?;
        let source = ["package", "version"].map(|key| file["source"][key].as_str().unwrap_or("?").to_string());
        let headers = serde_json::from_value(file["cases"].take()).map_err(|e| fail(e.to_string()))?;
        Ok(Cases { source: source.join(" "), headers })
    }
}

impl Case {
    pub(crate) fn load(folder: &Path, header: &Header) -> Result<Self, String> {
        let mut groups: [BTreeMap<String, Tensor>; 5] = Default::default();
        for (name, source) in Source::read(&folder.join(&header.file))? {
            let (kind, name) = name.split_once('.').unwrap_or(("", &name));
            let at = match kind {
                "in" => 0,
                "weight" => 1,
                "out" => 2,
                "gout" => 3,
                "grad" => 4,
                _ => return Err(format!("{}: `{name}` is neither input, weight nor output", header.file)),
            };
            let tensor = source.tensor().or_else(|| source.index());
            let tensor = tensor.ok_or_else(|| format!("{}: `{name}` is {}", header.file, source.dtype_name()))?;
            groups[at].insert(name.to_string(), tensor);
        }
        let [inputs, weights, expected, gouts, grads] = groups;
        if header.outputs.is_empty() || header.outputs.iter().any(|output| !expected.contains_key(&output.name)) {
            return Err(format!("{}: an expected output is missing", header.file));
        }
        if header.grads.iter().any(|grad| !grads.contains_key(&grad.name)) {
            return Err(format!("{}: an expected gradient is missing", header.file));
        }
        let Header { group, op, config, .. } = header;
        Ok(Case {
            group: group.clone(),
            op: op.clone(),
            config: config.clone(),
            inputs,
            weights,
            expected,
            gouts,
            grads,
        })
    }

    /// A tensor that the case gives.
    pub(crate) fn given(&self, name: &str) -> Run<&Tensor> {
        Ok(self.inputs.get(name).ok_or_else(|| format!("the case gives no `{name}`"))?)
    }

    /// The first key of `config` that is none of these.
    pub(crate) fn unknown_key(&self, known: &[&str]) -> Option<&str> {
        self.config.keys().map(String::as_str).find(|key| !known.contains(key))
    }

    fn setting(&self, name: &str) -> Run<&Value> {
        Ok(self.config.get(name).ok_or_else(|| format!("config has no `{name}`"))?)
    }

    pub(crate) fn size(&self, name: &str) -> Run<usize> {
        Ok(self.setting(name)?.as_u64().ok_or_else(|| format!("config `{name}` is no size"))? as usize)
    }

    pub(crate) fn sizes(&self, name: &str) -> Run<Vec<usize>> {
        let list = self.setting(name)?.as_array().ok_or_else(|| format!("config `{name}` is no list"))?;
        list.iter().map(|x| Ok(x.as_u64().ok_or_else(|| format!("config `{name}` has no sizes"))? as usize)).collect()
    }

    pub(crate) fn float(&self, name: &str) -> Run<f64> {
        Ok(self.setting(name)?.as_f64().ok_or_else(|| format!("config `{name}` is no number"))?)
    }

    pub(crate) fn floats(&self, name: &str) -> Run<Vec<f64>> {
        let list = self.setting(name)?.as_array().ok_or_else(|| format!("config `{name}` is no list"))?;
        list.iter().map(|x| Ok(x.as_f64().ok_or_else(|| format!("config `{name}` has no numbers"))?)).collect()
    }

    pub(crate) fn integer(&self, name: &str) -> Run<i64> {
        Ok(self.setting(name)?.as_i64().ok_or_else(|| format!("config `{name}` is no integer"))?)
    }

    pub(crate) fn text(&self, name: &str) -> Run<&str> {
        Ok(self.setting(name)?.as_str().ok_or_else(|| format!("config `{name}` is no text"))?)
    }

    /// False where config doesn't say.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.config.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// `None` where config says `null` or nothing.
    pub(crate) fn optional_float(&self, name: &str) -> Option<f64> {
        self.config.get(name).and_then(Value::as_f64)
    }

    pub(crate) fn wants(&self, output: &str) -> bool {
        self.expected.contains_key(output)
    }

    /// The size of an axis of a weight.
    pub(crate) fn weight_size(&self, name: &str, axis: usize) -> Run<usize> {
        let weight = self.weights.get(name).ok_or_else(|| format!("the case has no weight `{name}`"))?;
        Ok(*weight.shape().get(axis).ok_or_else(|| format!("`{name}` is {}", weight.shape()))?)
    }
}

impl<'c> Net<'c> {
    pub(crate) fn new(case: &'c Case) -> Run<Self> {
        Ok(Net { case, g: Graph::new() })
    }

    /// An input of the case, widened to f32 if it is f16 or bf16: PyTorch's results were not rounded to those either.
    pub(crate) fn input(&mut self, name: &str) -> Run<ValueId> {
        let tensor = self.case.given(name)?;
        // As in the file, because an output may have the same name.
        let name = format!("in.{name}");
        let x = match self.g.find(&name) {
            Some(x) => x,
            None => self.g.input(&name, tensor.dtype(), tensor.shape())?,
        };
        self.wide(x)
    }

    /// An input that the case may not have.
    pub(crate) fn optional(&mut self, name: &str) -> Run<Option<ValueId>> {
        if self.case.inputs.contains_key(name) { Ok(Some(self.input(name)?)) } else { Ok(None) }
    }

    /// A weight, widened like an input; `None` if the case doesn't have it.
    pub(crate) fn weight(&mut self, name: &str) -> Run<Option<ValueId>> {
        let Some(tensor) = self.case.weights.get(name) else { return Ok(None) };
        let w = self.g.parameter(name, tensor.dtype(), tensor.shape())?;
        Ok(Some(self.wide(w)?))
    }

    fn wide(&mut self, x: ValueId) -> Run<ValueId> {
        Ok(if self.g.dtype(x).is_float() { self.g.cast(x, DType::F32)? } else { x })
    }

    pub(crate) fn output(&mut self, name: &str, value: ValueId) -> Run<()> {
        Ok(self.g.output(name, value)?)
    }

    /// Adds the gradients that the case has, as outputs `grad.NAME`: those of the sum of all outputs, each times its own `gout`.
    pub(crate) fn add_gradients(&mut self) -> Run<()> {
        if self.case.grads.is_empty() {
            return Ok(());
        }
        let mut loss: Option<ValueId> = None;
        for (name, value) in self.g.outputs().to_vec() {
            let Some(gout) = self.case.gouts.get(&name) else { continue };
            let gout = self.g.constant(gout.clone())?;
            let product = self.g.mul(value, gout)?;
            let sum = self.g.reduce(Reduce::Sum, product, &[], false)?;
            loss = Some(match loss {
                Some(loss) => self.g.add(loss, sum)?,
                None => sum,
            });
        }
        let loss = loss.ok_or("no output has a `gout`")?;
        let mut values = Vec::new();
        for name in self.case.grads.keys() {
            let value = self.g.find(&format!("in.{name}")).or_else(|| self.g.find(name));
            values.push(value.ok_or_else(|| format!("the graph has no `{name}` to have a gradient"))?);
        }
        let grads = gradients(&mut self.g, loss, &values)?;
        for (name, grad) in self.case.grads.keys().zip(grads) {
            self.g.output(format!("grad.{name}"), grad)?;
        }
        Ok(())
    }

    /// The case's inputs under the names of the graph.
    pub(crate) fn inputs(&self) -> Outputs {
        let known = |name: &str| Some((name.to_string(), self.case.inputs.get(name.strip_prefix("in.")?)?.clone()));
        self.g.inputs().filter_map(|(name, _)| known(name)).collect()
    }

    /// The outputs, with the case's tensors under the names of the graph's inputs and parameters.
    pub(crate) fn run(&self, machine: &Machine) -> Run<Outputs> {
        let known = |name: &str| Some((name.to_string(), self.case.weights.get(name)?.clone()));
        let parameters = self.g.parameters().filter_map(|(name, _)| known(name));
        Ok(machine(&self.g, &self.inputs(), &parameters.collect())?)
    }
}
