//! `cases.json` and the tensors of each case.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Source;

/// The list of cases.
pub(crate) struct Cases {
    pub(crate) source: String,
    /// Upstream's relative tolerance for outputs in bf16, whose steps are larger than that of the other dtypes.
    pub(crate) bf16_rtol: f64,
    pub(crate) headers: Vec<Header>,
}

/// What `cases.json` says of a case.
#[derive(Deserialize)]
pub(crate) struct Header {
    pub(crate) name: String,
    pub(crate) op: String,
    opset: i64,
    file: String,
    nodes: Vec<Node>,
    outputs: Vec<Output>,
    rtol: f64,
    atol: f64,
}

#[derive(Deserialize)]
struct Output {
    name: String,
}

/// One node of a case. An operand or result that is left out is `None`, and its place counts.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) op: String,
    pub(crate) inputs: Vec<Option<String>>,
    pub(crate) outputs: Vec<Option<String>>,
    attributes: Map<String, Value>,
    #[serde(default)]
    attributes_with_defaults: Map<String, Value>,
}

/// A case with its tensors.
pub(crate) struct Case {
    pub(crate) opset: i64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) inputs: BTreeMap<String, Source>,
    pub(crate) expected: BTreeMap<String, Source>,
    pub(crate) rtol: f64,
    pub(crate) bf16_rtol: f64,
    pub(crate) atol: f64,
}

impl Cases {
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join("cases.json");
        let fail = |e: String| format!("{}: {e}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|e| fail(e.to_string()))?;
        let mut file: Value = serde_json::from_str(&text).map_err(|e| fail(e.to_string()))?;
        let source = ["package", "version"].map(|key| file["source"][key].as_str().unwrap_or("?").to_string());
        let headers = serde_json::from_value(file["cases"].take()).map_err(|e| fail(e.to_string()))?;
        let bf16_rtol = file["source"]["bfloat16_rtol"].as_f64().unwrap_or(0.0);
        Ok(Cases { source: source.join(" "), bf16_rtol, headers })
    }
}

impl Case {
    pub(crate) fn load(folder: &Path, header: &Header, bf16_rtol: f64) -> Result<Self, String> {
        let mut inputs = BTreeMap::new();
        let mut expected = BTreeMap::new();
        for (name, source) in Source::read(&folder.join(&header.file))? {
            match name.split_once('.') {
                Some(("input" | "init", name)) => inputs.insert(name.to_string(), source),
                Some(("output", name)) => expected.insert(name.to_string(), source),
                _ => return Err(format!("{}: `{name}` is neither input nor output", header.file)),
            };
        }
        if header.outputs.is_empty() || header.outputs.iter().any(|output| !expected.contains_key(&output.name)) {
            return Err(format!("{}: an expected output is missing", header.file));
        }
        let Header { opset, nodes, rtol, atol, .. } = header;
        Ok(Case { opset: *opset, nodes: nodes.clone(), inputs, expected, rtol: *rtol, bf16_rtol, atol: *atol })
    }
}

impl Node {
    /// An attribute, given or by default.
    pub(crate) fn attribute(&self, name: &str) -> Option<&Value> {
        self.attributes.get(name).or_else(|| self.attributes_with_defaults.get(name)).filter(|value| !value.is_null())
    }

    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name)?.as_i64()
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.int(name).is_some_and(|x| x != 0)
    }

    pub(crate) fn float(&self, name: &str) -> Option<f64> {
        let value = self.attribute(name)?;
        value.as_f64().or_else(|| value.as_str()?.parse().ok())
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.attribute(name)?.as_str()
    }

    pub(crate) fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.attribute(name)?.as_array()?.iter().map(Value::as_i64).collect()
    }
}
