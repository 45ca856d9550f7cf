//! Units → kernel problems over buffers: where each value lies, and what has to be copied.

use std::collections::HashSet;

use super::{
    Buffer, BufferId, Note, Options, Role, Start,
    fuse::Unit,
    select::{Choice, select},
    survey::Survey,
};
use crate::{
    DType, Error, Layout, Result, Shape, ValueId,
    graph::Op,
    kernel::{CopyProblem, Lowering, Operands, Problem, Profile, buffer_bytes},
};

const RULE: &str = "copy";

/// A step whose memory is not planned yet.
pub(super) struct Draft {
    pub(super) problem: Box<dyn Problem>,
    pub(super) choice: Choice,
    pub(super) inputs: Vec<BufferId>,
    pub(super) outputs: Vec<BufferId>,
    pub(super) covers: Vec<String>,
    /// The input whose memory output 0 takes, if that is settled.
    pub(super) in_place: Option<usize>,
}

/// Every buffer but workspace, and every step in order. Temporaries have no allocation yet.
pub(super) struct Placed {
    pub(super) buffers: Vec<Buffer>,
    pub(super) drafts: Vec<Draft>,
}

/// Finds a place for every value that a unit or an output reads.
pub(super) fn place(
    survey: &Survey<'_>,
    profile: &Profile,
    options: &Options,
    units: &[Unit<'_>],
    notes: &mut Vec<Note>,
) -> Result<Placed> {
    let homes = vec![None; survey.graph.values().len()];
    let mut placing = Placing {
        survey,
        profile,
        options,
        buffers: Vec::new(),
        drafts: Vec::new(),
        writers: Vec::new(),
        last_readers: Vec::new(),
        homes,
        notes,
    };
    placing.sources();
    for unit in units {
        placing.unit(unit)?;
    }
    let moved = placing.states_in_place()?;
    placing.outputs()?;
    placing.states_by_copy(&moved)?;
    Ok(Placed { buffers: placing.buffers, drafts: placing.drafts })
}

/// Where the elements of a value lie.
#[derive(Clone, Debug)]
struct Home {
    buffer: BufferId,
    layout: Layout,
}

struct Placing<'a> {
    survey: &'a Survey<'a>,
    profile: &'a Profile,
    options: &'a Options,
    buffers: Vec<Buffer>,
    drafts: Vec<Draft>,
    /// By buffer: the last draft whose first output it is.
    writers: Vec<Option<usize>>,
    /// By buffer: the last draft that reads it.
    last_readers: Vec<Option<usize>>,
    /// By value, as far as it is known.
    homes: Vec<Option<Home>>,
    notes: &'a mut Vec<Note>,
}

impl Placing<'_> {
    fn buffer(&mut self, name: String, dtype: DType, shape: Shape, role: Role) -> BufferId {
        let bytes = buffer_bytes(dtype, shape.elements().unwrap_or(usize::MAX));
        self.buffers.push(Buffer { name, dtype, shape, bytes, role });
        self.writers.push(None);
        self.last_readers.push(None);
        BufferId(self.buffers.len() - 1)
    }

    fn draft(&mut self, draft: Draft) {
        let at = self.drafts.len();
        draft.inputs.iter().for_each(|input| self.last_readers[input.0] = Some(at));
        self.writers[draft.outputs[0].0] = Some(at);
        self.drafts.push(draft);
    }

    fn temporary(&mut self, value: ValueId, shape: Shape) -> BufferId {
        let (name, dtype) = (self.survey.label(value), self.survey.graph.dtype(value));
        self.buffer(name, dtype, shape, Role::Temporary(usize::MAX))
    }

    fn note(&mut self, value: ValueId, reason: String) {
        self.notes.push(Note { rule: RULE, value: self.survey.label(value), applied: true, reason });
    }

    /// Buffers of inputs, parameters and constants. Of the constants only those that are read: the others are numbers in
    /// the kernels' parameters.
    fn sources(&mut self) {
        let graph = self.survey.graph;
        for node in graph.nodes() {
            let parameter = matches!(node.op, Op::Parameter { .. });
            if !parameter && !matches!(node.op, Op::Input { .. }) {
                continue;
            }
            let value = node.outputs[0];
            let name = graph.label(value);
            let role = match (parameter, graph.update_of(value).is_some()) {
                (true, false) => Role::Parameter(name.clone()),
                (false, false) => Role::Input(name.clone()),
                (true, true) => Role::State { name: name.clone(), start: Start::Given },
                (false, true) => Role::State { name: name.clone(), start: Start::Zero },
            };
            let shape = graph.shape(value).clone();
            let buffer = self.buffer(name, graph.dtype(value), shape.clone(), role);
            self.homes[value.index()] = Some(Home { buffer, layout: Layout::contiguous(shape) });
        }
    }

    /// Where a value lies; a reshape that strides can't say is copied first.
    fn home(&mut self, value: ValueId) -> Result<Home> {
        let graph = self.survey.graph;
        // Views between the value and what has a home, the value first. There may be thousands: no recursion.
        let (mut views, mut at) = (Vec::new(), value);
        let mut home = loop {
            if let Some(home) = &self.homes[at.index()] {
                break home.clone();
            }
            let node = graph.definition(at);
            if let Op::Constant { value: tensor } = &node.op {
                let shape = tensor.shape().clone();
                let role = Role::Constant(tensor.clone());
                let buffer = self.buffer(self.survey.label(at), tensor.dtype(), shape.clone(), role);
                let home = Home { buffer, layout: Layout::contiguous(shape) };
                self.homes[at.index()] = Some(home.clone());
                break home;
            }
            let (Lowering::View(view), &[operand]) = (Lowering::of(&node.op), &node.inputs[..]) else {
                return Err(Error::Graph(format!("{} is read before it is computed", self.survey.label(at))));
            };
            views.push((at, operand, view));
            at = operand;
        };
        for (value, operand, view) in views.into_iter().rev() {
            home = match view(&home.layout) {
                Some(layout) => Home { buffer: home.buffer, layout },
                None => {
                    let Layout { shape, strides, .. } = &home.layout;
                    let reason = format!("{shape} of strides {strides:?} can't be read as {}", graph.shape(value));
                    let Home { buffer, .. } = self.dense(operand, reason)?;
                    Home { buffer, layout: Layout::contiguous(graph.shape(value)) }
                }
            };
            self.homes[value.index()] = Some(home.clone());
        }
        Ok(home)
    }

    /// Copies a view into a buffer of its own, where later readers find it too.
    fn dense(&mut self, value: ValueId, reason: String) -> Result<Home> {
        let graph = self.survey.graph;
        let shape = graph.shape(value).clone();
        let buffer = self.temporary(value, shape.clone());
        self.copy(value, buffer)?;
        self.note(value, reason);
        let home = Home { buffer, layout: Layout::contiguous(shape) };
        self.homes[value.index()] = Some(home.clone());
        Ok(home)
    }

    fn copy(&mut self, value: ValueId, to: BufferId) -> Result<()> {
        let Home { buffer, layout } = self.home(value)?;
        let problem = CopyProblem { dtype: self.survey.graph.dtype(value), input: layout };
        let choice = select(&problem, self.profile, self.options)?;
        let (inputs, outputs, covers) = (vec![buffer], vec![to], vec![self.survey.label(value)]);
        self.draft(Draft { problem: Box::new(problem), choice, inputs, outputs, covers, in_place: None });
        Ok(())
    }

    /// The step of a unit, and copies of operands that no variant can read where they lie.
    fn unit(&mut self, unit: &Unit<'_>) -> Result<()> {
        let graph = self.survey.graph;
        let mut operands = Operands::dense(graph, &unit.inputs, &unit.outputs);
        for (i, &value) in unit.outputs.iter().enumerate() {
            operands.set_used(i, self.survey.is_used(value));
        }
        // Made once only to learn how it reads and writes them.
        (unit.problem)(&mut operands)?;
        let mut buffers: Vec<BufferId> = Vec::with_capacity(unit.inputs.len());
        for (i, &value) in unit.inputs.iter().enumerate() {
            let mut home = self.home(value)?;
            if !(home.layout.is_contiguous() || operands.is_strided(i)) {
                home = self.dense(value, "its kernel reads a dense tensor".into())?;
            }
            operands.set_layout(i, home.layout);
            buffers.push(home.buffer);
        }
        if operands.takes_any_order() {
            operands.set_out_layout(self.order_of(unit.outputs[0]));
        }
        let (problem, choice) = loop {
            let problem = (unit.problem)(&mut operands)?;
            let error = match select(&*problem, self.profile, self.options) {
                Ok(choice) => break (problem, choice),
                Err(error) => error,
            };
            let Some(i) = operands.first_view() else { return Err(error) };
            let why = if let Error::NoVariant { family, reasons, .. } = &error {
                format!("{family}: {}", reasons.join("; "))
            } else {
                error.to_string()
            };
            let home = self.dense(unit.inputs[i], format!("it is read as it lies by no kernel: {why}"))?;
            operands.set_layout(i, home.layout);
            buffers[i] = home.buffer;
        };
        let mut outputs = Vec::with_capacity(unit.outputs.len());
        for (i, &value) in unit.outputs.iter().enumerate().filter(|(i, _)| !operands.is_left_out(*i)) {
            let layout = if i == 0 { operands.out().clone() } else { Layout::contiguous(graph.shape(value)) };
            let buffer = self.temporary(value, stored_shape(&layout));
            self.homes[value.index()] = Some(Home { buffer, layout });
            outputs.push(buffer);
        }
        let mut covers: Vec<String> = unit.computes.iter().flat_map(|&value| self.survey.covers(value)).collect();
        covers.dedup();
        self.draft(Draft { problem, choice, inputs: buffers, outputs, covers, in_place: None });
        Ok(())
    }

    /// How the elements of a result lie that may lie in any order of its axes: as the only reader wants them.
    fn order_of(&mut self, value: ValueId) -> Layout {
        let graph = self.survey.graph;
        let shape = graph.shape(value);
        let dense = Layout::contiguous(shape);
        if shape.rank() != 4 {
            return dense;
        }
        // [B, T, H, D], read as [B, H, T, D].
        let merged = Layout::contiguous(dense.permute(&[0, 2, 1, 3]).shape).permute(&[0, 2, 1, 3]);
        let (mut last, mut views) = (value, [Some(dense.clone()), Some(merged.clone())]);
        while let Ok(reader) = self.survey.sole_reader(last) {
            let node = graph.node(reader);
            let step: Box<dyn Fn(Layout) -> Option<Layout>> = if let Op::Permute { order } = &node.op {
                Box::new(|layout| Some(layout.permute(order)))
            } else if let Op::Reshape { shape } = &node.op {
                Box::new(|layout| layout.reshape(shape))
            } else {
                break;
            };
            views = views.map(|view| view.and_then(&step));
            last = node.outputs[0];
        }
        match views {
            [Some(as_it_is), _] if as_it_is.is_contiguous() => dense,
            [_, Some(turned)] if turned.is_contiguous() => {
                let reason =
                    format!("written as {}, so that {} is a view", stored_shape(&merged), self.survey.quote(last));
                self.notes.push(Note { rule: "merge heads", value: self.survey.label(value), applied: true, reason });
                merged
            }
            _ => dense,
        }
    }

    /// Lets the steps that compute what states become write it where the state is, if nothing reads the state after that.
    /// Returns the values for which that can't be, each with its state's buffer: they have to be moved there when all is
    /// done.
    fn states_in_place(&mut self) -> Result<Vec<(ValueId, BufferId)>> {
        let graph = self.survey.graph;
        let states: Vec<(ValueId, ValueId)> = graph.states().map(|(_, state, next)| (state, next)).collect();
        // What is read when all steps are done: outputs, and what other states become.
        let read_late = graph.outputs().iter().map(|(_, value)| *value).chain(states.iter().map(|(_, next)| *next));
        let read_late: HashSet<ValueId> = read_late.map(|value| graph.base(value)).collect();
        let mut moved = Vec::new();
        for &(state, next) in &states {
            let Home { buffer: old, .. } = self.home(state)?;
            let Home { buffer: new, layout } = self.home(next)?;
            if new == old && layout.is_contiguous() {
                continue;
            }
            let writer = self.writers[new.0];
            let whole = layout.is_contiguous()
                && matches!(self.buffers[new.0].role, Role::Temporary(_))
                && self.buffers[new.0].shape == *graph.shape(state)
                && !read_late.contains(&state);
            let taken = writer.filter(|_| whole).and_then(|at| {
                let last = self.last_readers[old.0].is_none_or(|reader| reader <= at);
                let draft = &mut self.drafts[at];
                let mut places = draft.inputs.iter().enumerate().filter(|(_, input)| **input == old).map(|(i, _)| i);
                let (first, second) = (places.next(), places.next());
                let input = first.filter(|&i| last && second.is_none() && draft.problem.allows_in_place(i))?;
                draft.problem.set_in_place(input);
                draft.in_place = Some(input);
                Some(input)
            });
            match taken {
                Some(_) => self.buffers[new.0].role = Role::Next(old.0),
                None => moved.push((next, old)),
            }
        }
        Ok(moved)
    }

    /// Copies what states become to where they are, after everything else. States that become each other are put aside
    /// first.
    fn states_by_copy(&mut self, moved: &[(ValueId, BufferId)]) -> Result<()> {
        for &(next, _) in moved {
            let Home { buffer, .. } = self.home(next)?;
            if matches!(self.buffers[buffer.0].role, Role::State { .. }) {
                self.dense(next, "a state becomes what another one was, which is put aside".into())?;
            }
        }
        for &(next, old) in moved {
            let Buffer { name, dtype, shape, .. } = self.buffers[old.0].clone();
            let to = self.buffer(format!("{name}, next"), dtype, shape, Role::Next(old.0));
            self.copy(next, to)?;
            self.note(next, format!("into the state `{name}`: it is not computed in place there"));
        }
        Ok(())
    }

    /// A buffer for each output: the one its value lies in, if that can be handed out as it is; otherwise a copy.
    fn outputs(&mut self) -> Result<()> {
        let graph = self.survey.graph;
        for (name, value) in graph.outputs() {
            let Home { buffer, layout } = self.home(*value)?;
            let shape = graph.shape(*value).clone();
            let lies = &mut self.buffers[buffer.0];
            let whole = layout.is_contiguous() && lies.shape.elements() == shape.elements();
            if whole && matches!(lies.role, Role::Temporary(_)) {
                (lies.role, lies.shape, lies.name) = (Role::Output(name.clone()), shape, name.clone());
                continue;
            }
            let reason = match &lies.role {
                Role::Temporary(_) => "it is a view, and an output is a dense tensor",
                Role::Output(_) => "it is another output too",
                Role::Next(_) => "it is what a state becomes",
                Role::Input(_) | Role::Parameter(_) | Role::Constant(_) | Role::State { .. } => {
                    "it is given, not computed"
                }
            };
            let to = self.buffer(name.clone(), graph.dtype(*value), shape, Role::Output(name.clone()));
            self.copy(*value, to)?;
            self.note(*value, format!("into the output `{name}`: {reason}"));
        }
        Ok(())
    }
}

/// The shape of the dense tensor that a permuted layout lies in.
fn stored_shape(layout: &Layout) -> Shape {
    let mut axes: Vec<(isize, usize)> = layout.strides.iter().copied().zip(layout.shape.iter().copied()).collect();
    if !layout.is_contiguous() {
        axes.sort_by_key(|&(stride, _)| std::cmp::Reverse(stride));
    }
    axes.into_iter().map(|(_, size)| size).collect()
}
