//! What stays on the device from one run to the next.

use super::{
    Executable,
    executable::{BufferInfo, Home},
    given::Purpose,
    transfer::Wait,
};
use crate::{DType, Error, Result, Shape, Tensor, lower::Start};

/// States: inputs and parameters of the graph that have an update ([`Graph::update`](crate::Graph::update)). When the program is
/// loaded, the inputs are zero, and the parameters what is given; every run, recording and benchmark moves them on.
impl Executable {
    /// Name, dtype and shape of each state.
    pub fn states(&self) -> impl Iterator<Item = (&str, DType, &Shape)> {
        self.named(|home| matches!(home, Home::State { .. }))
    }

    /// Reads a state.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let count = g.input("count", DType::I32, [1])?;
    /// let one = g.scalar(1.0, count)?;
    /// let next = g.add(count, one)?;
    /// g.update(count, next)?;
    /// # pollster::block_on(async {
    /// let mut program = Gpu::new_async().await?.compile_async(&g, []).await?;
    /// program.run_async(&[]).await?;
    /// program.run_async(&[]).await?;
    /// assert_eq!(program.state_async("count").await?.as_i32(), Some(&[2][..]));
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Binding`] if there is no state of this name, or if it lies in a buffer of the caller that lacks the usage
    /// `COPY_SRC` or can't be used now; [errors of the device](crate::gpu#errors-of-the-device).
    pub async fn state_async(&self, name: &str) -> Result<Tensor> {
        self.read_state(name, Wait::Wake).await
    }

    /// Writes a state.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let count = g.input("count", DType::I32, [1])?;
    /// let one = g.scalar(1.0, count)?;
    /// let next = g.add(count, one)?;
    /// g.update(count, next)?;
    /// # pollster::block_on(async {
    /// let mut program = Gpu::new_async().await?.compile_async(&g, []).await?;
    /// program.set_state_async("count", &Tensor::new([1], vec![41])?).await?;
    /// program.run_async(&[]).await?;
    /// assert_eq!(program.state_async("count").await?.as_i32(), Some(&[42][..]));
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Binding`] if there is no state of this name, if it has another dtype or shape, or if it lies in a buffer of
    /// the caller that lacks the usage `COPY_DST` or can't be used now; [errors of the
    /// device](crate::gpu#errors-of-the-device).
    pub async fn set_state_async(&self, name: &str, value: &Tensor) -> Result<()> {
        self.gpu.inner.health.check()?;
        let (info, buffer) = self.find_state(name)?;
        if (value.dtype(), value.shape()) != (info.dtype, &info.shape) {
            let (dtype, shape) = (value.dtype(), value.shape());
            return Err(Error::Binding(format!(
                "state `{name}` is {} {}, a tensor of {dtype} {shape} was given",
                info.dtype, info.shape
            )));
        }
        self.writable(info, buffer)?;
        self.gpu.inner.write(buffer, value.as_bytes(), name).await
    }

    /// Makes every state that was zero at first zero again. Parameters stay what they have become.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let count = g.input("count", DType::I32, [1])?;
    /// let one = g.scalar(1.0, count)?;
    /// let next = g.add(count, one)?;
    /// g.update(count, next)?;
    /// # pollster::block_on(async {
    /// let mut program = Gpu::new_async().await?.compile_async(&g, []).await?;
    /// program.run_async(&[]).await?;
    /// program.reset_async().await?;
    /// assert_eq!(program.state_async("count").await?.as_i32(), Some(&[0][..]));
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Binding`] if one lies in a buffer of the caller that lacks the usage `COPY_DST` or can't be used now; no state
    /// is reset then. [Errors of the device](crate::gpu#errors-of-the-device).
    pub async fn reset_async(&self) -> Result<()> {
        self.gpu.inner.health.check()?;
        let zero = |info: &BufferInfo| matches!(info.home, Home::State { start: Start::Zero, .. });
        for (_, info, buffer) in self.state_buffers().filter(|(_, info, _)| zero(info)) {
            self.writable(info, buffer)?;
        }
        for (_, info, buffer) in self.state_buffers().filter(|(_, info, _)| zero(info)) {
            self.gpu.inner.write(buffer, &vec![0; info.bytes as usize], &info.name).await?;
        }
        Ok(())
    }

    /// [`Executable::state_async`], blocking.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let count = g.input("count", DType::I32, [1])?;
    /// let one = g.scalar(1.0, count)?;
    /// let next = g.add(count, one)?;
    /// g.update(count, next)?;
    /// let mut program = Gpu::new()?.compile(&g, [])?;
    /// program.run(&[])?;
    /// program.run(&[])?;
    /// assert_eq!(program.state("count")?.as_i32(), Some(&[2][..]));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Executable::state_async`].
    #[cfg(feature = "native")]
    pub fn state(&self, name: &str) -> Result<Tensor> {
        pollster::block_on(self.read_state(name, Wait::Block))
    }

    /// [`Executable::set_state_async`], blocking.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let count = g.input("count", DType::I32, [1])?;
    /// let one = g.scalar(1.0, count)?;
    /// let next = g.add(count, one)?;
    /// g.update(count, next)?;
    /// let mut program = Gpu::new()?.compile(&g, [])?;
    /// program.set_state("count", &Tensor::new([1], vec![41])?)?;
    /// program.run(&[])?;
    /// assert_eq!(program.state("count")?.as_i32(), Some(&[42][..]));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Executable::set_state_async`].
    #[cfg(feature = "native")]
    pub fn set_state(&self, name: &str, value: &Tensor) -> Result<()> {
        pollster::block_on(self.set_state_async(name, value))
    }

    /// [`Executable::reset_async`], blocking.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let count = g.input("count", DType::I32, [1])?;
    /// let one = g.scalar(1.0, count)?;
    /// let next = g.add(count, one)?;
    /// g.update(count, next)?;
    /// let mut program = Gpu::new()?.compile(&g, [])?;
    /// program.run(&[])?;
    /// program.reset()?;
    /// assert_eq!(program.state("count")?.as_i32(), Some(&[0][..]));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Executable::reset_async`].
    #[cfg(feature = "native")]
    pub fn reset(&self) -> Result<()> {
        pollster::block_on(self.reset_async())
    }

    /// The bytes of every state, by the number of its buffer.
    pub(super) async fn read_states(&self, wait: Wait) -> Result<Vec<(usize, Vec<u8>)>> {
        let ranges: Vec<_> = self.state_buffers().map(|(_, info, buffer)| (buffer, 0, info.bytes)).collect();
        let contents = if ranges.is_empty() { Vec::new() } else { self.gpu.read(&ranges, wait).await? };
        Ok(self.state_buffers().map(|(i, ..)| i).zip(contents).collect())
    }

    async fn read_state(&self, name: &str, wait: Wait) -> Result<Tensor> {
        self.gpu.inner.health.check()?;
        let (info, buffer) = self.find_state(name)?;
        self.usable(info, buffer, &Purpose::source(info.bytes))?;
        let contents = self.gpu.read(&[(buffer, 0, info.bytes)], wait).await?;
        Tensor::from_bytes(info.dtype, &info.shape, contents.first().map_or(&[], Vec::as_slice))
    }

    fn writable(&self, info: &BufferInfo, buffer: &wgpu::Buffer) -> Result<()> {
        self.usable(info, buffer, &Purpose::target(info.bytes))
    }

    /// An error unless the buffer of a state, which may be the caller's, is good for this.
    fn usable(&self, info: &BufferInfo, buffer: &wgpu::Buffer, purpose: &Purpose) -> Result<()> {
        let faults = purpose.faults(&self.gpu.inner, buffer.slice(..));
        match &faults[..] {
            [] => Ok(()),
            _ => Err(Error::Binding(format!("the buffer of state `{}` {}", info.name, faults.join(", and ")))),
        }
    }

    fn state_buffers(&self) -> impl Iterator<Item = (usize, &BufferInfo, &wgpu::Buffer)> {
        let states = self.buffers.iter().enumerate();
        states.filter_map(|(i, info)| {
            if let Home::State { bound, .. } = &info.home { Some((i, info, &bound.buffer)) } else { None }
        })
    }

    pub(super) fn state_buffer(&self, name: &str) -> Option<&wgpu::Buffer> {
        self.state_buffers().find(|(_, info, _)| info.name == name).map(|(.., buffer)| buffer)
    }

    fn find_state(&self, name: &str) -> Result<(&BufferInfo, &wgpu::Buffer)> {
        self.state_buffers().find(|(_, info, _)| info.name == name).map(|(_, info, buffer)| (info, buffer)).ok_or_else(
            || {
                let names: Vec<String> = self.states().map(|(name, ..)| format!("`{name}`")).collect();
                let names = if names.is_empty() { "none".into() } else { names.join(", ") };
                Error::Binding(format!("there is no state `{name}`; the program's states are: {names}"))
            },
        )
    }
}
