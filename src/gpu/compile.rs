//! From a graph to an executable in one call.

use super::{Executable, Gpu, Parameters};
use crate::{
    Graph, Result,
    lower::{Options, Program, lower},
};

impl Gpu {
    /// Lowers a graph for this device: chooses kernels, and buffers for its values. Print the program to see them. The device
    /// itself is not asked for anything, so a lost one makes no difference.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// let gpu = Gpu::new()?;
    /// let program = gpu.lower(&g, &gpu.options())?;
    /// assert_eq!(program.steps[0].family, "pointwise");
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`lower`](crate::lower::lower()).
    pub fn lower(&self, graph: &Graph, options: &Options) -> Result<Program> {
        lower(graph, self.profile(), options)
    }

    /// Lowers a graph with [the device's options](Gpu::options) and loads it: [`Gpu::lower`], then [`Gpu::load_async`].
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// # pollster::block_on(async {
    /// let mut program = Gpu::new_async().await?.compile_async(&g, []).await?;
    /// let outputs = program.run_async(&[("x", &Tensor::new([2], vec![-1.0f32, 1.0])?)]).await?;
    /// assert_eq!(outputs["y"].as_f32(), Some(&[0.0, 1.0][..]));
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Gpu::lower`] and [`Gpu::load_async`].
    pub async fn compile_async(&self, graph: &Graph, parameters: impl Into<Parameters<'_>>) -> Result<Executable> {
        self.inner.health.check()?;
        self.load_async(&self.lower(graph, &self.options())?, parameters).await
    }

    /// Lowers a graph with [the device's options](Gpu::options) and loads it: [`Gpu::lower`], then [`Gpu::load`].
    ///
    /// ```
    /// use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    ///
    /// let mut program = Gpu::new()?.compile(&g, [])?;
    /// let outputs = program.run(&[("x", &Tensor::new([2], vec![-1.0f32, 1.0])?)])?;
    /// assert_eq!(outputs["y"].as_f32(), Some(&[0.0, 1.0][..]));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Gpu::lower`] and [`Gpu::load_async`].
    #[cfg(feature = "native")]
    pub fn compile<'a>(&self, graph: &Graph, parameters: impl Into<Parameters<'a>>) -> Result<Executable> {
        self.inner.health.check()?;
        self.load(&self.lower(graph, &self.options())?, parameters)
    }
}
