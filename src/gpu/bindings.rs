//! Which buffers a program runs on: bind groups, and recording.

use std::ops::Range;

use super::{
    Executable,
    executable::{Bound, BoundSet, BufferInfo, Dispatch, Home},
    given::{self, Purpose},
    ledger::Lease,
    names::NameCheck,
    poison,
    scope::{recorded, scoped, scoped_now},
};
use crate::{Error, Result, kernel::Access};

/// Sets of the caller's buffers whose bind groups are kept.
const KEPT_SETS: usize = 8;

impl Executable {
    /// Records the program into the caller's encoder, as one compute pass that reads and writes the caller's buffers:
    /// every input and every output by name.
    ///
    /// A tensor lies row-major at the start of its slice, which has at least [`buffer_bytes`] bytes (whole 16-byte
    /// blocks) and an offset that the device allows (`min_storage_buffer_offset_alignment`); its buffer is of this device,
    /// has the usage `STORAGE` and is not mapped. An output's buffer may not be given for anything else.
    /// [`Executable::buffer`] has the buffers that [`run`](Executable::run) uses, which may be given as well.
    ///
    /// The encoder has no open pass and is of this device. Errors of the commands that are recorded here are returned; none
    /// reaches the caller's error scopes or handler. What wgpu finds only when the encoder is finished or submitted, it reports
    /// there: an encoder of another device, and a buffer that was destroyed after it was first given, or is mapped by then.
    ///
    /// Temporaries belong to the executable, so runs that are recorded here must be submitted in order on one queue.
    /// The bind groups of the last eight sets of buffers are kept for the next call, and keep those buffers alive.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// let gpu = Gpu::new()?;
    /// let mut program = gpu.compile(&g, [])?;
    /// let x = gpu.upload(&Tensor::new([2], vec![-1.0f32, 1.0])?)?;
    /// let y = program.buffer("y")?;
    /// let mut encoder = gpu.device().create_command_encoder(&Default::default());
    /// program.encode(&mut encoder, &[("x", x.slice(..)), ("y", y.slice(..))])?;
    /// gpu.queue().submit([encoder.finish()]);
    /// assert_eq!(gpu.download(y.slice(..), DType::F32, [2])?.as_f32(), Some(&[0.0, 1.0][..]));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Binding`] with everything that is wrong with the buffers, and nothing is recorded then; or because a pass is
    /// open in the encoder, in which wgpu then takes no more commands. [Errors of the
    /// device](crate::gpu#errors-of-the-device).
    ///
    /// [`buffer_bytes`]: crate::kernel::buffer_bytes
    pub fn encode(
        &mut self,
        encoder: &mut wgpu::CommandEncoder,
        buffers: &[(&str, wgpu::BufferSlice<'_>)],
    ) -> Result<()> {
        self.encode_dispatches(encoder, buffers, 0..self.dispatches.len())
    }

    /// The place of the bind groups of the caller's buffers, if they are what the program wants.
    pub(super) fn bind_given(&mut self, buffers: &[(&str, wgpu::BufferSlice<'_>)]) -> Result<usize> {
        let gpu = self.gpu.clone();
        let gpu = &*gpu.inner;
        gpu.health.check()?;
        self.make_resident_now()?;
        // What was given before is good still, unless it was mapped since, which only these can be.
        let mappable = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::MAP_WRITE;
        let mut mappable = buffers.iter().map(|(_, slice)| slice.buffer()).filter(|b| b.usage().intersects(mappable));
        let good = !mappable.any(|buffer| given::state(gpu, buffer).is_some());
        Ok(match self.find_given(buffers).filter(|_| good) {
            Some(set) => set,
            None => {
                let key = self.check_buffers(buffers)?;
                match self.find(&key) {
                    Some(set) => set,
                    None => {
                        let groups =
                            scoped_now(&gpu.device, &gpu.health, "the caller's buffers", || self.groups(&key))?;
                        self.keep(BoundSet { key, groups })
                    }
                }
            }
        })
    }

    /// Records some of the dispatches into the caller's encoder.
    pub(super) fn record_into(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        set: usize,
        range: Range<usize>,
    ) -> Result<()> {
        match recorded(&self.gpu.inner.device, || self.record_pass(encoder, &self.bound[set].groups, range)) {
            None => Ok(()),
            Some(error) => Err(unrecorded(&error)),
        }
    }

    /// The buffer of a state, or that of an input or output that [`run`](Executable::run) uses, which is made if need
    /// be.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let count = g.input("count", DType::I32, [1])?;
    /// let next = g.scalar(1.0, count)?;
    /// let next = g.add(count, next)?;
    /// g.update(count, next)?;
    /// # pollster::block_on(async {
    /// let gpu = Gpu::new_async().await?;
    /// let mut program = gpu.compile_async(&g, []).await?;
    /// program.run_async(&[]).await?;
    /// let buffer = program.buffer_async("count").await?;
    /// assert_eq!(gpu.download_async(buffer.slice(..), DType::I32, [1]).await?.as_i32(), Some(&[1][..]));
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Binding`] if there is no input, output or state of this name; [errors of the
    /// device](crate::gpu#errors-of-the-device).
    pub async fn buffer_async(&mut self, name: &str) -> Result<wgpu::Buffer> {
        self.gpu.inner.health.check()?;
        if let Some(buffer) = self.state_buffer(name) {
            return Ok(buffer.clone());
        }
        let Some(at) = self.io.iter().position(|&i| self.buffers[i].name == name) else {
            return Err(Error::Binding(format!("there is no input, output or state `{name}`")));
        };
        self.bind_own().await?;
        Ok(self.own_buffers().bounds[at].buffer.clone())
    }

    /// [`Executable::buffer_async`], blocking.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// let gpu = Gpu::new()?;
    /// let mut program = gpu.compile(&g, [])?;
    /// program.run(&[("x", &Tensor::new([2], vec![-1.0f32, 1.0])?)])?;
    /// let y = program.buffer("y")?; // for another program, without a way through host memory
    /// assert_eq!(gpu.download(y.slice(..), DType::F32, [2])?.as_f32(), Some(&[0.0, 1.0][..]));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Executable::buffer_async`].
    #[cfg(feature = "native")]
    pub fn buffer(&mut self, name: &str) -> Result<wgpu::Buffer> {
        pollster::block_on(self.buffer_async(name))
    }

    /// The caller's buffers in the order of `io`, if they are what the program wants.
    fn check_buffers(&self, given: &[(&str, wgpu::BufferSlice<'_>)]) -> Result<Vec<Bound>> {
        let wanted: Vec<&BufferInfo> = self.io.iter().map(|&i| &self.buffers[i]).collect();
        let alignment = u64::from(self.gpu.inner.limits.min_storage_buffer_offset_alignment);
        let names = wanted.iter().map(|info| info.name.as_str());
        let mut check = NameCheck::new("input or output", "inputs and outputs", names);
        let mut bounds = vec![None; wanted.len()];
        let mut content: Vec<(&wgpu::Buffer, &str)> = Vec::new();
        let mut outputs = Vec::new();
        for (name, slice) in given {
            if let Some(at) = check.take(name) {
                let info = wanted[at];
                check.buffer(&self.gpu.inner, name, *slice, &Purpose::storage(info.bytes, alignment));
                bounds[at] = Some(Bound { buffer: slice.buffer().clone(), offset: slice.offset(), size: info.bytes });
                content.push((slice.buffer(), info.name.as_str()));
                if matches!(info.home, Home::Output) {
                    outputs.push((info.name.as_str(), slice.buffer()));
                }
            }
        }
        for info in &self.buffers {
            match &info.home {
                Home::Constant(bound) | Home::State { bound, .. } => content.push((&bound.buffer, info.name.as_str())),
                // Bound for this run, the engine's own, or a state's.
                Home::Input | Home::Output | Home::Temporary { .. } | Home::Next(_) => {}
            }
        }
        content.sort_by(|a, b| a.0.cmp(b.0));
        for (name, buffer) in outputs {
            let first = content.partition_point(|(other, _)| *other < buffer);
            let mut same = content[first..].iter().take_while(|(other, _)| *other == buffer);
            if let Some((_, other)) = same.find(|(_, other)| *other != name) {
                check.problem(format!("output `{name}` has the same buffer as `{other}`"));
            }
        }
        check.finish()?;
        Ok(bounds.into_iter().flatten().collect())
    }

    /// The error of a run: if a buffer that lasts from one run to the next can't be used now, that is why.
    pub(super) fn blame(&self, error: Error) -> Error {
        if !matches!(error, Error::Validation { .. }) {
            return error;
        }
        let lasting = self.buffers.iter().filter_map(|info| match &info.home {
            Home::Constant(_) | Home::State { .. } | Home::Temporary { .. } => Some((info, self.bound_of(info)?)),
            // Bound for this run, or a state's.
            Home::Input | Home::Output | Home::Next(_) => None,
        });
        let own = self.own_buffers().all().map(|(info, bound)| (info, bound.clone()));
        let faults: Vec<String> = lasting
            .chain(own)
            .filter_map(|(info, bound)| {
                Some(format!("the buffer of `{}` {}", info.name, given::state(&self.gpu.inner, &bound.buffer)?))
            })
            .collect();
        if faults.is_empty() { error } else { Error::Binding(faults.join("; ")) }
    }

    /// The place of the bind groups of a set of buffers, if they were kept.
    fn find(&mut self, key: &[Bound]) -> Option<usize> {
        let at = self.bound.iter().position(|set| set.key == key)?;
        Some(self.renew(at))
    }

    /// [`Executable::find`] for buffers as they are given, which then need no check: the usual case, without an allocation.
    fn find_given(&mut self, given: &[(&str, wgpu::BufferSlice<'_>)]) -> Option<usize> {
        if given.len() != self.io.len() {
            return None;
        }
        // Callers tend to list them in one order: behind the last one that was found is a good place to look.
        let mut next = 0;
        let mut is_given = |(&i, bound): (&usize, &Bound)| {
            let name = &self.buffers[i].name;
            let Some(at) = (next..given.len()).chain(0..next).find(|&at| given[at].0 == name) else { return false };
            next = at + 1;
            let slice = &given[at].1;
            *slice.buffer() == bound.buffer && slice.offset() == bound.offset && slice.size() >= bound.size
        };
        let at = self.bound.iter().position(|set| self.io.iter().zip(&set.key).all(&mut is_given))?;
        Some(self.renew(at))
    }

    /// Makes a set the one that was used last, and returns its new place.
    fn renew(&mut self, at: usize) -> usize {
        self.bound[at..].rotate_left(1);
        self.bound.len() - 1
    }

    /// Keeps bind groups, in place of those that were not used for the longest time, and returns their place.
    fn keep(&mut self, set: BoundSet) -> usize {
        if self.bound.len() >= KEPT_SETS {
            self.bound.remove(0);
        }
        self.bound.push(set);
        self.bound.len() - 1
    }

    /// Makes the executable's own inputs and outputs, once, and returns the place of their bind groups.
    pub(super) async fn bind_own(&mut self) -> Result<usize> {
        self.make_resident().await?;
        let found = self.own.as_ref().and_then(|own| self.bound.iter().position(|set| set.key == *own));
        if let Some(at) = found {
            return Ok(self.renew(at));
        }
        let gpu = self.gpu.clone();
        let gpu = &*gpu.inner;
        let key = match &self.own {
            Some(own) => own.clone(),
            None => {
                let mut own = Vec::with_capacity(self.io.len());
                let margin = poison::margin(self.guard);
                let bytes = self.io.iter().map(|&i| self.buffers[i].bytes + margin).sum();
                let lease = gpu.ledger.take("a program's inputs and outputs", bytes)?;
                for &i in &self.io {
                    let info = &self.buffers[i];
                    let bytes = info.bytes + poison::margin(self.guard);
                    own.push(Bound::whole(gpu.create_buffer(&info.name, bytes).await?));
                }
                self.leases.own = Some(lease);
                self.own.insert(own).clone()
            }
        };
        let groups = scoped(&gpu.device, &gpu.health, "bind groups", || self.groups(&key)).await?;
        Ok(self.keep(BoundSet { key, groups }))
    }

    /// The executable's own inputs and outputs; empty before [`Executable::bind_own`].
    pub(super) fn own_buffers(&self) -> Own<'_> {
        Own { executable: self, bounds: self.own.as_deref().unwrap_or_default() }
    }

    /// Makes temporaries, and the bind groups of dispatches that touch no input or output, unless they are there.
    pub(super) async fn make_resident(&mut self) -> Result<()> {
        if self.temporaries.is_some() {
            return Ok(());
        }
        let gpu = self.gpu.clone();
        let gpu = &*gpu.inner;
        let lease = self.lease_temporaries()?;
        let mut temporaries = Vec::with_capacity(self.slots.len());
        for (name, bytes) in &self.slots {
            temporaries.push(gpu.create_buffer(name, *bytes).await?);
        }
        (self.temporaries, self.leases.temporaries) = (Some(temporaries), Some(lease));
        let groups = scoped(&gpu.device, &gpu.health, "bind groups", || self.fixed_groups()).await;
        self.keep_fixed(groups)
    }

    /// [`Executable::make_resident`] where nothing can be awaited.
    pub(super) fn make_resident_now(&mut self) -> Result<()> {
        if self.temporaries.is_some() {
            return Ok(());
        }
        let gpu = self.gpu.clone();
        let gpu = &*gpu.inner;
        let lease = self.lease_temporaries()?;
        let sizes = self.slots.iter().map(|(name, bytes)| gpu.create_buffer_now(name, *bytes));
        let temporaries = sizes.collect::<Result<Vec<_>>>()?;
        (self.temporaries, self.leases.temporaries) = (Some(temporaries), Some(lease));
        let groups = scoped_now(&gpu.device, &gpu.health, "bind groups", || self.fixed_groups());
        self.keep_fixed(groups)
    }

    fn lease_temporaries(&mut self) -> Result<Lease> {
        match self.leases.temporaries.take() {
            Some(lease) => Ok(lease),
            None => {
                let bytes = self.slots.iter().map(|(_, bytes)| bytes).sum();
                self.gpu.inner.ledger.take("a program's temporaries", bytes)
            }
        }
    }

    fn fixed_groups(&self) -> Vec<Option<wgpu::BindGroup>> {
        self.dispatches.iter().map(|dispatch| self.group(dispatch, &dispatch.params, |_| None)).collect()
    }

    /// Keeps the bind groups that were made; without them the temporaries are of no use either.
    fn keep_fixed(&mut self, groups: Result<Vec<Option<wgpu::BindGroup>>>) -> Result<()> {
        let groups = groups.inspect_err(|_| self.temporaries = None)?;
        for (dispatch, group) in self.dispatches.iter_mut().zip(groups) {
            dispatch.group = group;
        }
        Ok(())
    }

    pub(super) fn groups(&self, key: &[Bound]) -> Vec<Option<wgpu::BindGroup>> {
        let group = |dispatch: &Dispatch| match dispatch.group {
            Some(_) => None,
            None => self.group(dispatch, &dispatch.params, |buffer| self.bound_in(key, buffer)),
        };
        self.dispatches.iter().map(group).collect()
    }

    /// An input or output in a set of them.
    pub(super) fn bound_in(&self, key: &[Bound], buffer: usize) -> Option<Bound> {
        self.io.binary_search(&buffer).ok().map(|at| key[at].clone())
    }

    /// The bind group of a dispatch with these parameters, given its inputs and outputs; `None` if one of them is not there.
    pub(super) fn group(
        &self,
        dispatch: &Dispatch,
        params: &Range<u64>,
        io: impl Fn(usize) -> Option<Bound>,
    ) -> Option<wgpu::BindGroup> {
        let params = wgpu::BufferBinding {
            buffer: &self.params,
            offset: params.start,
            size: wgpu::BufferSize::new(params.end - params.start),
        };
        let bound = |&(buffer, _): &(usize, Access)| self.bound_of(&self.buffers[buffer]).or_else(|| io(buffer));
        let bounds = dispatch.bindings.iter().map(bound).collect::<Option<Vec<Bound>>>()?;
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(params) }];
        entries.extend(
            (1..).zip(&bounds).map(|(binding, bound)| wgpu::BindGroupEntry { binding, resource: bound.resource() }),
        );
        Some(self.gpu.inner.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&dispatch.label),
            layout: &dispatch.pipeline.layout,
            entries: &entries,
        }))
    }

    /// Where a buffer is that no run binds anew.
    pub(super) fn bound_of(&self, info: &BufferInfo) -> Option<Bound> {
        match &info.home {
            Home::Constant(bound) | Home::State { bound, .. } | Home::Next(bound) => Some(bound.clone()),
            Home::Temporary { slot, size } => {
                let buffer = self.temporaries.as_ref()?.get(*slot)?.clone();
                Some(Bound { buffer, offset: 0, size: *size })
            }
            Home::Input | Home::Output => None,
        }
    }

    /// Records some of the dispatches as one pass.
    pub(super) fn record_pass(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        groups: &[Option<wgpu::BindGroup>],
        range: Range<usize>,
    ) {
        let mut pass = encoder
            .begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("tilewise"), timestamp_writes: None });
        self.record(&mut pass, groups, range);
    }

    /// Records some of the dispatches. `groups` has the bind groups of all those that touch inputs or outputs.
    pub(super) fn record(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        groups: &[Option<wgpu::BindGroup>],
        range: Range<usize>,
    ) {
        for (dispatch, group) in self.dispatches[range.clone()].iter().zip(&groups[range]) {
            if dispatch.grid.contains(&0) {
                continue;
            }
            pass.set_pipeline(&dispatch.pipeline.pipeline);
            pass.set_bind_group(0, dispatch.group.as_ref().or(group.as_ref()), &[]);
            let [x, y, z] = dispatch.grid;
            pass.dispatch_workgroups(x, y, z);
        }
    }
}

/// Why a pass was not recorded into the caller's encoder.
fn unrecorded(error: &wgpu::Error) -> Error {
    let message = error.to_string();
    if message.contains("locked") {
        let open = "a pass is open in the encoder: end it (drop the pass) before a program is recorded, and begin with a new \
                    encoder, as wgpu takes no more commands in this one";
        return Error::Binding(open.into());
    }
    Error::Validation { during: "recording into the caller's encoder".into(), message: message.trim().into() }
}

/// The buffers of an executable's own inputs and outputs.
pub(super) struct Own<'a> {
    executable: &'a Executable,
    pub(super) bounds: &'a [Bound],
}

impl<'a> Own<'a> {
    pub(super) fn all(&self) -> impl Iterator<Item = (&'a BufferInfo, &'a Bound)> + use<'a> {
        let executable = self.executable;
        executable.io.iter().map(|&i| &executable.buffers[i]).zip(self.bounds)
    }

    pub(super) fn bound(&self, buffer: usize) -> Option<&'a Bound> {
        self.bounds.get(self.executable.io.binary_search(&buffer).ok()?)
    }

    pub(super) fn inputs(&self) -> impl Iterator<Item = (&'a BufferInfo, &'a Bound)> + use<'a> {
        self.all().filter(|(info, _)| matches!(info.home, Home::Input))
    }

    pub(super) fn outputs(&self) -> impl Iterator<Item = (&'a BufferInfo, &'a Bound)> + use<'a> {
        self.all().filter(|(info, _)| matches!(info.home, Home::Output))
    }
}
