//! Runs on host tensors.

use super::{
    Executable, Outputs,
    executable::{Home, Staging},
    pause::{PIECE, Pauses},
    scope::{recorded, scoped},
    transfer::Wait,
};
use crate::{Result, Tensor};

impl Executable {
    /// Runs the program on host tensors and returns its outputs.
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
    /// [`Error::Binding`](crate::Error::Binding) with everything that is wrong with the inputs: names missing, unknown
    /// or given twice, wrong shapes and dtypes; or if a buffer that was given to the program when it was loaded is destroyed or
    /// mapped; [`Error::Guard`](crate::Error::Guard) if the program was loaded with
    /// [`LoadOptions::guard`](super::LoadOptions::guard) and a kernel broke a promise; [errors of the
    /// device](crate::gpu#errors-of-the-device).
    pub async fn run_async(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs> {
        self.run_with(inputs, Wait::Wake).await
    }

    /// [`Executable::run_async`], waiting for the outputs.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// let mut program = Gpu::new()?.compile(&g, [])?;
    /// let error = program.run(&[("x", &Tensor::zeros(DType::F32, [3])?)]).unwrap_err();
    /// assert_eq!(error.to_string(), "`x` is f32 [3], expected f32 [2]; the program's inputs are: `x`");
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Executable::run_async`].
    #[cfg(feature = "native")]
    pub fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs> {
        pollster::block_on(self.run_with(inputs, Wait::Block))
    }

    /// [`Executable::run_async`], waiting in the given way.
    pub(crate) async fn run_with(&mut self, inputs: &[(&str, &Tensor)], wait: Wait) -> Result<Outputs> {
        let ran = self.run_once(inputs, wait).await;
        ran.map_err(|error| self.blame(error))
    }

    async fn run_once(&mut self, inputs: &[(&str, &Tensor)], wait: Wait) -> Result<Outputs> {
        self.gpu.inner.health.check()?;
        let inputs = self.check_inputs(inputs)?;
        if self.guard {
            return self.run_guarded(&inputs, wait).await;
        }
        #[cfg(feature = "native")]
        {
            self.copies_differ = true;
        }
        let set = self.bind_own().await?;
        // If this run fails or is dropped half-way, the next one makes new staging buffers.
        let staging = match self.staging.take() {
            Some(staging) => staging,
            None => self.create_staging().await?,
        };
        let gpu = &*self.gpu.inner;
        let mut pauses = Pauses::default();
        for (buffer, tensor) in staging.inputs.iter().zip(&inputs) {
            for (i, piece) in tensor.as_bytes().chunks(PIECE).enumerate() {
                gpu.mapped_mut(buffer)?.slice(i * PIECE..i * PIECE + piece.len()).copy_from_slice(piece);
                pauses.moved(piece.len()).await;
            }
        }
        let own = self.own_buffers();
        let submissions = scoped(&gpu.device, &gpu.health, "a run", || {
            let give = |encoder: &mut wgpu::CommandEncoder| {
                for (staging, (info, bound)) in staging.inputs.iter().zip(own.inputs()) {
                    staging.unmap();
                    encoder.copy_buffer_to_buffer(staging, 0, &bound.buffer, 0, info.bytes);
                }
            };
            let take = |encoder: &mut wgpu::CommandEncoder| {
                for (staging, (info, bound)) in staging.outputs.iter().zip(own.outputs()) {
                    encoder.copy_buffer_to_buffer(&bound.buffer, 0, staging, 0, info.bytes);
                }
            };
            self.submit(&self.bound[set].groups, give, take)
        })
        .await?;
        self.gpu.map(&staging.outputs, &staging.inputs, submissions, "a run", wait).await?;
        let mut outputs = Outputs::new();
        for (buffer, (info, _)) in staging.outputs.iter().zip(own.outputs()) {
            let view = gpu.mapped(buffer)?;
            outputs.insert(info.name.clone(), Tensor::from_bytes(info.dtype, &info.shape, &view)?);
            drop(view);
            // An error if the device is lost just now, which the next call tells.
            recorded(&gpu.device, || buffer.unmap());
            pauses.moved(info.bytes as usize).await;
        }
        self.staging = Some(staging);
        Ok(outputs)
    }

    async fn create_staging(&self) -> Result<Staging> {
        let bytes = self.io.iter().map(|&i| self.buffers[i].bytes).sum();
        let lease = self.gpu.inner.ledger.take("what inputs and outputs pass through", bytes)?;
        let mut staging = Staging { inputs: Vec::new(), outputs: Vec::new(), lease };
        for &i in &self.io {
            let info = &self.buffers[i];
            let (mode, list) = match info.home {
                Home::Input => (wgpu::MapMode::Write, &mut staging.inputs),
                Home::Output => (wgpu::MapMode::Read, &mut staging.outputs),
                // Not bound for each run.
                Home::Constant(_) | Home::Temporary { .. } | Home::State { .. } | Home::Next(_) => continue,
            };
            list.push(self.gpu.inner.create_mapped(&info.name, info.bytes, mode).await?);
        }
        Ok(staging)
    }
}
