use std::collections::BTreeMap;

use crate::{
    kernel::{Candidate, Kernel, Operand},
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
}

/// One problem solved by one variant of its kernel.
#[derive(Clone, Debug)]
pub struct Step {
    /// The kernel family.
    pub family: &'static str,
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
    /// Buffers of the kernel's scratch.
    pub scratch: Vec<BufferId>,
    /// The input that output 0 takes over: both lie in one allocation, and no launch binds the input.
    pub in_place: Option<usize>,
}

impl Step {
    /// The buffer behind an operand of one of this step's launches.
    pub fn buffer(&self, operand: Operand) -> BufferId {
        match operand {
            Operand::Input(i) => self.inputs[i],
            Operand::Output(i) => self.outputs[i],
            Operand::Scratch(i) => self.scratch[i],
        }
    }

    /// Floating-point operations of all dispatches.
    pub fn flops(&self) -> u64 {
        self.kernel.launches.iter().map(|launch| launch.flops).sum()
    }

    /// Bytes that all dispatches must read and write at the least.
    pub fn bytes(&self) -> u64 {
        self.kernel.launches.iter().map(|launch| launch.bytes).sum()
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
    /// The buffer of each role-bearing name: inputs, parameters and outputs.
    pub fn named(&self) -> BTreeMap<&str, BufferId> {
        self.buffers
            .iter()
            .enumerate()
            .filter_map(|(i, buffer)| match &buffer.role {
                Role::Input(name) | Role::Parameter(name) | Role::Output(name) => Some((name.as_str(), BufferId(i))),
                Role::Constant(_) | Role::Temporary(_) => None,
            })
            .collect()
    }

    /// Bytes of temporaries at once, as planned.
    pub fn peak_bytes(&self) -> u64 {
        self.allocations.iter().sum()
    }

    /// Bytes of temporaries if each had memory of its own.
    pub fn naive_bytes(&self) -> u64 {
        self.buffers.iter().filter(|b| matches!(b.role, Role::Temporary(_))).map(|b| b.bytes).sum()
    }
}
