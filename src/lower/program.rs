use std::{collections::BTreeMap, fmt, ops::Range};

use crate::{
    Error, Result,
    kernel::{Access, Candidate, Kernel, Operand, buffer_bytes},
    tensor::{DType, Shape, Tensor},
};

/// A graph lowered for one device: buffers, and steps in order. Plain data; the engine in [`crate::gpu`] runs it.
#[derive(Clone, Debug)]
pub struct Program {
    /// Every buffer; steps name them by their place here.
    pub buffers: Vec<Buffer>,
    /// Bytes of each allocation that temporaries share. A temporary names the one it lives in.
    pub allocations: Vec<u64>,
    /// The kernels in the order they run.
    pub steps: Vec<Step>,
    /// The dispatches of all steps, counted through, by the submissions that a run makes of them; empty means one for all.
    pub submissions: Vec<Range<usize>>,
    /// What the graph passes did, and what kept them from doing more, in order.
    pub notes: Vec<Note>,
    /// Bytes of every intermediate value of the graph as it was given: what a run of one kernel an operation, that keeps
    /// each result, would take. Views and outputs don't count.
    pub unfused_bytes: u64,
}

/// The place of a [`Buffer`] in [`Program::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub usize);

/// A dense row-major tensor on the device.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// The name of the value in the graph, for messages.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The shape of the tensor that lies in it.
    pub shape: Shape,
    /// Bytes on the device.
    pub bytes: u64,
    /// Where its memory and content come from.
    pub role: Role,
}

/// Where a buffer's memory and content come from.
#[derive(Clone, Debug)]
pub enum Role {
    /// Given for each run, by this name.
    Input(String),
    /// Given once, when the program is loaded, by this name.
    Parameter(String),
    /// Part of the program.
    Constant(Tensor),
    /// Read back or handed to the caller after a run, by this name.
    Output(String),
    /// Lives in [`Program::allocations`] at this index, from the step that writes it to the last that reads it.
    Temporary(usize),
    /// Stays on the device from one run to the next, by this name.
    State {
        /// The name.
        name: String,
        /// What it is at first.
        start: Start,
    },
    /// What the state in the buffer of this number becomes: it lies in the state's memory, and no step reads the state
    /// after the one that writes this.
    Next(usize),
}

/// What a state is when the program is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Zero: that of an input with an update.
    Zero,
    /// What is given with the program's parameters: that of a parameter with an update.
    Given,
}

impl Role {
    /// The name, if its content is given when the program is loaded.
    pub fn given(&self) -> Option<&str> {
        match self {
            Role::Parameter(name) | Role::State { name, start: Start::Given } => Some(name),
            Role::Input(_)
            | Role::Constant(_)
            | Role::Output(_)
            | Role::Temporary(_)
            | Role::State { start: Start::Zero, .. }
            | Role::Next(_) => None,
        }
    }
}

/// What it is in messages.
impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Input(name) => write!(f, "the input `{name}`"),
            Role::Parameter(name) => write!(f, "the parameter `{name}`"),
            Role::Constant(value) => write!(f, "a constant {} {}", value.dtype(), value.shape()),
            Role::Output(name) => write!(f, "the output `{name}`"),
            Role::Temporary(allocation) => write!(f, "a temporary of allocation {allocation}"),
            Role::State { name, .. } => write!(f, "the state `{name}`"),
            Role::Next(state) => write!(f, "the next of the state in buffer {state}"),
        }
    }
}

/// One problem solved by one variant of its kernel.
#[derive(Clone, Debug)]
pub struct Step {
    /// The kernel family.
    pub family: &'static str,
    /// What stands for this problem and those near it in [`Choices`](super::Choices).
    pub key: String,
    /// The variant that was chosen.
    pub variant: &'static str,
    /// Why this variant.
    pub reason: String,
    /// The others, and why not they.
    pub candidates: Vec<Candidate>,
    /// The problem in one line.
    pub summary: String,
    /// The graph's values that this step computes, by name; the last is what it writes first.
    pub covers: Vec<String>,
    /// Dispatches.
    pub kernel: Kernel,
    /// Buffers of the problem's inputs.
    pub inputs: Vec<BufferId>,
    /// Buffers of the problem's outputs.
    pub outputs: Vec<BufferId>,
    /// Buffers of the kernel's workspace.
    pub workspace: Vec<BufferId>,
    /// The input that output 0 takes over: both lie in one allocation, and no launch binds the input.
    pub in_place: Option<usize>,
}

impl Step {
    /// The buffer behind an operand of one of this step's launches.
    pub fn buffer(&self, operand: Operand) -> BufferId {
        match operand {
            Operand::Input(i) => self.inputs[i],
            Operand::Output(i) => self.outputs[i],
            Operand::Workspace(i) => self.workspace[i],
        }
    }

    /// Floating-point operations of all dispatches.
    pub fn flops(&self) -> u64 {
        self.kernel.launches.iter().fold(0, |sum, launch| sum.saturating_add(launch.flops))
    }

    /// Bytes that all dispatches must read and write at the least.
    pub fn bytes(&self) -> u64 {
        self.kernel.launches.iter().fold(0, |sum, launch| sum.saturating_add(launch.bytes))
    }
}

/// What a pass did or did not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The name of the rule: `recognise attention`.
    pub rule: &'static str,
    /// The value in the graph that the rule looked at.
    pub value: String,
    /// Whether the rule applied.
    pub applied: bool,
    /// Why, or why not.
    pub reason: String,
}

impl Program {
    /// A program of one kernel, without a graph: its buffers are named `input 0`, `output 0` and so on ([`Operand`]'s
    /// `Display`).
    ///
    /// # Errors
    /// [`Error::Limit`] if a tensor has more than 2³¹ − 1 elements.
    pub fn of_kernel(kernel: &Kernel, inputs: &[(DType, Shape)], outputs: &[(DType, Shape)]) -> Result<Self> {
        let mut buffers = Vec::new();
        let mut add = |operand: Operand, dtype: DType, shape: &Shape, role: fn(String) -> Role| {
            let bytes = buffer_bytes(dtype, shape.checked_elements("program")?);
            let name = operand.to_string();
            buffers.push(Buffer { role: role(name.clone()), name, dtype, shape: shape.clone(), bytes });
            Ok(BufferId(buffers.len() - 1))
        };
        let mut all = |of: fn(usize) -> Operand, list: &[(DType, Shape)], role: fn(String) -> Role| {
            list.iter()
                .enumerate()
                .map(|(i, (dtype, shape))| add(of(i), *dtype, shape, role))
                .collect::<Result<Vec<_>>>()
        };
        let inputs = all(Operand::Input, inputs, Role::Input)?;
        let outputs = all(Operand::Output, outputs, Role::Output)?;
        let allocations: Vec<u64> = kernel.workspace.iter().map(|bytes| bytes.next_multiple_of(16).max(16)).collect();
        let workspace = (buffers.len()..buffers.len() + allocations.len()).map(BufferId).collect();
        buffers.extend(allocations.iter().enumerate().map(|(i, &bytes)| Buffer {
            name: Operand::Workspace(i).to_string(),
            dtype: DType::U32,
            shape: Shape::from([bytes as usize / 4]),
            bytes,
            role: Role::Temporary(i),
        }));
        let step = Step {
            key: "kernel given".into(),
            family: "kernel",
            variant: "given",
            reason: String::new(),
            candidates: Vec::new(),
            summary: kernel.launches.iter().map(|launch| launch.label.as_str()).collect::<Vec<_>>().join(", "),
            covers: Vec::new(),
            kernel: kernel.clone(),
            inputs,
            outputs,
            workspace,
            in_place: None,
        };
        let (submissions, notes) = (Vec::new(), Vec::new());
        Ok(Program { buffers, allocations, steps: vec![step], submissions, notes, unfused_bytes: 0 })
    }

    /// The buffer of each role-bearing name: inputs, states, parameters and outputs.
    pub fn named(&self) -> BTreeMap<&str, BufferId> {
        self.buffers
            .iter()
            .enumerate()
            .filter_map(|(i, buffer)| match &buffer.role {
                Role::Input(name) | Role::Parameter(name) | Role::Output(name) | Role::State { name, .. } => {
                    Some((name.as_str(), BufferId(i)))
                }
                Role::Constant(_) | Role::Temporary(_) | Role::Next(_) => None,
            })
            .collect()
    }

    /// One step alone as a program, on inputs of its own, to time it or to compare its variants. Each input is named
    /// `b` and the number of its buffer here, and so are the outputs.
    ///
    /// # Errors
    /// [`Error::Op`] if there is no such step, or if it works in place: lower without
    /// [`share_memory`](super::Options::share_memory).
    pub fn isolate(&self, step: usize) -> Result<Program> {
        let steps = self.steps.len();
        let error = |message: String| Error::op("program", message);
        let mut step =
            self.steps.get(step).ok_or_else(|| error(format!("there is no step {step} of {steps}")))?.clone();
        if step.in_place.is_some() {
            return Err(error(format!("{} {} works in place and can't stand alone", step.family, step.summary)));
        }
        let mut program = Program {
            buffers: vec![],
            allocations: vec![],
            steps: vec![],
            submissions: vec![],
            notes: vec![],
            unfused_bytes: 0,
        };
        let mut places: BTreeMap<BufferId, BufferId> = BTreeMap::new();
        let mut place = |id: BufferId, role: fn(String) -> Role| {
            *places.entry(id).or_insert_with(|| {
                let buffer = &self.buffers[id.0];
                let name = format!("b{}", id.0);
                let role = match (&buffer.role, role(name.clone())) {
                    (Role::Constant(value), Role::Input(_)) => Role::Constant(value.clone()),
                    (_, Role::Temporary(_)) => {
                        program.allocations.push(buffer.bytes);
                        Role::Temporary(program.allocations.len() - 1)
                    }
                    (_, role) => role,
                };
                program.buffers.push(Buffer { name, role, ..buffer.clone() });
                BufferId(program.buffers.len() - 1)
            })
        };
        step.inputs.iter_mut().for_each(|id| *id = place(*id, Role::Input));
        step.outputs.iter_mut().for_each(|id| *id = place(*id, Role::Output));
        step.workspace.iter_mut().for_each(|id| *id = place(*id, |_| Role::Temporary(0)));
        program.steps.push(step);
        program.verify()?;
        Ok(program)
    }

    /// Bytes of temporaries at once, as planned.
    pub fn peak_bytes(&self) -> u64 {
        self.allocations.iter().sum()
    }

    /// Bytes of temporaries if each had memory of its own.
    pub fn naive_bytes(&self) -> u64 {
        self.buffers.iter().filter(|b| matches!(b.role, Role::Temporary(_))).map(|b| b.bytes).sum()
    }

    /// Checks what the engine relies on: every index names something, buffers hold their tensors, temporaries lie in
    /// their allocations, names are unique, each dispatch is in one submission, and no dispatch writes what it must not or reads what it writes through a
    /// second binding.
    ///
    /// # Errors
    /// [`Error::Op`] with the first rule that is broken, and where.
    pub fn verify(&self) -> Result<()> {
        let mut names = std::collections::BTreeSet::new();
        for buffer in &self.buffers {
            let error = |message: String| Err(Error::op("program", format!("buffer `{}` {message}", buffer.name)));
            let need = buffer_bytes(buffer.dtype, buffer.shape.checked_elements("program")?);
            if buffer.bytes < need || buffer.bytes % 16 != 0 {
                return error(format!(
                    "has {} bytes, expected a multiple of 16 and at least {need} for {} {}",
                    buffer.bytes, buffer.dtype, buffer.shape
                ));
            }
            match &buffer.role {
                Role::Input(name) | Role::Parameter(name) | Role::Output(name) | Role::State { name, .. } => {
                    if !names.insert(name.as_str()) {
                        return error(format!("has the name `{name}` of another input, state, parameter or output"));
                    }
                }
                Role::Constant(value) => {
                    if value.dtype() != buffer.dtype || value.shape() != &buffer.shape {
                        return error(format!(
                            "is {} {}, its value is {} {}",
                            buffer.dtype,
                            buffer.shape,
                            value.dtype(),
                            value.shape()
                        ));
                    }
                }
                Role::Next(state) => {
                    let fits = |of: &Buffer| {
                        matches!(of.role, Role::State { .. }) && (of.dtype, &of.shape) == (buffer.dtype, &buffer.shape)
                    };
                    if !self.buffers.get(*state).is_some_and(fits) {
                        return error(format!("is to be the next of buffer {state}, which is no state like it"));
                    }
                }
                Role::Temporary(allocation) => match self.allocations.get(*allocation) {
                    Some(&bytes) if bytes >= buffer.bytes => {}
                    Some(bytes) => return error(format!("needs {} bytes, its allocation has {bytes}", buffer.bytes)),
                    None => {
                        return error(format!("lies in allocation {allocation}, there are {}", self.allocations.len()));
                    }
                },
            }
        }
        let mut next = 0;
        for part in &self.submissions {
            if part.start != next || part.end <= part.start {
                let message = format!("a submission has the dispatches {part:?}, expected some from {next} on");
                return Err(Error::op("program", message));
            }
            next = part.end;
        }
        if !self.submissions.is_empty() && next != self.dispatches() {
            let message = format!("the submissions have {next} dispatches, the steps {}", self.dispatches());
            return Err(Error::op("program", message));
        }
        (0..self.steps.len()).try_for_each(|step| self.verify_step(step))
    }

    fn verify_step(&self, index: usize) -> Result<()> {
        let step = &self.steps[index];
        let error = |message: String| {
            Err(Error::op("program", format!("step {index} ({} {}): {message}", step.family, step.variant)))
        };
        let operands = step.inputs.iter().chain(&step.outputs).chain(&step.workspace);
        if let Some(BufferId(id)) = operands.copied().find(|id| id.0 >= self.buffers.len()) {
            return error(format!("names buffer {id}, there are {}", self.buffers.len()));
        }
        if step.workspace.len() != step.kernel.workspace.len() {
            return error(format!("{} workspace buffers for {}", step.workspace.len(), step.kernel.workspace.len()));
        }
        for (id, &bytes) in step.workspace.iter().zip(&step.kernel.workspace) {
            let buffer = &self.buffers[id.0];
            if buffer.bytes < bytes {
                return error(format!(
                    "workspace `{}` has {} bytes, the kernel needs {bytes}",
                    buffer.name, buffer.bytes
                ));
            }
        }
        if let Some(input) = step.in_place {
            let (Some(&BufferId(from)), Some(&BufferId(to))) = (step.inputs.get(input), step.outputs.first()) else {
                return error(format!("takes over input {input}, there are {}", step.inputs.len()));
            };
            if from == to || self.memory(from) != self.memory(to) || self.buffers[from].bytes != self.buffers[to].bytes
            {
                return error(format!(
                    "takes over `{}` as `{}`, which are not two buffers of equal size in the same memory",
                    self.buffers[from].name, self.buffers[to].name
                ));
            }
        }
        for launch in &step.kernel.launches {
            let mut bound: Vec<(usize, Access)> = Vec::new();
            for binding in &launch.bindings {
                let list = match binding.operand {
                    Operand::Input(_) => &step.inputs,
                    Operand::Output(_) => &step.outputs,
                    Operand::Workspace(_) => &step.workspace,
                };
                let (Operand::Input(i) | Operand::Output(i) | Operand::Workspace(i)) = binding.operand;
                let Some(&BufferId(id)) = list.get(i) else {
                    return error(format!("`{}` binds {}, there are {}", launch.label, binding.operand, list.len()));
                };
                let buffer = &self.buffers[id];
                if binding.access == Access::Write
                    && !matches!(buffer.role, Role::Output(_) | Role::Temporary(_) | Role::Next(_))
                {
                    return error(format!("`{}` writes `{}`, which is {}", launch.label, buffer.name, buffer.role));
                }
                bound.push((self.memory(id), binding.access));
            }
            for (i, &(memory, access)) in bound.iter().enumerate() {
                if bound[..i]
                    .iter()
                    .any(|&(other, was)| other == memory && (was, access) != (Access::Read, Access::Read))
                {
                    let BufferId(id) = step.buffer(launch.bindings[i].operand);
                    return error(format!(
                        "`{}` binds the memory of `{}` twice and writes it",
                        launch.label, self.buffers[id].name
                    ));
                }
            }
        }
        Ok(())
    }

    /// A number for the memory that a buffer lies in: equal for temporaries that share an allocation, and for a state and
    /// what it becomes.
    fn memory(&self, id: usize) -> usize {
        match self.buffers[id].role {
            Role::Temporary(allocation) => self.buffers.len() + allocation,
            Role::Next(state) => state,
            Role::Input(_) | Role::Parameter(_) | Role::Constant(_) | Role::Output(_) | Role::State { .. } => id,
        }
    }
}
