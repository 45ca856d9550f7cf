//! Memory that is given back by what goes on living.

use super::{Executable, Gpu};

impl Executable {
    /// Gives back the memory that it can do without until the next run: temporaries, inputs and outputs of its own with their
    /// copies and staging memory, and bind groups, which keep the caller's buffers alive. Parameters, constants and states
    /// stay. Returns how many bytes that were.
    ///
    /// The next run makes what it needs anew; buffers that [`buffer`](Executable::buffer) gave for inputs and outputs are
    /// no longer those of the executable then.
    ///
    /// ```
    /// # use tilewise::{DType, Graph, Tensor, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// let mut program = Gpu::new()?.compile(&g, [])?;
    /// let x = Tensor::new([2], vec![-1.0f32, 1.0])?;
    /// let outputs = program.run(&[("x", &x)])?;
    /// assert_eq!(program.memory(), 4 * 16); // x and y, here and on the way
    /// assert_eq!((program.trim(), program.memory()), (4 * 16, 0));
    /// assert_eq!(program.run(&[("x", &x)])?, outputs);
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    pub fn trim(&mut self) -> u64 {
        let before = self.memory();
        self.temporaries = None;
        self.dispatches.iter_mut().for_each(|dispatch| dispatch.group = None);
        self.bound.clear();
        self.own = None;
        self.staging = None;
        #[cfg(feature = "native")]
        self.copies.clear();
        self.leases.temporaries = None;
        self.leases.own = None;
        self.leases.copies.clear();
        self.gpu.inner.collect();
        before - self.memory()
    }
}

impl Gpu {
    /// Drops the compiled pipelines that no living executable runs; programs that need them compile them again. Returns how
    /// many were dropped. What executables hold is theirs to [give back](Executable::trim).
    ///
    /// ```
    /// # use tilewise::{DType, Graph, gpu::Gpu};
    /// # let mut g = Graph::new();
    /// let x = g.input("x", DType::F32, [2])?;
    /// let y = g.relu(x)?;
    /// g.output("y", y)?;
    /// let gpu = Gpu::new()?;
    /// let program = gpu.compile(&g, [])?;
    /// assert_eq!((gpu.trim(), gpu.pipelines()), (0, 1));
    /// drop(program);
    /// assert_eq!((gpu.trim(), gpu.pipelines()), (1, 0));
    /// # Ok::<(), tilewise::Error>(())
    /// ```
    pub fn trim(&self) -> usize {
        let before = self.inner.pipelines.kept();
        self.inner.pipelines.trim();
        self.inner.collect();
        before.saturating_sub(self.inner.pipelines.kept())
    }
}
