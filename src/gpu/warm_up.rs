//! Drivers that compile at the first run are made to do so beforehand.

use super::{
    Executable,
    executable::{Dispatch, Home},
    scope::scoped,
    transfer::Wait,
};
use crate::{Result, kernel::Access};

impl Executable {
    /// Has the driver do what it puts off until a kernel runs for the first time, such as compiling it to machine code, so that
    /// the first run is as fast as any. `progress` is told after each step: how many are done, of how many.
    ///
    /// Each kernel is dispatched where it has nothing to do: no input, output or state changes.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// # pollster::block_on(async {
    /// let mut program = Gpu::new_async().await?.compile_async(&g, []).await?;
    /// let mut told = Vec::new();
    /// program.warm_up_async(|done, all| told.push((done, all))).await?;
    /// assert_eq!(told, [(1, 1)]);
    /// # Ok::<(), tilewise::Error>(()) })?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// [Errors of the device](crate::gpu#errors-of-the-device).
    pub async fn warm_up_async(&mut self, progress: impl FnMut(usize, usize)) -> Result<()> {
        self.warm_up_with(progress, Wait::Wake).await
    }

    /// [`Executable::warm_up_async`], blocking.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// let mut program = Gpu::new()?.compile(&g, [])?;
    /// program.warm_up(|done, all| println!("{done} of {all}"))?;
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Executable::warm_up_async`].
    #[cfg(feature = "native")]
    pub fn warm_up(&mut self, progress: impl FnMut(usize, usize)) -> Result<()> {
        pollster::block_on(self.warm_up_with(progress, Wait::Block))
    }

    async fn warm_up_with(&mut self, mut progress: impl FnMut(usize, usize), wait: Wait) -> Result<()> {
        self.gpu.inner.health.check()?;
        let had_own = self.own.is_some();
        self.bind_own().await?;
        for (i, step) in self.steps.iter().enumerate() {
            let gpu = &*self.gpu.inner;
            let key = self.own_buffers().bounds;
            let submission = scoped(&gpu.device, &gpu.health, "warming up", || {
                let mut encoder = gpu.device.create_command_encoder(&Default::default());
                let mut pass = encoder.begin_compute_pass(&Default::default());
                for dispatch in self.dispatches[step.dispatches.clone()].iter().filter(|d| !d.goes_on) {
                    let Some((params, [x, y, z])) = self.harmless(dispatch) else { continue };
                    let group = self.group(dispatch, params, |buffer| self.bound_in(key, buffer));
                    pass.set_pipeline(&dispatch.pipeline.pipeline);
                    pass.set_bind_group(0, group.as_ref(), &[]);
                    pass.dispatch_workgroups(x, y, z);
                }
                drop(pass);
                gpu.queue.submit([encoder.finish()])
            })
            .await?;
            self.gpu.wait(vec![submission], "warming up", wait).await?;
            gpu.health.check()?;
            progress(i + 1, self.steps.len());
        }
        if !had_own {
            self.forget_own();
        }
        Ok(())
    }

    /// Parameters and a grid with which a dispatch changes nothing that lasts: behind its last workgroup; or, if it can't be told
    /// to begin there, as in a run, if all that it writes is written anew in each run. `None` if it writes a state.
    fn harmless<'a>(&'a self, dispatch: &'a Dispatch) -> Option<(&'a std::ops::Range<u64>, [u32; 3])> {
        if let Some(behind) = &dispatch.behind {
            return Some((behind, [1, 1, 1]));
        }
        let lasts = |buffer: usize| match self.buffers[buffer].home {
            Home::State { .. } | Home::Next(_) | Home::Constant(_) => true,
            Home::Input | Home::Output | Home::Temporary { .. } => false,
        };
        let writes = dispatch.bindings.iter().filter(|(_, access)| *access == Access::Write);
        (!dispatch.grid.contains(&0) && !writes.map(|(buffer, _)| *buffer).any(lasts))
            .then_some((&dispatch.params, dispatch.grid))
    }

    /// Gives back inputs and outputs of its own that were made for nothing else.
    fn forget_own(&mut self) {
        if let Some(own) = self.own.take() {
            self.bound.retain(|set| set.key != own);
        }
        self.leases.own = None;
    }
}
