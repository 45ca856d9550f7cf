//! Buffers, and tensors to and from them.

use std::sync::atomic::Ordering;

use super::{
    Gpu,
    device::Inner,
    given::Purpose,
    pause::{PIECE, Pauses},
    pending::Pending,
    scope::{scoped, scoped_now},
};
use crate::{DType, Error, Result, Shape, Tensor, kernel::buffer_bytes};

/// How to wait for the device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// This thread waits.
    #[cfg(feature = "native")]
    Block,
    /// The future is woken. With the feature `native`, a thread waits for the device meanwhile; in a browser the event
    /// loop does; otherwise the owner of the device polls it.
    Wake,
}

/// Usage of the buffers that tilewise makes: storage that can be filled and read back.
const USAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

/// Bytes that are written to the queue before they are sent off: wgpu stages them in host memory until then.
const FLUSH_BYTES: usize = 64 << 20;

impl Gpu {
    /// A buffer with this tensor: row-major, padded to 16 bytes, usable as storage and in copies. It is for
    /// [`Executable::encode`](super::Executable::encode) and for parameters that several programs share.
    ///
    /// ```
    /// # pollster::block_on(async {
    /// # use tilewise::{Tensor, gpu::Gpu};
    /// let gpu = Gpu::new_async().await?;
    /// let buffer = gpu.upload_async(&Tensor::new([3], vec![1.0f32, 2.0, 3.0])?).await?;
    /// assert_eq!(buffer.size(), 16);
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Limit`] if the device has no buffer of this size; [errors of the
    /// device](crate::gpu#errors-of-the-device).
    pub async fn upload_async(&self, tensor: &Tensor) -> Result<wgpu::Buffer> {
        self.inner.health.check()?;
        let bytes = buffer_bytes(tensor.dtype(), tensor.len());
        let buffer = self.inner.create_buffer("tensor", bytes).await?;
        self.inner.write(&buffer, tensor.as_bytes(), "a tensor").await?;
        Ok(buffer)
    }

    /// [`Gpu::upload_async`]; it does not wait for the device.
    ///
    /// ```
    /// # use tilewise::{DType, Tensor, gpu::Gpu};
    /// let (gpu, x) = (Gpu::new()?, Tensor::new([3], vec![1.0f32, 2.0, 3.0])?);
    /// let buffer = gpu.upload(&x)?;
    /// assert_eq!(gpu.download(buffer.slice(..), DType::F32, [3])?, x);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Gpu::upload_async`].
    #[cfg(feature = "native")]
    pub fn upload(&self, tensor: &Tensor) -> Result<wgpu::Buffer> {
        pollster::block_on(self.upload_async(tensor))
    }

    /// The tensor at the start of `slice`, whose offset is a multiple of 4 and whose buffer has the usage `COPY_SRC`.
    ///
    /// ```
    /// # pollster::block_on(async {
    /// # use tilewise::{DType, Tensor, gpu::Gpu};
    /// let (gpu, x) = (Gpu::new_async().await?, Tensor::new([3], vec![1.0f32, 2.0, 3.0])?);
    /// let buffer = gpu.upload_async(&x).await?;
    /// assert_eq!(gpu.download_async(buffer.slice(4..), DType::F32, [2]).await?.as_f32(), Some(&[2.0, 3.0][..]));
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Binding`] if the slice is too small for the tensor, if its offset or usage is another, or if the buffer is
    /// mapped, destroyed or of another device; [`Error::Limit`] if the tensor has more than 2³¹ − 1 elements; [errors of the
    /// device](crate::gpu#errors-of-the-device).
    pub async fn download_async(
        &self,
        slice: wgpu::BufferSlice<'_>,
        dtype: DType,
        shape: impl Into<Shape>,
    ) -> Result<Tensor> {
        self.download_with(slice, dtype, shape.into(), Wait::Wake).await
    }

    /// [`Gpu::download_async`], waiting for the tensor.
    ///
    /// ```
    /// # use tilewise::{DType, Tensor, gpu::Gpu};
    /// let gpu = Gpu::new()?;
    /// let buffer = gpu.upload(&Tensor::new([3], vec![1.0f32, 2.0, 3.0])?)?;
    /// let error = gpu.download(buffer.slice(..), DType::F32, [5]).unwrap_err();
    /// let expected = "f32 [5] can't be read: the buffer has 16 bytes from offset 0, expected at least 20";
    /// assert_eq!(error.to_string(), expected);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Gpu::download_async`].
    #[cfg(feature = "native")]
    pub fn download(&self, slice: wgpu::BufferSlice<'_>, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        pollster::block_on(self.download_with(slice, dtype, shape.into(), Wait::Block))
    }

    async fn download_with(
        &self,
        slice: wgpu::BufferSlice<'_>,
        dtype: DType,
        shape: Shape,
        wait: Wait,
    ) -> Result<Tensor> {
        self.inner.health.check()?;
        // Copies come in whole words.
        let bytes = (shape.checked_elements("download")? * dtype.bytes()).next_multiple_of(4) as u64;
        let faults = Purpose::source(bytes).faults(&self.inner, slice);
        if !faults.is_empty() {
            let faults = faults.join(", and ");
            return Err(Error::Binding(format!("{dtype} {shape} can't be read: the buffer {faults}")));
        }
        let content = self.read(&[(slice.buffer(), slice.offset(), bytes)], wait).await?;
        Tensor::from_bytes(dtype, shape, &content[0])
    }

    /// The bytes of ranges of buffers. Offsets and sizes are multiples of 4.
    pub(super) async fn read(&self, ranges: &[(&wgpu::Buffer, u64, u64)], wait: Wait) -> Result<Vec<Vec<u8>>> {
        let gpu = &*self.inner;
        let mut staging = Vec::with_capacity(ranges.len());
        for &(_, _, size) in ranges {
            staging.push(gpu.create_mapped("readback", size, wgpu::MapMode::Read).await?);
        }
        let submission = scoped(&gpu.device, &gpu.health, "a copy", || {
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            for (staging, &(buffer, offset, size)) in staging.iter().zip(ranges) {
                if size > 0 {
                    encoder.copy_buffer_to_buffer(buffer, offset, staging, 0, size);
                }
            }
            gpu.queue.submit([encoder.finish()])
        })
        .await?;
        self.map(&staging, &[], vec![submission], "a copy to the host", wait).await?;
        let mut contents = Vec::with_capacity(ranges.len());
        let mut pauses = Pauses::default();
        for (buffer, &(_, _, size)) in staging.iter().zip(ranges) {
            let mut content = Vec::with_capacity(size as usize);
            while content.len() < size as usize {
                let piece = content.len()..(content.len() + PIECE).min(size as usize);
                content.extend_from_slice(&gpu.mapped(buffer)?[piece.clone()]);
                pauses.moved(piece.len()).await;
            }
            contents.push(content);
        }
        Ok(contents)
    }

    /// Maps buffers for reading and for writing, which waits for the submissions to be done with them. Each of them may take
    /// as long as the device is given.
    pub(super) async fn map(
        &self,
        read: &[wgpu::Buffer],
        write: &[wgpu::Buffer],
        submissions: Vec<wgpu::SubmissionIndex>,
        during: &'static str,
        wait: Wait,
    ) -> Result<()> {
        let gpu = &*self.inner;
        let start = |buffer: &wgpu::Buffer, mode: wgpu::MapMode| {
            let (pending, callback) = Pending::new();
            buffer.map_async(mode, .., move |result| callback.answer(result.is_ok()));
            pending
        };
        let maps: Vec<Pending<bool>> = scoped(&gpu.device, &gpu.health, "mapping", || {
            let read = read.iter().map(|buffer| start(buffer, wgpu::MapMode::Read));
            read.chain(write.iter().map(|buffer| start(buffer, wgpu::MapMode::Write))).collect()
        })
        .await?;
        self.wait(submissions, during, wait).await?;
        for map in maps {
            if map.await != Some(true) {
                return Err(gpu.health.unmapped());
            }
        }
        Ok(())
    }

    /// Waits for submissions, in this thread or in another one. That has let go of the device when this is ready: it would
    /// otherwise unload the driver while the program ends, and crash it.
    pub(super) async fn wait(
        &self,
        submissions: Vec<wgpu::SubmissionIndex>,
        during: &'static str,
        wait: Wait,
    ) -> Result<()> {
        match wait {
            #[cfg(feature = "native")]
            Wait::Block => self.inner.poll_all(&submissions, during),
            #[cfg(feature = "native")]
            Wait::Wake => {
                let (pending, callback) = Pending::new();
                let (gpu, indices) = (self.clone(), submissions.clone());
                let thread = std::thread::Builder::new().name("tilewise poll".into());
                let poll = move || {
                    let result = gpu.inner.poll_all(&indices, during);
                    drop(gpu);
                    callback.answer(result);
                };
                match thread.spawn(poll) {
                    // A thread that panicked says nothing; what was waited for then shows whether it is there.
                    Ok(_) => pending.await.unwrap_or(Ok(())),
                    Err(_) => self.inner.poll_all(&submissions, during),
                }
            }
            #[cfg(not(feature = "native"))]
            Wait::Wake => {
                drop((submissions, during));
                Ok(())
            }
        }
    }
}

impl Inner {
    /// Waits for submissions, one after the other.
    #[cfg(feature = "native")]
    pub(super) fn poll_all(&self, submissions: &[wgpu::SubmissionIndex], during: &str) -> Result<()> {
        submissions.iter().try_for_each(|submission| self.poll(submission, during))
    }

    /// Waits for a submission, as long as it may take. A loss of the device shows in `health`.
    #[cfg(feature = "native")]
    fn poll(&self, submission: &wgpu::SubmissionIndex, during: &str) -> Result<()> {
        let allowed = self.bounds.wait_of(&self.profile);
        let begun = std::time::Instant::now();
        let poll = |kind: wgpu::PollType| {
            // wgpu 30 panics here when the driver loses the device during the wait.
            let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.device.poll(kind)));
            polled.unwrap_or_else(|_| {
                self.health.set_lost("the driver gave it up while it was waited for");
                Ok(wgpu::PollStatus::QueueEmpty)
            })
        };
        loop {
            let timeout = allowed.checked_sub(begun.elapsed());
            let asked = wgpu::PollType::Wait {
                submission_index: Some(submission.clone()),
                timeout: Some(timeout.unwrap_or_default()),
            };
            match poll(asked) {
                Ok(_) => return Ok(()),
                // Some drivers give up earlier than they were told to.
                Err(wgpu::PollError::Timeout) if timeout.is_some() => {}
                Err(wgpu::PollError::Timeout) => {
                    return Err(Error::Timeout { during: during.into(), waited: allowed });
                }
                // The submission failed; callbacks still have to run.
                Err(wgpu::PollError::WrongSubmissionIndex(..)) => {
                    let _ = poll(wgpu::PollType::Poll);
                    return Ok(());
                }
            }
        }
    }

    /// Has wgpu give back what was dropped, as far as the device is done with it.
    pub(super) fn collect(&self) {
        // wgpu panics if the driver loses the device meanwhile; the next call then says so.
        let poll = std::panic::AssertUnwindSafe(|| self.device.poll(wgpu::PollType::Poll));
        let _ = std::panic::catch_unwind(poll);
    }

    /// An error if a buffer of this size can't be made or bound.
    pub(super) fn check_size(&self, name: &str, bytes: u64) -> Result<()> {
        for (limit, what) in [
            (self.limits.max_storage_buffer_binding_size, "max_storage_buffer_binding_size"),
            (self.limits.max_buffer_size, "max_buffer_size"),
        ] {
            if bytes > limit {
                return Err(Error::Limit {
                    what: format!("bytes of `{name}` ({what} of {})", self.info.name),
                    value: bytes,
                    limit,
                    hint: "split the tensor, or use a smaller batch or a narrower dtype".into(),
                });
            }
        }
        Ok(())
    }

    /// A storage buffer; its content is zero.
    pub(super) async fn create_buffer(&self, name: &str, bytes: u64) -> Result<wgpu::Buffer> {
        self.check_size(name, bytes)?;
        self.create(&storage(name, bytes)).await
    }

    /// [`Inner::create_buffer`] where nothing can be awaited.
    pub(super) fn create_buffer_now(&self, name: &str, bytes: u64) -> Result<wgpu::Buffer> {
        self.check_size(name, bytes)?;
        let descriptor = storage(name, bytes);
        scoped_now(&self.device, &self.health, &creating(&descriptor), || self.device.create_buffer(&descriptor))
    }

    /// A buffer that can be mapped: for reading, or for writing and then mapped already.
    pub(super) async fn create_mapped(&self, name: &str, bytes: u64, mode: wgpu::MapMode) -> Result<wgpu::Buffer> {
        let (usage, mapped_at_creation) = match mode {
            wgpu::MapMode::Read => (wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST, false),
            wgpu::MapMode::Write => (wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC, true),
        };
        let size = bytes.next_multiple_of(8).max(16);
        self.create(&wgpu::BufferDescriptor { label: Some(name), size, usage, mapped_at_creation }).await
    }

    pub(super) async fn create(&self, descriptor: &wgpu::BufferDescriptor<'_>) -> Result<wgpu::Buffer> {
        scoped(&self.device, &self.health, &creating(descriptor), || self.device.create_buffer(descriptor)).await
    }

    /// Writes bytes to the start of a buffer, in pieces. The last word is padded with zeros.
    pub(super) async fn write(&self, buffer: &wgpu::Buffer, bytes: &[u8], name: &str) -> Result<()> {
        let whole = bytes.len() / 4 * 4;
        let mut tail = [0u8; 4];
        tail[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
        let during = format!("writing `{name}`");
        let mut pauses = Pauses::default();
        for (i, piece) in bytes[..whole].chunks(PIECE).enumerate() {
            scoped(&self.device, &self.health, &during, || {
                self.queue.write_buffer(buffer, (i * PIECE) as u64, piece);
                if self.queued.fetch_add(piece.len(), Ordering::Relaxed) + piece.len() >= FLUSH_BYTES {
                    self.queued.store(0, Ordering::Relaxed);
                    self.queue.submit([]);
                }
            })
            .await?;
            pauses.moved(piece.len()).await;
        }
        if whole < bytes.len() {
            let write = || self.queue.write_buffer(buffer, whole as u64, &tail);
            scoped(&self.device, &self.health, &during, write).await?;
        }
        Ok(())
    }

    /// The content of a buffer that is mapped for reading.
    pub(super) fn mapped(&self, buffer: &wgpu::Buffer) -> Result<wgpu::BufferView> {
        buffer.get_mapped_range(..).map_err(|_| self.health.unmapped())
    }

    /// The content of a buffer that is mapped for writing.
    pub(super) fn mapped_mut(&self, buffer: &wgpu::Buffer) -> Result<wgpu::BufferViewMut> {
        buffer.get_mapped_range_mut(..).map_err(|_| self.health.unmapped())
    }
}

fn storage(name: &str, bytes: u64) -> wgpu::BufferDescriptor<'_> {
    wgpu::BufferDescriptor { label: Some(name), size: bytes, usage: USAGE, mapped_at_creation: false }
}

/// What is being done, for messages.
fn creating(descriptor: &wgpu::BufferDescriptor<'_>) -> String {
    format!("a buffer of {} bytes for `{}`", descriptor.size, descriptor.label.unwrap_or_default())
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_thread_that_waited_has_let_go_of_the_device() {
        let gpu = Gpu::new().expect("this test needs a GPU adapter");
        let buffer = gpu.upload(&Tensor::scalar(2.0)).expect("fits");
        for _ in 0..50 {
            let read = pollster::block_on(gpu.download_async(buffer.slice(..), DType::F32, Shape::SCALAR));
            assert_eq!(read.expect("reads"), Tensor::scalar(2.0));
            assert_eq!(Arc::strong_count(&gpu.inner), 1);
        }
    }
}
