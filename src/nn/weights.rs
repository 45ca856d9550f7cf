//! Weights from safetensors files, straight to the device.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use ::safetensors::{Dtype, tensor::Metadata};
use serde::Deserialize;

use crate::{
    DType, Data, Error, Graph, Result, Shape, Tensor, fields, files,
    gpu::{Gpu, Parameters, wgpu},
    graph::QuantizedParameter,
    tensor::safetensors::{check_head, decode},
};

/// The tensors of a model on disk, by name. Opening reads only the headers; a tensor is read when it is asked for.
///
/// ```no_run
/// # fn main() -> tilewise::Result<()> {
/// # let (graph, gpu) = (tilewise::Graph::new(), tilewise::gpu::Gpu::new()?);
/// use tilewise::nn::Weights;
/// let weights = Weights::open("model.safetensors")?;
/// weights.check(&graph)?; // every missing, unexpected and mis-shaped tensor in one error
/// let uploaded = weights.upload(&gpu, &graph)?; // one tensor in host memory at a time
/// let program = gpu.compile(&graph, uploaded.parameters())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Weights {
    files: Vec<PathBuf>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Shape,
    start: u64,
    bytes: usize,
    /// The name in the file.
    stored: String,
}

/// Parameters on a device; programs can share them.
#[derive(Clone, Debug, Default)]
pub struct Uploaded {
    buffers: Vec<(String, wgpu::Buffer)>,
}

impl Uploaded {
    /// The buffers, for [`Gpu::compile`](crate::gpu::Gpu::compile) and [`Gpu::load`](crate::gpu::Gpu::load).
    pub fn parameters(&self) -> Parameters<'_> {
        self.buffers.iter().fold(Parameters::new(), |all, (name, buffer)| all.buffer(name, buffer.clone()))
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Weights {
    /// Opens a `.safetensors` file, a `.safetensors.index.json` that lists shards, or a folder with either
    /// (`model.safetensors.index.json` before `model.safetensors`). It reads the headers alone.
    ///
    /// ```
    /// # let folder = std::env::temp_dir().join(format!("tilewise-open-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).unwrap();
    /// use tilewise::{Tensor, nn::Weights, safetensors};
    /// safetensors::save(folder.join("model.safetensors"), &[("w".to_string(), Tensor::scalar(2.0))].into())?;
    /// let weights = Weights::open(&folder)?;
    /// assert_eq!(weights.names().collect::<Vec<_>>(), ["w"]);
    /// # std::fs::remove_dir_all(folder).unwrap();
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Format`], which names the file, if it can't be read or is not whole, if the index lists a tensor that
    /// no shard has, or if two shards have the same one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            let candidates = ["model.safetensors.index.json", "model.safetensors"].map(|name| path.join(name));
            return match candidates.iter().find(|file| file.is_file()) {
                Some(file) => Weights::open(file),
                None => Err(Error::format(
                    path.display().to_string(),
                    "the folder has neither model.safetensors.index.json nor model.safetensors",
                )),
            };
        }
        let mut weights = Weights { files: Vec::new(), entries: BTreeMap::new() };
        if path.extension().is_some_and(|extension| extension == "json") {
            let fail = |message: String| Error::format(path.display().to_string(), message);
            let text = std::fs::read_to_string(path).map_err(|e| fail(format!("can't be read: {e}")))?;
            let index: Index = fields::parse(&text).map_err(fail)?;
            if index.weight_map.is_empty() {
                return Err(fail("its `weight_map` is empty, expected a file for each tensor".into()));
            }
            let folder = path.parent().unwrap_or(Path::new(""));
            let mut shards: Vec<&String> = index.weight_map.values().collect();
            shards.sort_unstable();
            shards.dedup();
            for shard in shards {
                weights.add(&files::within(folder, shard)?)?;
            }
            if let Some(lost) = index.weight_map.keys().find(|name| !weights.entries.contains_key(*name)) {
                return Err(fail(format!("`{lost}` is listed, but no shard has it")));
            }
        } else {
            weights.add(path)?;
        }
        Ok(weights)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let fail = |message: String| Error::format(path.display().to_string(), message);
        let mut file = File::open(path).map_err(|e| fail(format!("can't be opened: {e}")))?;
        let size = file.metadata().map_err(|e| fail(e.to_string()))?.len();
        let mut head = Vec::new();
        Read::by_ref(&mut file).take(64).read_to_end(&mut head).map_err(|e| fail(format!("can't be read: {e}")))?;
        check_head(&head, size).map_err(fail)?;
        // No more than the file has, which was just checked.
        let header = head.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
        let mut bytes = vec![0; header as usize];
        file.seek(SeekFrom::Start(8)).map_err(|e| fail(format!("can't be read: {e}")))?;
        file.read_exact(&mut bytes).map_err(|e| fail(format!("can't be read: {e}")))?;
        let metadata: Metadata =
            serde_json::from_slice(&bytes).map_err(|e| fail(format!("its header is damaged: {e}")))?;
        let data = size - 8 - header;
        if metadata.tensors().values().any(|info| {
            let (start, end) = info.data_offsets;
            start > end || end as u64 > data
        }) {
            return Err(fail(format!("is incomplete: its tensors do not fit its {data} bytes of data")));
        }
        let index = self.files.len();
        self.files.push(path.to_path_buf());
        for (name, info) in metadata.tensors() {
            let (start, end) = info.data_offsets;
            let entry = Entry {
                file: index,
                dtype: info.dtype,
                shape: info.shape.clone().into(),
                start: 8 + header + start as u64,
                bytes: end - start,
                stored: name.clone(),
            };
            if let Some(other) = self.entries.insert(name.clone(), entry) {
                return Err(fail(format!("`{name}` is in {} too", self.files[other.file].display())));
            }
        }
        Ok(())
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&Shape> {
        self.entries.get(name).map(|entry| &entry.shape)
    }

    /// Gives tensors other names: `rename` returns the parameter's name for the file's, or `None` to leave the tensor
    /// out.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("tilewise-rename-{}.safetensors", std::process::id()));
    /// # use tilewise::{Tensor, nn::Weights, safetensors};
    /// # safetensors::save(&path, &[("model.w".to_string(), Tensor::scalar(2.0))].into())?;
    /// let weights = Weights::open(&path)?.rename(|name| name.strip_prefix("model.").map(str::to_string))?;
    /// assert_eq!(weights.names().collect::<Vec<_>>(), ["w"]);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Binding`] if two tensors would have one name.
    pub fn rename(self, rename: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        for (name, entry) in self.entries {
            let Some(new) = rename(&name) else { continue };
            if let Some(other) = entries.insert(new.clone(), entry) {
                return Err(Error::Binding(format!("`{name}` and `{}` would both be called `{new}`", other.stored)));
            }
        }
        Ok(Weights { entries, ..self })
    }

    /// Compares the tensors with the parameters of a graph. For a quantised weight ([`Graph::quantized`]) either its
    /// tensors are there, or the weight itself, which is then quantised.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("tilewise-check-{}.safetensors", std::process::id()));
    /// # use tilewise::{Graph, Tensor, nn::{self, Weights}, safetensors};
    /// # safetensors::save(&path, &[("w".to_string(), Tensor::scalar(2.0))].into())?;
    /// # let mut g = Graph::new();
    /// nn::parameter(&mut g, "w", [3])?;
    /// let error = Weights::open(&path)?.check(&g).unwrap_err();
    /// assert!(error.to_string().ends_with("1 of another shape:\n  w: the file has [], the graph needs [3]"));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Binding`] with every tensor that is missing, unexpected or of another shape; [`Error::Graph`] as
    /// [`Graph::quantized_parameters`].
    pub fn check(&self, graph: &Graph) -> Result<()> {
        let (mut missing, mut shapes) = (Vec::new(), Vec::new());
        let mut expected = BTreeSet::new();
        let quantized = self.to_quantize(graph)?;
        for weight in &quantized {
            expected.insert(weight.name.as_str());
            let (found, needed) = (&self.entries[&weight.name].shape, Shape::from([weight.rows, weight.columns]));
            if *found != needed {
                shapes.push(format!("{}: the file has {found}, the graph needs {needed}", weight.name));
            }
        }
        let made: BTreeSet<String> = quantized.iter().flat_map(QuantizedParameter::names).collect();
        for (name, value) in graph.parameters().filter(|(name, _)| !made.contains(*name)) {
            expected.insert(name);
            match self.entries.get(name) {
                None => missing.push(graph.describe(value)),
                Some(entry) if &entry.shape != graph.shape(value) => {
                    shapes.push(format!(
                        "{name}: the file has {}, the graph needs {}",
                        entry.shape,
                        graph.shape(value)
                    ));
                }
                Some(_) => {}
            }
        }
        let unexpected: Vec<String> = self
            .entries
            .iter()
            .filter(|(name, _)| !expected.contains(name.as_str()))
            .map(|(name, entry)| format!("{name}: {}", entry.shape))
            .collect();
        let mut message = String::new();
        for (title, list) in [("missing", &missing), ("unexpected", &unexpected), ("of another shape", &shapes)] {
            if !list.is_empty() {
                let _ = write!(message, "\n{} {title}:\n  {}", list.len(), list.join("\n  "));
            }
        }
        if message.is_empty() {
            return Ok(());
        }
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        let files = if files.is_empty() { "no file".into() } else { files.join(", ") };
        Err(Error::Binding(format!("the weights in {files} do not fit the model:{message}")))
    }

    /// Reads one tensor, in the dtype of the file.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("tilewise-tensor-{}.safetensors", std::process::id()));
    /// # use tilewise::{Tensor, nn::Weights, safetensors};
    /// # safetensors::save(&path, &[("w".to_string(), Tensor::scalar(2.0))].into())?;
    /// assert_eq!(Weights::open(&path)?.tensor("w")?, Tensor::scalar(2.0));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Binding`] if there is no tensor of this name; [`Error::Format`] if the file can't be read any more, or
    /// has the tensor in a type that tilewise doesn't know.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let entry = self.entries.get(name).ok_or_else(|| Error::Binding(format!("there is no tensor `{name}`")))?;
        let path = &self.files[entry.file];
        let fail = |e: std::io::Error| Error::format(path.display().to_string(), format!("`{name}`: {e}"));
        let mut file = File::open(path).map_err(fail)?;
        file.seek(SeekFrom::Start(entry.start)).map_err(fail)?;
        let mut bytes = vec![0; entry.bytes];
        file.read_exact(&mut bytes).map_err(fail)?;
        decode(name, entry.dtype, &entry.shape, &bytes)
    }

    /// The weights of few bits of a graph that are not in the files as such, but as they were.
    fn to_quantize(&self, graph: &Graph) -> Result<Vec<QuantizedParameter>> {
        let mut weights = graph.quantized_parameters()?;
        weights.retain(|weight| {
            self.entries.contains_key(&weight.name)
                && !weight.names().iter().any(|name| self.entries.contains_key(name))
        });
        Ok(weights)
    }

    /// Uploads the parameters of a graph, one tensor at a time, converted to their dtypes or quantised.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("tilewise-upload-{}.safetensors", std::process::id()));
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu, nn::{self, Weights}, safetensors};
    /// # safetensors::save(&path, &[("w".to_string(), Tensor::scalar(2.0))].into())?;
    /// # let mut g = Graph::new();
    /// let (x, w) = (g.input("x", DType::F32, [2])?, nn::parameter(&mut g, "w", [])?);
    /// let y = g.mul(x, w)?;
    /// g.output("y", y)?;
    /// let gpu = Gpu::new()?;
    /// let uploaded = Weights::open(&path)?.upload(&gpu, &g)?;
    /// let outputs = gpu.compile(&g, uploaded.parameters())?.run(&[("x", &Tensor::new([2], vec![1.0f32, 3.0])?)])?;
    /// assert_eq!(outputs["y"].as_f32(), Some(&[2.0, 6.0][..]));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Weights::check`] and [`Weights::tensor`]; [`Error::Op`] if a tensor is no float where the graph needs one,
    /// or the other way round, or can't be quantised; [errors of the device](crate::gpu#errors-of-the-device).
    pub fn upload(&self, gpu: &Gpu, graph: &Graph) -> Result<Uploaded> {
        let mut buffers = Vec::new();
        self.each(graph, |name, tensor| {
            buffers.push((name, gpu.upload(&tensor)?));
            Ok(())
        })?;
        Ok(Uploaded { buffers })
    }

    /// Reads the parameters of a graph into host memory, converted to their dtypes or quantised: for the reference.
    ///
    /// ```
    /// # let path = std::env::temp_dir().join(format!("tilewise-tensors-{}.safetensors", std::process::id()));
    /// # use tilewise::{Graph, Tensor, nn::{self, Weights}, safetensors};
    /// # safetensors::save(&path, &[("w".to_string(), Tensor::new([], vec![half::f16::ONE])?)].into())?;
    /// # let mut g = Graph::new();
    /// nn::parameter(&mut g, "w", [])?; // f32 here, f16 in the file
    /// assert_eq!(Weights::open(&path)?.tensors(&g)?["w"], Tensor::scalar(1.0));
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Weights::check`] and [`Weights::tensor`]; [`Error::Op`] if a tensor is no float where the graph needs one,
    /// or the other way round, or can't be quantised.
    pub fn tensors(&self, graph: &Graph) -> Result<BTreeMap<String, Tensor>> {
        let mut tensors = BTreeMap::new();
        self.each(graph, |name, tensor| {
            tensors.insert(name, tensor);
            Ok(())
        })?;
        Ok(tensors)
    }

    /// Hands on the tensor of each parameter of a graph.
    fn each(&self, graph: &Graph, mut take: impl FnMut(String, Tensor) -> Result<()>) -> Result<()> {
        self.check(graph)?;
        let quantized = self.to_quantize(graph)?;
        for weight in &quantized {
            let made = weight.quantization.quantize(&self.tensor(&weight.name)?)?;
            made.named(&weight.name).into_iter().try_for_each(|(name, tensor)| take(name, tensor))?;
        }
        let made: BTreeSet<String> = quantized.iter().flat_map(QuantizedParameter::names).collect();
        for (name, value) in graph.parameters().filter(|(name, _)| !made.contains(*name)) {
            take(name.to_string(), convert(self.tensor(name)?, graph.dtype(value), name)?)?;
        }
        Ok(())
    }
}

/// The same values in another float dtype.
fn convert(tensor: Tensor, dtype: DType, name: &str) -> Result<Tensor> {
    if tensor.dtype() == dtype {
        return Ok(tensor);
    }
    let numbers = tensor.dtype().is_float().then(|| tensor.to_f64().into_iter());
    let data = numbers.and_then(|numbers| Data::floats(dtype, numbers));
    let wrong = || format!("`{name}` is {} in the file, the graph needs {dtype}", tensor.dtype());
    Tensor::new(tensor.shape(), data.ok_or_else(|| Error::op("weights", wrong()))?)
}
