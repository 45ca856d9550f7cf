//! Weights of few bits in graphs.

use std::collections::HashMap;

use super::{Graph, Op, ValueId};
use crate::{
    Error, Result,
    quantize::{Packing, Quantization, QuantizedWeight},
    tensor::{DType, Tensor},
};

/// A quantised weight in a graph: the values that [`Op::Dequantize`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuantizedValue {
    /// The layout of the numbers in memory.
    pub packing: Packing,
    /// The numbers.
    pub words: ValueId,
    /// The scales.
    pub scale: ValueId,
    /// The zero points, if the packing has them.
    pub zero: Option<ValueId>,
}

/// A quantised weight whose tensors are parameters, named after the weight: `w.words`, `w.scale`, `w.zero`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizedParameter {
    /// The weight's name.
    pub name: String,
    /// Its rows.
    pub rows: usize,
    /// Its columns.
    pub columns: usize,
    /// The way it is quantised.
    pub quantization: Quantization,
}

const TENSORS: [&str; 3] = ["words", "scale", "zero"];

impl QuantizedWeight {
    /// Its tensors by the names that [`Graph::quantized_parameter`] gives them.
    pub fn named(&self, name: &str) -> Vec<(String, Tensor)> {
        let tensors = [Some(&self.words), Some(&self.scale), self.zero.as_ref()];
        let named = TENSORS.iter().zip(tensors);
        named.filter_map(|(tensor, value)| Some((format!("{name}.{tensor}"), value?.clone()))).collect()
    }
}

impl QuantizedParameter {
    /// The names of its tensors.
    pub fn names(&self) -> Vec<String> {
        let count = 2 + usize::from(self.quantization.zero);
        TENSORS.iter().take(count).map(|tensor| format!("{}.{tensor}", self.name)).collect()
    }
}

impl Graph {
    /// A quantised weight `[rows, columns]` as parameters `name.words`, `name.scale` and, with zero points,
    /// `name.zero`.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, quantize::Quantization};
    /// # let mut g = Graph::new();
    /// let w = g.quantized_parameter("w", [3, 64], Quantization::int4(32))?;
    /// assert_eq!(g.describe(w.words), "w.words: u32 [3, 8]"); // eight numbers to a word
    /// assert_eq!(g.describe(w.scale), "w.scale: f32 [3, 2]"); // 64 / 32 groups
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] as [`Packing::check`]; [`Error::Graph`] as [`Graph::parameter`].
    pub fn quantized_parameter(
        &mut self,
        name: &str,
        [rows, columns]: [usize; 2],
        quantization: Quantization,
    ) -> Result<QuantizedValue> {
        let packing = quantization.packing(columns);
        packing.check()?;
        let words = self.parameter(&format!("{name}.words"), DType::U32, [rows, packing.words()])?;
        let scale = self.parameter(&format!("{name}.scale"), quantization.scales, [rows, packing.groups()])?;
        let zero = if packing.zero {
            Some(self.parameter(&format!("{name}.zero"), DType::U32, [packing.zero_words(rows)])?)
        } else {
            None
        };
        Ok(QuantizedValue { packing, words, scale, zero })
    }

    /// The weight `[rows, columns]` in f32. A matmul that takes it transposed, as [`Graph::linear`] does, reads the
    /// quantised numbers; the f32 weight is then never in memory. See [`Op::Dequantize`].
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{Graph, Tensor, quantize::Quantization, reference};
    /// # let mut g = Graph::new();
    /// let weight = Tensor::new([1, 2], vec![1.27f32, -0.5])?;
    /// let quantized = Quantization::int8().quantize(&weight)?;
    /// let w = g.quantized_parameter("w", [1, 2], Quantization::int8())?;
    /// let w = g.dequantize(w)?;
    /// g.output("w", w)?;
    /// let outputs = reference::evaluate(&g, &BTreeMap::from_iter(quantized.named("w")))?;
    /// assert_eq!(outputs["w"], quantized.dequantize()?);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] if the values don't have the dtypes and shapes that the packing asks for, and as
    /// [`Packing::check`].
    pub fn dequantize(&mut self, weight: QuantizedValue) -> Result<ValueId> {
        let operands: Vec<ValueId> = [weight.words, weight.scale].into_iter().chain(weight.zero).collect();
        Ok(self.push(Op::Dequantize(weight.packing), &operands)?[0])
    }

    /// [`Graph::linear`] with a quantised weight: `x [… in] → [… out]` in the dtype of `x`; sums are f32.
    ///
    /// ```
    /// use tilewise::{DType, Graph, quantize::Quantization};
    /// let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [1, 4096])?;
    /// let w = g.quantized_parameter("w", [11008, 4096], Quantization::int4(128).scales(DType::F16))?;
    /// let y = g.linear_quantized(x, w, None)?;
    /// assert_eq!(g.shape(y), &[1, 11008].into());
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] as [`Graph::dequantize`] and [`Graph::linear`].
    pub fn linear_quantized(&mut self, x: ValueId, weight: QuantizedValue, bias: Option<ValueId>) -> Result<ValueId> {
        let dtype = self.dtype(x);
        let wide = |g: &mut Graph, value: ValueId| {
            if g.dtype(value).is_narrow() { g.cast(value, DType::F32) } else { Ok(value) }
        };
        let x = wide(self, x)?;
        let bias = bias.map(|bias| wide(self, bias)).transpose()?;
        let weight = self.dequantize(weight)?;
        let y = self.linear(x, weight, bias)?;
        if self.dtype(y) == dtype { Ok(y) } else { self.cast(y, dtype) }
    }

    /// The same graph with the weights of linear layers quantised: each f32 parameter `[out, in]` that only products
    /// `x · wᵀ` read, and whose name is `wanted`. [`Graph::quantized_parameter`] names its tensors;
    /// [`QuantizedWeight::named`] gives them, and `nn::Weights` makes them from a file that has the weight itself.
    ///
    /// ```
    /// use tilewise::{DType, Graph, nn::Linear, quantize::Quantization};
    /// let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [1, 64])?;
    /// let y = Linear::new(64, 32).build(&mut g, "head", x)?;
    /// g.output("y", y)?;
    /// let small = g.quantized(Quantization::int8(), |name| name.starts_with("head"))?;
    /// let names: Vec<&str> = small.parameters().map(|(name, _)| name).collect();
    /// assert_eq!(names, ["head.weight.words", "head.weight.scale", "head.bias"]);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Op`] as [`Packing::check`], or if the scales are no float; [`Error::Graph`] if a name such as `w.words`
    /// is taken.
    pub fn quantized(&self, quantization: Quantization, wanted: impl Fn(&str) -> bool) -> Result<Graph> {
        let users = self.users();
        let mut leaves = vec![false; self.values.len()];
        let named = self.outputs.iter().chain(&self.traces).map(|(_, value)| value);
        named.chain(self.updates.iter().map(|(_, next)| next)).for_each(|value| leaves[value.index()] = true);
        let is_weight = |value: ValueId| {
            let readers = &users[value.index()];
            let linear = readers.iter().all(|&reader| {
                let node = self.node(reader);
                matches!(node.op, Op::Matmul { transpose_b: true, .. }) && node.inputs[0] != value
            });
            let matrix = self.dtype(value) == DType::F32 && self.shape(value).rank() == 2;
            matrix && linear && !readers.is_empty() && !leaves[value.index()]
        };
        let mut graph = Graph::new();
        let mut map: Vec<ValueId> = Vec::with_capacity(self.values.len());
        for node in &self.nodes {
            let old = node.outputs[0];
            if let (Op::Parameter { shape, .. }, Some(name)) = (&node.op, &self.value(old).name)
                && is_weight(old)
                && wanted(name)
            {
                let weight = graph.quantized_parameter(name, [shape[0], shape[1]], quantization)?;
                map.push(graph.dequantize(weight)?);
                continue;
            }
            let inputs: Vec<ValueId> = node.inputs.iter().map(|input| map[input.index()]).collect();
            for (new, &old) in graph.push(node.op.clone(), &inputs)?.into_iter().zip(&node.outputs) {
                if let Some(name) = &self.value(old).name {
                    graph.name(new, name.clone())?;
                }
                map.push(new);
            }
        }
        for (name, value) in &self.outputs {
            graph.output(name.clone(), map[value.index()])?;
        }
        for (path, value) in &self.traces {
            graph.trace(path, map[value.index()])?;
        }
        for &(state, next) in &self.updates {
            graph.update(map[state.index()], map[next.index()])?;
        }
        Ok(graph)
    }

    /// The quantised weights of the graph whose tensors are parameters, each once.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, quantize::Quantization};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [1, 64])?;
    /// let w = g.quantized_parameter("w", [32, 64], Quantization::int8())?;
    /// g.linear_quantized(x, w, None)?;
    /// let found = g.quantized_parameters()?;
    /// assert_eq!((&found[0].name[..], found[0].rows, found[0].columns), ("w", 32, 64));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Graph`] if the same tensors are read as weights of two kinds.
    pub fn quantized_parameters(&self) -> Result<Vec<QuantizedParameter>> {
        let mut found: Vec<QuantizedParameter> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        for node in &self.nodes {
            let Op::Dequantize(Packing { bits, group, zero, columns }) = node.op else { continue };
            let of_weight = |(value, tensor): (&ValueId, &&str)| {
                let named = matches!(self.definition(*value).op, Op::Parameter { .. });
                let name = self.value(*value).name.as_ref().filter(|_| named)?;
                Some(name.strip_suffix(tensor)?.strip_suffix('.')?.to_string())
            };
            let names: Option<Vec<String>> = node.inputs.iter().zip(&TENSORS).map(of_weight).collect();
            let Some(name) = names.filter(|names| names.iter().all(|name| *name == names[0])).map(|mut n| n.remove(0))
            else {
                continue;
            };
            let scales = self.dtype(node.inputs[1]);
            let quantization = Quantization { bits, group, zero, scales };
            let parameter = QuantizedParameter { name, rows: self.shape(node.inputs[0])[0], columns, quantization };
            let at = *places.entry(parameter.name.clone()).or_insert(found.len());
            match found.get(at) {
                Some(known) if *known != parameter => {
                    return Err(Error::Graph(format!("`{}` is read as weights of two kinds", parameter.name)));
                }
                Some(_) => {}
                None => found.push(parameter),
            }
        }
        Ok(found)
    }
}
