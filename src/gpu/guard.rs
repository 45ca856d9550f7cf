//! Runs that watch whether kernels keep their promises.

use super::{
    Executable, Gpu, LoadOptions, Outputs, Parameters,
    executable::{Bound, BufferInfo, Home},
    poison::{GARBAGE, POISON, surrounded},
    scope::scoped,
    transfer::Wait,
};
use crate::{
    DType, Error, Result, Shape, Tensor,
    kernel::{Access, Kernel, Operand},
    lower::Program,
};

impl Gpu {
    /// Runs one kernel on host tensors, watched as by [`LoadOptions::guard`], and returns its outputs in order.
    /// Everything is made anew for each call: this is what tests of kernels use.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// use tilewise::{DType, Shape, Tensor, gpu::Gpu, kernel::{Binding, Kernel, Launch, Operand, Source}};
    /// let wgsl = "
    ///     struct Parameters { n: u32 }
    ///     @group(0) @binding(0) var<uniform> p: Parameters;
    ///     @group(0) @binding(1) var<storage, read> x: array<f32>;
    ///     @group(0) @binding(2) var<storage, read_write> y: array<f32>;
    ///     @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    ///         if (id.x < p.n) { y[id.x] = 2.0 * x[id.x]; }
    ///     }";
    /// let launch = Launch {
    ///     label: "double".into(),
    ///     source: Arc::new(Source::new("double", wgsl)),
    ///     bindings: vec![Binding::read(Operand::Input(0)), Binding::write(Operand::Output(0))],
    ///     params: vec![3],
    ///     grid: [1, 1, 1],
    ///     flops: 3,
    ///     exponentials: 0,
    ///     bytes: 24,
    /// };
    /// let kernel = Kernel { launches: vec![launch], workspace: Vec::new() };
    /// let x = Tensor::new([3], vec![1.0f32, 2.0, 3.0])?;
    /// let outputs = Gpu::new()?.run_kernel(&kernel, &[&x], &[(DType::F32, Shape::from([3]))])?;
    /// assert_eq!(outputs[0].as_f32(), Some(&[2.0, 4.0, 6.0][..]));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Guard`] if the kernel leaves an element of an output unwritten, writes behind the end of a buffer, or
    /// gives different bits in two runs; [`Error::Shader`] if the driver does not compile it; [`Error::Limit`] if it
    /// needs more than the device has; [errors of the device](crate::gpu#errors-of-the-device).
    #[cfg(feature = "native")]
    pub fn run_kernel(&self, kernel: &Kernel, inputs: &[&Tensor], outputs: &[(DType, Shape)]) -> Result<Vec<Tensor>> {
        pollster::block_on(self.run_kernel_with(kernel, inputs, outputs, Wait::Block))
    }

    /// [`Gpu::run_kernel`] without blocking.
    ///
    /// ```
    /// # pollster::block_on(async {
    /// use tilewise::{DType, Layout, Shape, Tensor, gpu::Gpu, kernel::{Epilogue, MatmulProblem, Problem}};
    /// let gpu = Gpu::new_async().await?;
    /// let square = Layout::contiguous([2, 2]);
    /// let kernel = MatmulProblem::new(&square, &square, Epilogue::default())?.kernel("plain", gpu.profile())?;
    /// let x = Tensor::new([2, 2], vec![1.0f32, 1.0, 0.0, 1.0])?;
    /// let outputs = gpu.run_kernel_async(&kernel, &[&x, &x], &[(DType::F32, Shape::from([2, 2]))]).await?;
    /// assert_eq!(outputs[0].as_f32(), Some(&[1.0, 2.0, 0.0, 1.0][..]));
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Gpu::run_kernel`].
    pub async fn run_kernel_async(
        &self,
        kernel: &Kernel,
        inputs: &[&Tensor],
        outputs: &[(DType, Shape)],
    ) -> Result<Vec<Tensor>> {
        self.run_kernel_with(kernel, inputs, outputs, Wait::Wake).await
    }

    async fn run_kernel_with(
        &self,
        kernel: &Kernel,
        inputs: &[&Tensor],
        outputs: &[(DType, Shape)],
        wait: Wait,
    ) -> Result<Vec<Tensor>> {
        let shapes: Vec<(DType, Shape)> =
            inputs.iter().map(|tensor| (tensor.dtype(), tensor.shape().clone())).collect();
        let program = Program::of_kernel(kernel, &shapes, outputs)?;
        let mut executable = self.load_with_async(&program, Parameters::new(), LoadOptions { guard: true }).await?;
        let names: Vec<String> = (0..inputs.len()).map(|i| Operand::Input(i).to_string()).collect();
        let named: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(inputs.iter().copied()).collect();
        let inputs = executable.check_inputs(&named)?;
        let mut found = executable.run_guarded(&inputs, wait).await?;
        Ok((0..outputs.len()).filter_map(|i| found.remove(&Operand::Output(i).to_string())).collect())
    }
}

impl Executable {
    /// Runs twice in poisoned memory, from the same states, and compares.
    pub(super) async fn run_guarded(&mut self, inputs: &[&Tensor], wait: Wait) -> Result<Outputs> {
        let set = self.bind_own().await?;
        let states = self.read_states(wait).await?;
        let first = self.run_in(POISON, inputs, &states, set, wait).await?;
        for tensor in &first {
            self.check_written(tensor)?;
        }
        let second = self.run_in(GARBAGE, inputs, &states, set, wait).await?;
        for (a, b) in first.iter().zip(&second) {
            self.check_same(a, b)?;
        }
        first
            .into_iter()
            .filter(|content| matches!(self.buffers[content.info].home, Home::Output))
            .map(|Content { info, bytes }| {
                let info = &self.buffers[info];
                Ok((info.name.clone(), Tensor::from_bytes(info.dtype, &info.shape, &bytes)?))
            })
            .collect()
    }

    /// One run with `fill` in all memory that the program has yet to write, and behind the end of each buffer; returns
    /// the outputs and the states.
    async fn run_in(
        &self,
        fill: u32,
        inputs: &[&Tensor],
        states: &[(usize, Vec<u8>)],
        set: usize,
        wait: Wait,
    ) -> Result<Vec<Content>> {
        let gpu = &*self.gpu.inner;
        let own = self.own_buffers();
        for (tensor, (info, bound)) in inputs.iter().zip(own.inputs()) {
            let bytes = surrounded(tensor.as_bytes(), bound.size, fill);
            gpu.write(&bound.buffer, &bytes, &info.name).await?;
        }
        let written: Vec<(usize, Bound)> = self
            .buffers
            .iter()
            .enumerate()
            .filter_map(|(i, info)| match &info.home {
                Home::Output => Some((i, own.bound(i)?.clone())),
                Home::Temporary { .. } | Home::State { .. } => Some((i, self.bound_of(info)?)),
                Home::Input | Home::Constant(_) | Home::Next(_) => None,
            })
            .collect();
        for (i, bound) in &written {
            let kept = states.iter().find(|(state, _)| state == i).map_or(&[][..], |(_, bytes)| bytes);
            gpu.write(&bound.buffer, &surrounded(kept, bound.size, fill), &self.buffers[*i].name).await?;
        }
        let submissions =
            scoped(&gpu.device, &gpu.health, "a run", || self.submit(&self.bound[set].groups, |_| {}, |_| {})).await?;
        self.gpu.wait(submissions, "a watched run", wait).await?;
        let ranges: Vec<(&wgpu::Buffer, u64, u64)> =
            written.iter().map(|(_, bound)| (&bound.buffer, 0, bound.size)).collect();
        let contents = self.gpu.read(&ranges, wait).await?;
        let mut outputs = Vec::new();
        for ((i, _), mut bytes) in written.into_iter().zip(contents) {
            let info = &self.buffers[i];
            for (word, found) in bytes[info.bytes as usize..].chunks_exact(4).enumerate() {
                if found != fill.to_le_bytes() {
                    let value = u32::from_le_bytes([found[0], found[1], found[2], found[3]]);
                    return Err(self.broken(
                        i,
                        &format!(
                            "32-bit word {word} behind its end ({} bytes) was overwritten with {value:#010x}",
                            info.bytes
                        ),
                    ));
                }
            }
            if matches!(info.home, Home::Output | Home::State { .. }) {
                bytes.truncate(elements(info) * info.dtype.bytes());
                outputs.push(Content { info: i, bytes });
            }
        }
        Ok(outputs)
    }

    fn check_written(&self, content: &Content) -> Result<()> {
        let info = &self.buffers[content.info];
        let size = info.dtype.bytes();
        for (i, element) in content.bytes.chunks_exact(size).enumerate() {
            let unwritten = match info.dtype {
                DType::Bool => element[0] > 1,
                // POISON repeats every two bytes.
                DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::U32 => {
                    element.chunks_exact(2).all(|half| half == &POISON.to_le_bytes()[..2])
                }
            };
            if unwritten {
                let what = if info.dtype == DType::Bool {
                    format!("is the byte {:#04x}, neither 0 nor 1", element[0])
                } else {
                    "was never written, or comes from memory that was never written".to_string()
                };
                return Err(self.broken(content.info, &format!("element {} {what}", at(info, i))));
            }
        }
        Ok(())
    }

    fn check_same(&self, first: &Content, second: &Content) -> Result<()> {
        let info = &self.buffers[first.info];
        let size = info.dtype.bytes();
        let pairs = first.bytes.chunks_exact(size).zip(second.bytes.chunks_exact(size));
        for (i, (a, b)) in pairs.enumerate() {
            if a != b {
                let hex = |bytes: &[u8]| bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect::<String>();
                return Err(self.broken(
                    first.info,
                    &format!(
                        "element {} is 0x{} in one run and 0x{} in the next: a kernel reads memory that nothing wrote, \
                         or its threads race",
                        at(info, i),
                        hex(a),
                        hex(b)
                    ),
                ));
            }
        }
        Ok(())
    }

    fn broken(&self, buffer: usize, message: &str) -> Error {
        let writers: Vec<String> = self
            .steps
            .iter()
            .enumerate()
            .filter(|(_, step)| {
                self.dispatches[step.dispatches.clone()]
                    .iter()
                    .any(|dispatch| dispatch.bindings.contains(&(buffer, Access::Write)))
            })
            .map(|(i, step)| format!("step {i}, {}", step.label))
            .collect();
        let writers = if writers.is_empty() { "no step".into() } else { writers.join("; ") };
        Error::Guard(format!("`{}` (written by {writers}): {message}", self.buffers[buffer].name))
    }
}

/// What a run left in an output: the place of the buffer, and its elements.
struct Content {
    info: usize,
    bytes: Vec<u8>,
}

fn elements(info: &BufferInfo) -> usize {
    info.shape.elements().unwrap_or(0)
}

/// An index into a dense tensor, flat and by axis.
fn at(info: &BufferInfo, flat: usize) -> String {
    let index: Vec<String> = info
        .shape
        .strides()
        .iter()
        .zip(info.shape.iter())
        .map(|(&stride, &size)| (flat / stride.unsigned_abs().max(1) % size.max(1)).to_string())
        .collect();
    format!("{flat} ([{}])", index.join(", "))
}
