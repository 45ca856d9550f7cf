//! Graphs as JSON.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeStruct};
use serde_json::{Map, Value};

use super::{AttentionResults, Binary, Graph, Node, Op, Reduce, Unary, ValueId};
use crate::{Error, Result, fields};

const WHAT: &str = "graph";

/// A node as it is written.
#[derive(Serialize)]
struct NodeForm<'a> {
    #[serde(flatten)]
    op: &'a Op,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<String>,
    outputs: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputForm {
    name: String,
    value: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateForm {
    state: String,
    next: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TraceForm {
    path: String,
    value: String,
}

/// A graph as it is read: each node is decoded by itself, so that an error can name it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GraphForm {
    nodes: Vec<Map<String, Value>>,
    outputs: Vec<OutputForm>,
    #[serde(default)]
    updates: Vec<UpdateForm>,
    #[serde(default)]
    traces: Vec<TraceForm>,
}

impl Graph {
    /// The graph as JSON, one node a line. [`Graph::from_json`] reads it.
    ///
    /// ```
    /// # use tilewise::{DType, Graph};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// let text = g.to_json()?;
    /// assert!(text.contains(r#"{"op":"unary","function":"relu","inputs":["x"],"outputs":["%1"]}"#));
    /// assert_eq!(Graph::from_json(&text)?, g);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Format`] if the JSON writer fails; it has no reason to.
    pub fn to_json(&self) -> Result<String> {
        let nodes = self.node_forms().iter().map(line).collect::<Result<Vec<_>>>()?;
        let outputs = self.output_forms().iter().map(line).collect::<Result<Vec<_>>>()?;
        let list = |lines: Vec<String>| match lines.is_empty() {
            true => "[]".to_string(),
            false => format!("[\n    {}\n  ]", lines.join(",\n    ")),
        };
        let rare = |key: &str, lines: Vec<String>| match lines.is_empty() {
            true => String::new(),
            false => format!(",\n  \"{key}\": {}", list(lines)),
        };
        let updates = rare("updates", self.update_forms().iter().map(line).collect::<Result<Vec<_>>>()?);
        let traces = rare("traces", self.trace_forms().iter().map(line).collect::<Result<Vec<_>>>()?);
        Ok(format!("{{\n  \"nodes\": {},\n  \"outputs\": {}{updates}{traces}\n}}\n", list(nodes), list(outputs)))
    }

    /// The graph that a JSON text describes, with every check of the builder.
    ///
    /// `nodes` lists the operations in an order of execution. `op` and the fields beside it are those of [`Op`];
    /// `inputs` are values by name, or by `%N` for the N-th value that the nodes define; `outputs` names the results
    /// (it may be left out, except for inputs and parameters). `outputs` of the graph gives the results to the caller;
    /// `updates`, if there are states, lists `{"state": …, "next": …}`, and `traces` lists `{"path": …, "value": …}`
    /// ([`Graph::trace`]). Attention may have any leading axes, as [`Graph::attention`] says; the graph then has views around it.
    ///
    /// ```
    /// let g = tilewise::Graph::from_json(r#"{
    ///   "nodes": [
    ///     {"op": "input", "dtype": "f32", "shape": [2, 3], "outputs": ["x"]},
    ///     {"op": "constant", "value": {"dtype": "f32", "shape": [3], "data": [0, 1, "-inf"]}, "outputs": ["mask"]},
    ///     {"op": "binary", "function": "add", "inputs": ["x", "mask"]},
    ///     {"op": "softmax", "axis": 1, "inputs": ["%2"], "outputs": ["p"]}
    ///   ],
    ///   "outputs": [{"name": "p", "value": "p"}]
    /// }"#)?;
    /// assert_eq!(g.outputs().len(), 1);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Format`] if the text is no such JSON, or if a node (which is named) does not fit: an operation or field
    /// that does not exist, operands that are not defined before it or that it can't take, a name that is taken.
    /// [`Error::Graph`] if an output or an update does not fit ([`Graph::output`], [`Graph::update`]).
    pub fn from_json(text: &str) -> Result<Graph> {
        let form: GraphForm =
            serde_json::from_str(text).map_err(|e| Error::format(WHAT, fields::not_json(text, &e)))?;
        form.build()
    }

    fn node_forms<'a>(&'a self) -> Vec<NodeForm<'a>> {
        let labels = |values: &[ValueId]| values.iter().map(|&v| self.label(v)).collect();
        let form = |node: &'a Node| {
            let Node { op, inputs, outputs } = node;
            NodeForm { op, inputs: labels(inputs), outputs: labels(outputs) }
        };
        self.nodes.iter().map(form).collect()
    }

    fn output_forms(&self) -> Vec<OutputForm> {
        let form = |(name, value): &(String, ValueId)| OutputForm { name: name.clone(), value: self.label(*value) };
        self.outputs.iter().map(form).collect()
    }

    fn update_forms(&self) -> Vec<UpdateForm> {
        let form =
            |&(state, next): &(ValueId, ValueId)| UpdateForm { state: self.label(state), next: self.label(next) };
        self.updates.iter().map(form).collect()
    }

    fn trace_forms(&self) -> Vec<TraceForm> {
        let form = |(path, value): &(String, ValueId)| TraceForm { path: path.clone(), value: self.label(*value) };
        self.traces.iter().map(form).collect()
    }
}

impl Serialize for Graph {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut form = serializer.serialize_struct("Graph", 4)?;
        form.serialize_field("nodes", &self.node_forms())?;
        form.serialize_field("outputs", &self.output_forms())?;
        form.serialize_field("updates", &self.update_forms())?;
        form.serialize_field("traces", &self.trace_forms())?;
        form.end()
    }
}

impl<'de> Deserialize<'de> for Graph {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        GraphForm::deserialize(deserializer)?.build().map_err(de::Error::custom)
    }
}

fn line(form: &impl Serialize) -> Result<String> {
    serde_json::to_string(form).map_err(|e| Error::format(WHAT, e.to_string()))
}

impl GraphForm {
    fn build(self) -> Result<Graph> {
        let mut reading = Reading::default();
        for (at, mut node) in self.nodes.into_iter().enumerate() {
            let text = |key: &str| node.get(key).and_then(Value::as_str).map(str::to_string);
            let first = node.get("outputs").and_then(|names| names.get(0)).and_then(Value::as_str);
            let place = [text("op").map(|op| format!(", {op}")), first.map(|name| format!(", `{name}`"))];
            let place = format!("node {at}{}", place.into_iter().flatten().collect::<String>());
            reading.push(&mut node).map_err(|e| {
                let message =
                    if let Error::Format { message, .. } | Error::Graph(message) = e { message } else { e.to_string() };
                Error::format(WHAT, format!("{place}: {message}"))
            })?;
        }
        for OutputForm { name, value } in self.outputs {
            let value = reading
                .resolve(&value)
                .map_err(|_| Error::format(WHAT, format!("output `{name}`: there is no value `{value}`")))?;
            reading.graph.output(name, value)?;
        }
        for UpdateForm { state, next } in self.updates {
            let find = |label: &str| {
                let unknown = |_| Error::format(WHAT, format!("update of `{state}`: there is no value `{label}`"));
                reading.resolve(label).map_err(unknown)
            };
            let (state, next) = (find(&state)?, find(&next)?);
            reading.graph.update(state, next)?;
        }
        for TraceForm { path, value } in self.traces {
            let unknown = |_| Error::format(WHAT, format!("trace `{path}`: there is no value `{value}`"));
            let value = reading.resolve(&value).map_err(unknown)?;
            if path.is_empty() || reading.graph.traced(&path).is_some() {
                return Err(Error::format(WHAT, format!("trace `{path}`: paths are not empty and stand once")));
            }
            reading.graph.trace(&path, value)?;
        }
        Ok(reading.graph)
    }
}

/// A graph as far as it is read.
#[derive(Default)]
struct Reading {
    graph: Graph,
    /// The values that the nodes of the file define, by their numbers there: an attention over other axes than `[B, H, T, D]` makes
    /// views beside.
    values: Vec<ValueId>,
}

impl Reading {
    fn resolve(&self, label: &str) -> Result<ValueId> {
        let value = match label.strip_prefix('%') {
            Some(number) => number.parse().ok().and_then(|number: usize| self.values.get(number).copied()),
            None => self.graph.find(label),
        };
        value.ok_or_else(|| Error::format(WHAT, format!("no value `{label}` is defined before it")))
    }

    fn push(&mut self, node: &mut Map<String, Value>) -> Result<()> {
        let fail = |message: String| Err(Error::format(WHAT, message));
        let mut names = |key: &str| {
            let name = |name: &Value| name.as_str().map(str::to_string);
            let names = |list: &Value| list.as_array()?.iter().map(name).collect::<Option<Vec<String>>>();
            match node.remove(key) {
                None => Ok(Vec::new()),
                Some(list) => names(&list).ok_or_else(|| {
                    let given = fields::shown(&list);
                    Error::format(WHAT, format!("`{key}` is {given}, expected a list of names: [\"x\", …]"))
                }),
            }
        };
        let (inputs, outputs): (Vec<String>, Vec<String>) = (names("inputs")?, names("outputs")?);
        let op: Op =
            fields::decode(node, Some("op")).map_err(|message| Error::format(WHAT, in_operations(node, message)))?;
        let known = serde_json::to_value(&op).map_err(|e| Error::format(WHAT, e.to_string()))?;
        if let Some(stray) = node.keys().find(|&key| known.get(key).is_none()) {
            let known: Vec<&str> = known.as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
            return fail(format!("there is no field `{stray}`; the fields are {}, inputs, outputs", known.join(", ")));
        }
        let needs_name = op.is_given();
        if needs_name && outputs.first().is_none_or(|name| name.starts_with('%')) {
            return fail("an input or parameter needs its name in `outputs`".into());
        }
        let inputs = inputs.iter().map(|label| self.resolve(label)).collect::<Result<Vec<_>>>()?;
        let results = if let Op::Attention(attention) = op {
            let attended = self.graph.push_attention(attention, &inputs)?;
            let AttentionResults { out, lse, status } = attended.results(&mut self.graph)?;
            vec![out, lse, status]
        } else {
            self.graph.push(op, &inputs)?
        };
        if outputs.len() > results.len() {
            return fail(format!("`outputs` has {} names, the operation has {} results", outputs.len(), results.len()));
        }
        for (i, (&value, name)) in results.iter().zip(outputs).enumerate() {
            let own = format!("%{}", self.values.len() + i);
            if name == own {
                continue;
            }
            if name.starts_with('%') {
                return fail(format!("the result `{name}` is value {own}; a name of your own can't start with %"));
            }
            self.graph.name(value, name)?;
        }
        self.values.extend(results);
        Ok(())
    }
}

/// A message about an operation that doesn't exist, in place of serde's; other messages stay.
fn in_operations(node: &Map<String, Value>, message: String) -> String {
    let Some(rest) = message.strip_prefix("unknown variant ") else { return message };
    let name = node.get("op").and_then(Value::as_str).unwrap_or_default();
    let kinds = [
        ("unary", Unary::ALL.iter().any(|function| function.name() == name)),
        ("binary", Binary::ALL.iter().any(|function| function.name() == name)),
        ("reduce", Reduce::ALL.iter().any(|function| function.name() == name)),
    ];
    let written = kinds.into_iter().filter(|(_, has)| *has);
    let written: Vec<String> =
        written.map(|(op, _)| format!("{{\"op\": \"{op}\", \"function\": \"{name}\", …}}")).collect();
    if !written.is_empty() {
        return format!("`{name}` is a function, not an operation: write {}", written.join(" or "));
    }
    let known = rest.split_once("expected one of ").map_or(rest, |(_, known)| known).replace('`', "");
    format!("there is no operation `{name}`; there are {known}")
}
