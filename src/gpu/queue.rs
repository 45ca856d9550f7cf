//! Runs that nobody waits for: a few numbers of each stay on the device until they are read.

use super::{Executable, Gpu, ledger::Lease, scope::scoped, transfer::Wait};
use crate::{DType, Error, Result, Tensor};

/// A row of numbers, f32, for each of some runs.
#[derive(Debug)]
pub(crate) struct Records {
    buffer: wgpu::Buffer,
    columns: usize,
    lease: Lease,
}

impl Records {
    /// Bytes of device memory.
    pub(crate) fn memory(&self) -> u64 {
        self.lease.bytes()
    }
}

impl Gpu {
    /// Room for so many runs.
    pub(crate) async fn records(&self, rows: usize, columns: usize) -> Result<Records> {
        let bytes = (rows * columns * 4) as u64;
        let lease = self.inner.ledger.take("what runs leave that are not waited for", bytes)?;
        Ok(Records { buffer: self.inner.create_buffer("records", bytes).await?, columns, lease })
    }

    /// The first rows; waits for the runs that write them.
    pub(crate) async fn read_records(&self, records: &Records, rows: usize, wait: Wait) -> Result<Vec<Vec<f32>>> {
        self.inner.health.check()?;
        if rows == 0 {
            return Ok(Vec::new());
        }
        let bytes = (rows * records.columns * 4) as u64;
        let contents = self.read(&[(&records.buffer, 0, bytes)], wait).await?;
        let words = contents.iter().flat_map(|content| content.chunks_exact(4));
        let numbers: Vec<f32> = words.map(bytemuck::pod_read_unaligned).collect();
        Ok(numbers.chunks_exact(records.columns).map(<[f32]>::to_vec).collect())
    }
}

impl Executable {
    /// Submits a run as [`run`](Executable::run) does, and does not wait for it. Outputs in `columns`, by name, each a
    /// single f32, go to a row of the records; no other is read. The inputs are copied before this returns; the device
    /// takes them in the order of calls. It is not to be loaded with the guard on.
    pub(crate) async fn queue(
        &mut self,
        inputs: &[(&str, &Tensor)],
        records: &Records,
        row: usize,
        columns: &[&str],
    ) -> Result<()> {
        let queued = self.queue_once(inputs, records, row, columns).await;
        queued.map_err(|error| self.blame(error))
    }

    async fn queue_once(
        &mut self,
        inputs: &[(&str, &Tensor)],
        records: &Records,
        row: usize,
        columns: &[&str],
    ) -> Result<()> {
        self.gpu.inner.health.check()?;
        let inputs = self.check_inputs(inputs)?;
        #[cfg(feature = "native")]
        {
            self.copies_differ = true;
        }
        let set = self.bind_own().await?;
        let gpu = &*self.gpu.inner;
        let own = self.own_buffers();
        let outputs: Vec<_> = own.outputs().filter(|(info, _)| columns.contains(&info.name.as_str())).collect();
        let mut copies = Vec::with_capacity(columns.len());
        for (column, name) in columns.iter().enumerate() {
            match outputs.iter().find(|(info, _)| info.name == *name) {
                Some((info, bound)) if info.dtype == DType::F32 && info.shape.elements() == Some(1) => {
                    copies.push((bound, ((row * records.columns + column) * 4) as u64));
                }
                Some(_) | None => return Err(Error::Binding(format!("there is no output `{name}` of a single f32"))),
            }
        }
        for ((info, bound), tensor) in own.inputs().zip(&inputs) {
            gpu.write(&bound.buffer, tensor.as_bytes(), &info.name).await?;
        }
        scoped(&gpu.device, &gpu.health, "a run", || {
            let take = |encoder: &mut wgpu::CommandEncoder| {
                for (bound, at) in &copies {
                    encoder.copy_buffer_to_buffer(&bound.buffer, 0, &records.buffer, *at, 4);
                }
            };
            self.submit(&self.bound[set].groups, |_| {}, take)
        })
        .await?;
        Ok(())
    }
}
