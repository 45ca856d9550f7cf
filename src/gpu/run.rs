//! Runs on host tensors.

use super::{
    Executable, Outputs,
    executable::{Home, Staging},
    scope::scoped,
    transfer::Wait,
};
use crate::{Result, Tensor};

impl Executable {
    /// Runs the program on host tensors and returns its outputs.
    ///
    /// # Errors
    /// [`Error::Binding`](crate::Error::Binding) says everything that is wrong with the inputs: names missing, unknown
    /// or given twice, wrong shapes and dtypes. Errors of the device are returned as such.
    pub async fn run_async(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs> {
        self.run_with(inputs, Wait::Wake).await
    }

    /// [`Executable::run_async`], waiting for the outputs.
    #[cfg(feature = "native")]
    pub fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Outputs> {
        pollster::block_on(self.run_with(inputs, Wait::Block))
    }

    /// [`Executable::run_async`], waiting in the given way.
    pub(crate) async fn run_with(&mut self, inputs: &[(&str, &Tensor)], wait: Wait) -> Result<Outputs> {
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
        for (buffer, tensor) in staging.inputs.iter().zip(&inputs) {
            let mut view = gpu.mapped_mut(buffer)?;
            let bytes = tensor.as_bytes();
            view.slice(..bytes.len()).copy_from_slice(bytes);
        }
        let own = self.own_buffers();
        let submission = scoped(&gpu.device, &gpu.health, "a run", || {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            for (staging, (info, bound)) in staging.inputs.iter().zip(own.inputs()) {
                staging.unmap();
                encoder.copy_buffer_to_buffer(staging, 0, &bound.buffer, 0, info.bytes);
            }
            self.record_pass(&mut encoder, &self.bound[set].groups);
            for (staging, (info, bound)) in staging.outputs.iter().zip(own.outputs()) {
                encoder.copy_buffer_to_buffer(&bound.buffer, 0, staging, 0, info.bytes);
            }
            gpu.queue.submit([encoder.finish()])
        })
        .await?;
        self.gpu.map(&staging.outputs, &staging.inputs, submission, wait).await?;
        let mut outputs = Outputs::new();
        for (buffer, (info, _)) in staging.outputs.iter().zip(own.outputs()) {
            let view = gpu.mapped(buffer)?;
            outputs.insert(info.name.clone(), Tensor::from_bytes(info.dtype, &info.shape, &view)?);
            drop(view);
            buffer.unmap();
        }
        self.staging = Some(staging);
        Ok(outputs)
    }

    async fn create_staging(&self) -> Result<Staging> {
        let mut staging = Staging { inputs: Vec::new(), outputs: Vec::new() };
        for &i in &self.io {
            let info = &self.buffers[i];
            let (mode, list) = match info.home {
                Home::Input => (wgpu::MapMode::Write, &mut staging.inputs),
                Home::Output => (wgpu::MapMode::Read, &mut staging.outputs),
                // Not bound for each run.
                Home::Constant(_) | Home::Temporary(_) | Home::State(_) | Home::Next(_) => continue,
            };
            list.push(self.gpu.inner.create_mapped(&info.name, info.bytes, mode).await?);
        }
        Ok(staging)
    }
}
