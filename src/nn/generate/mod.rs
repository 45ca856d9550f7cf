//! Generation: one token after the other, with a cache, by a program that is compiled once.
//!
//! A [`Generator`] holds a model on a device with room for some sequences. Prompts of any lengths form one batch; they run in
//! chunks of a few fixed sizes, so that a new length compiles nothing, and then all sequences grow by one token a step. The position of
//! each sequence is in a buffer, not in the program. A sequence that has ended stays idle until the others have ended.
//!
//! ```
//! use std::collections::BTreeMap;
//! use tilewise::{Tensor, gpu::Gpu, nn::{Gpt, generate::{self, Capacity, Generator, Request}}};
//!
//! let model = Gpt::gpt2(50, 32, 16, 2, 4);
//! // This example draws its weights; `nn::Weights` loads those of a published model under the same names.
//! let mut weights = BTreeMap::new();
//! for (name, (_, shape)) in generate::parameters(&model)? {
//!     let n = shape.iter().product();
//!     weights.insert(name, Tensor::new(shape, (0..n).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<f32>>())?);
//! }
//! let mut generator = Generator::new(&Gpu::new()?, model, &weights, Capacity::items(2))?;
//! let prompts = vec![vec![3, 14, 15], vec![9]];
//! let generated = generator.generate(&Request::new(prompts, 5))?;
//! assert!(generated.sequences.iter().all(|sequence| sequence.ids.len() == 5));
//! # Ok::<(), tilewise::Error>(())
//! ```

mod beam;
mod model;
mod program;
mod request;
mod run;
mod sample;

use std::collections::BTreeMap;

pub use model::{Autoregressive, Source, Step};
pub use request::{End, Generated, Request, Sequence, Strategy, Time, Token};
pub use sample::distribution;

use crate::{
    DType, Error, Graph, Result, Shape, Tensor,
    gpu::{Executable, Gpu, Lease, Parameters, Wait, wgpu},
};
use program::{Kind, Plan, Readback};

/// The room of a [`Generator`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Sequences at once: prompts, times beams.
    pub items: usize,
    /// Tokens that a linear cache holds of each sequence; `None` is as many as the model has positions. The caches take
    /// this times items, layers, key heads and twice their width.
    pub places: Option<usize>,
    /// Whether the caches are circular, for which the model needs a window: they then hold little more than the window,
    /// however long the sequence.
    pub circular: bool,
    /// Tokens of a prompt that are taken at once. Each size has a program, made when it is first needed; the rest of a
    /// prompt takes the smallest that holds it.
    pub chunks: Vec<usize>,
}

impl Capacity {
    /// Room for this many sequences: linear caches as long as the model allows, prompts by 16 and 128 tokens.
    pub fn items(items: usize) -> Self {
        Capacity { items, places: None, circular: false, chunks: vec![16, 128] }
    }
}

/// A model that is ready to generate: weights and caches on the device, programs compiled as they are needed and kept.
pub struct Generator<M> {
    gpu: Gpu,
    model: M,
    plan: Plan,
    /// Parameters and states, which all programs share.
    buffers: BTreeMap<String, wgpu::Buffer>,
    /// The memory of those parameters that were uploaded.
    weights: Lease,
    programs: BTreeMap<Kind, Executable>,
}

/// The parameters that a model needs, with dtypes and shapes.
///
/// ```
/// use tilewise::nn::{Gpt, generate};
/// let parameters = generate::parameters(&Gpt::gpt2(50, 32, 16, 2, 4))?;
/// assert_eq!(parameters["wte.weight"].1, [50, 16].into());
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Op`] if the model has no positions; and those of the model's [`step`](Autoregressive::step),
/// [`logits`](Autoregressive::logits) and [`remember`](Autoregressive::remember).
pub fn parameters(model: &impl Autoregressive) -> Result<BTreeMap<String, (DType, Shape)>> {
    let plan = plan(model, &Capacity { places: Some(1), chunks: vec![1], ..Capacity::items(1) })?;
    wanted(&plan, model)
}

impl<M: Autoregressive> Generator<M> {
    /// Uploads the weights, allocates the caches and compiles the program of a step.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{Result, Tensor, gpu::Gpu, nn::{Gpt, generate::{self, Capacity, Generator}}};
    /// # let model = Gpt::gpt2(50, 32, 16, 1, 4);
    /// # let zeros = |(name, (dtype, shape))| Ok((name, Tensor::zeros(dtype, shape)?));
    /// # let weights = generate::parameters(&model)?.into_iter().map(zeros).collect::<Result<BTreeMap<_, _>>>()?;
    /// # pollster::block_on(async {
    /// let gpu = Gpu::new_async().await?;
    /// let generator = Generator::new_async(&gpu, model, &weights, Capacity::items(2)).await?;
    /// assert_eq!(generator.model().vocabulary, 50);
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`Error::Op`] if the capacity has no items, chunks or places, or a circular cache for a model without a
    ///   window;
    /// - [`Error::Binding`] with every weight that is missing, unknown or of another dtype or shape;
    /// - those of the model's [`step`](Autoregressive::step), [`logits`](Autoregressive::logits) and
    ///   [`remember`](Autoregressive::remember), and of [`Gpu::compile_async`].
    pub async fn new_async(
        gpu: &Gpu,
        model: M,
        weights: impl Into<Parameters<'_>>,
        capacity: Capacity,
    ) -> Result<Self> {
        let mut plan = plan(&model, &capacity)?;
        let step = Kind::Step { tokens: 1, readback: Readback::Ids };
        plan.caches = states(&plan.graph(&model, step)?);
        let (buffers, weights) = gpu.share(&wanted(&plan, &model)?, weights.into()).await?;
        let mut generator = Generator { gpu: gpu.clone(), model, plan, buffers, weights, programs: BTreeMap::new() };
        if let Some(&tokens) = generator.plan.sources.first() {
            // It makes the buffers of the memory, which steps read.
            generator.program(Kind::Remember { tokens }).await?;
        }
        generator.program(step).await?;
        Ok(generator)
    }

    /// [`Generator::new_async`], blocking.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{Result, Tensor, gpu::Gpu, nn::{Gpt, generate::{self, Capacity, Generator}}};
    /// # let model = Gpt::gpt2(50, 32, 16, 1, 4);
    /// # let zeros = |(name, (dtype, shape))| Ok((name, Tensor::zeros(dtype, shape)?));
    /// # let weights = generate::parameters(&model)?.into_iter().map(zeros).collect::<Result<BTreeMap<_, _>>>()?;
    /// let error = Generator::new(&Gpu::new()?, model, &weights, Capacity::items(0)).unwrap_err();
    /// assert_eq!(error.to_string(), "generator: there is room for 0 items, expected at least 1");
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Generator::new_async`].
    #[cfg(feature = "native")]
    pub fn new<'a>(gpu: &Gpu, model: M, weights: impl Into<Parameters<'a>>, capacity: Capacity) -> Result<Self> {
        pollster::block_on(Self::new_async(gpu, model, weights.into(), capacity))
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Bytes of device memory that it has now: weights that were uploaded for it, caches, and what its programs need.
    pub fn memory(&self) -> u64 {
        self.weights.bytes() + self.programs.values().map(Executable::memory).sum::<u64>()
    }

    /// Gives back the memory that it can do without until the next request; see [`Executable::trim`]. Weights and caches
    /// stay. Returns how many bytes that were.
    pub fn trim(&mut self) -> u64 {
        self.programs.values_mut().map(Executable::trim).sum()
    }

    /// Makes every program that requests of this strategy can need, and runs each once, as many drivers compile only
    /// then. Without it the first such request does.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{Result, Tensor, gpu::Gpu, nn::{Gpt, generate::{self, Capacity, Generator, Request}}};
    /// # let model = Gpt::gpt2(50, 32, 16, 1, 4);
    /// # let zeros = |(name, (dtype, shape))| Ok((name, Tensor::zeros(dtype, shape)?));
    /// # let weights = generate::parameters(&model)?.into_iter().map(zeros).collect::<Result<BTreeMap<_, _>>>()?;
    /// # pollster::block_on(async {
    /// # let gpu = Gpu::new_async().await?;
    /// # let capacity = Capacity { chunks: vec![4], ..Capacity::items(1) };
    /// let mut generator = Generator::new_async(&gpu, model, &weights, capacity).await?;
    /// let request = Request::new(vec![vec![3, 14, 15]], 2);
    /// generator.prepare_async(&request).await?;
    /// let compiled = gpu.compiled_pipelines();
    /// generator.generate_async(&request, &mut |_| std::ops::ControlFlow::Continue(())).await?;
    /// assert_eq!(gpu.compiled_pipelines(), compiled);
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Gpu::compile_async`] and of [`Executable::run_async`].
    pub async fn prepare_async(&mut self, request: &Request) -> Result<()> {
        self.prepare_with(request, Wait::Wake).await
    }

    async fn prepare_with(&mut self, request: &Request, wait: Wait) -> Result<()> {
        let readback = Readback::of(request);
        let sources = self.plan.sources.clone().into_iter().map(|tokens| Kind::Remember { tokens });
        let chunks = [1].into_iter().chain(self.plan.chunks.clone());
        let steps = chunks.map(|tokens| Kind::Step { tokens, readback });
        let reorder = matches!(request.strategy, Strategy::Beam { .. }).then_some(Kind::Reorder);
        for kind in sources.chain(steps).chain(reorder) {
            let program = self.program(kind).await?;
            let known =
                program.inputs().map(|(name, dtype, shape)| Ok((name.to_string(), Tensor::zeros(dtype, shape)?)));
            let zeros: Vec<(String, Tensor)> = known.collect::<Result<_>>()?;
            let inputs: Vec<(&str, &Tensor)> = zeros.iter().map(|(name, zero)| (name.as_str(), zero)).collect();
            program.run_with(&inputs, wait).await?;
        }
        Ok(())
    }

    /// [`Generator::prepare_async`], blocking.
    ///
    /// ```
    /// # use std::collections::BTreeMap;
    /// # use tilewise::{Result, Tensor, gpu::Gpu, nn::{Gpt, generate::{self, Capacity, Generator, Request}}};
    /// # let model = Gpt::gpt2(50, 32, 16, 1, 4);
    /// # let zeros = |(name, (dtype, shape))| Ok((name, Tensor::zeros(dtype, shape)?));
    /// # let weights = generate::parameters(&model)?.into_iter().map(zeros).collect::<Result<BTreeMap<_, _>>>()?;
    /// # let capacity = Capacity { chunks: vec![4], ..Capacity::items(1) };
    /// let gpu = Gpu::new()?;
    /// let mut generator = Generator::new(&gpu, model, &weights, capacity)?;
    /// let request = Request::new(vec![vec![3, 14, 15]], 2);
    /// generator.prepare(&request)?;
    /// let compiled = gpu.compiled_pipelines();
    /// generator.generate(&request)?;
    /// assert_eq!(gpu.compiled_pipelines(), compiled);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Generator::prepare_async`].
    #[cfg(feature = "native")]
    pub fn prepare(&mut self, request: &Request) -> Result<()> {
        pollster::block_on(self.prepare_with(request, Wait::Block))
    }

    /// A program, made if need be.
    async fn program(&mut self, kind: Kind) -> Result<&mut Executable> {
        if !self.programs.contains_key(&kind) {
            let graph = self.plan.graph(&self.model, kind)?;
            let names = graph.parameters().map(|(name, _)| name).chain(graph.states().map(|(name, ..)| name));
            let known = names.filter_map(|name| Some((name, self.buffers.get(name)?.clone())));
            let given = known.fold(Parameters::new(), |all, (name, buffer)| all.buffer(name, buffer));
            let mut program = self.gpu.compile_async(&graph, given).await?;
            for (name, ..) in graph.states() {
                if !self.buffers.contains_key(name) {
                    self.buffers.insert(name.to_string(), program.buffer_async(name).await?);
                }
            }
            self.programs.insert(kind, program);
        }
        match self.programs.get_mut(&kind) {
            Some(program) => Ok(program),
            None => Err(Error::op("generate", "the program was lost")),
        }
    }
}

impl<M: std::fmt::Debug> std::fmt::Debug for Generator<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generator").field("model", &self.model).field("plan", &self.plan).finish_non_exhaustive()
    }
}

fn states(graph: &Graph) -> Vec<(String, DType, Shape)> {
    graph.states().map(|(name, state, _)| (name.to_string(), graph.dtype(state), graph.shape(state).clone())).collect()
}

/// The parameters of all programs that are no states of one of them.
fn wanted(plan: &Plan, model: &impl Autoregressive) -> Result<BTreeMap<String, (DType, Shape)>> {
    let mut graphs = vec![plan.graph(model, Kind::Step { tokens: 1, readback: Readback::Ids })?];
    if let Some(&tokens) = plan.sources.first() {
        graphs.push(plan.graph(model, Kind::Remember { tokens })?);
    }
    let kept: Vec<String> = graphs.iter().flat_map(states).map(|(name, ..)| name).collect();
    let of = |graph: &Graph| {
        let known = |(name, value): (&str, _)| (name.to_string(), (graph.dtype(value), graph.shape(value).clone()));
        graph.parameters().map(known).collect::<Vec<_>>()
    };
    Ok(graphs.iter().flat_map(of).filter(|(name, _)| !kept.contains(name)).collect())
}

fn plan(model: &impl Autoregressive, capacity: &Capacity) -> Result<Plan> {
    let fail = |message: String| Err(Error::op("generator", message));
    let Capacity { items, circular, .. } = *capacity;
    if items == 0 {
        return fail("there is room for 0 items, expected at least 1".into());
    }
    if capacity.chunks.is_empty() || capacity.chunks.contains(&0) {
        return fail(format!("chunks are {:?}, expected at least one, and of at least 1 token", capacity.chunks));
    }
    let positions = model.positions();
    let most = capacity.places.unwrap_or(positions).min(positions);
    if most == 0 {
        let places = capacity.places.unwrap_or(positions);
        return fail(format!("a cache of {places} places of {positions} positions holds nothing, expected at least 1"));
    }
    let sizes = |limit: usize| {
        let mut sizes: Vec<usize> = capacity.chunks.iter().map(|&size| size.min(limit)).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    };
    let chunks = sizes(most);
    let largest = chunks.last().copied().unwrap_or(1);
    let places = match (circular, model.window(), capacity.places) {
        (false, ..) => most,
        (true, None, _) => {
            return fail("a circular cache needs a model with a window: this one sees all before".into());
        }
        (true, Some(_), Some(_)) => return fail("a circular cache takes its places from the window: give none".into()),
        (true, Some(window), None) => window.saturating_add(largest - 1),
    };
    let sources = model.source().map_or(Vec::new(), |source| {
        let mut sizes = sizes(source.positions);
        sizes.extend((sizes.last() != Some(&source.positions)).then_some(source.positions));
        sizes
    });
    Ok(Plan { items, places, circular, chunks, sources, caches: Vec::new() })
}
