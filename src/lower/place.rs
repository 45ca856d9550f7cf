//! Units → kernel problems over buffers: where each value lies, and what has to be copied.

use super::{
    Buffer, BufferId, Note, Options, Role,
    fuse::{Kind, Norm, Unit},
    select::{Choice, select},
    survey::Survey,
};
use crate::{
    DType, Graph, Layout, Result, Shape, ValueId,
    graph::{AttentionOperand, Op},
    kernel::{
        AppendProblem, ArgmaxProblem, AttentionDTypes, AttentionMergeProblem, AttentionProblem, ConcatProblem,
        CopyProblem, DequantizeProblem, Epilogue, GatherProblem, MatmulDTypes, MatmulProblem, NormDTypes, NormProblem,
        PadProblem, PointwiseProblem, Problem, Profile, ReduceProblem, RotaryProblem, SoftmaxDTypes, SoftmaxProblem,
        buffer_bytes,
    },
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

/// Every buffer but scratch, and every step in order. Temporaries have no allocation yet.
pub(super) struct Placed {
    pub(super) buffers: Vec<Buffer>,
    pub(super) drafts: Vec<Draft>,
}

/// Finds a place for every value that a unit or an output reads.
pub(super) fn place(
    survey: &Survey<'_>,
    profile: &Profile,
    options: &Options,
    units: &[Unit],
    notes: &mut Vec<Note>,
) -> Result<Placed> {
    let homes = vec![None; survey.graph.values().len()];
    let mut placing = Placing { survey, profile, options, buffers: Vec::new(), drafts: Vec::new(), homes, notes };
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
    /// By value, as far as it is known.
    homes: Vec<Option<Home>>,
    notes: &'a mut Vec<Note>,
}

impl Placing<'_> {
    fn buffer(&mut self, name: String, dtype: DType, shape: Shape, role: Role) -> BufferId {
        let bytes = buffer_bytes(dtype, shape.elements().unwrap_or(usize::MAX));
        self.buffers.push(Buffer { name, dtype, shape, bytes, role });
        BufferId(self.buffers.len() - 1)
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
            let role = match &node.op {
                Op::Input { .. } if graph.update_of(node.outputs[0]).is_some() => Role::State,
                Op::Input { .. } => Role::Input,
                Op::Parameter { .. } => Role::Parameter,
                _ => continue,
            };
            let value = node.outputs[0];
            let name = graph.label(value);
            let shape = graph.shape(value).clone();
            let buffer = self.buffer(name.clone(), graph.dtype(value), shape.clone(), role(name));
            self.homes[value.index()] = Some(Home { buffer, layout: Layout::contiguous(shape) });
        }
    }

    /// Where a value lies; a reshape that strides can't say is copied first.
    fn home(&mut self, value: ValueId) -> Result<Home> {
        if let Some(home) = &self.homes[value.index()] {
            return Ok(home.clone());
        }
        let graph = self.survey.graph;
        let node = graph.definition(value);
        let home = if let Op::Constant { value: tensor } = &node.op {
            let shape = tensor.shape().clone();
            let role = Role::Constant(tensor.clone());
            let buffer = self.buffer(self.survey.label(value), tensor.dtype(), shape.clone(), role);
            Home { buffer, layout: Layout::contiguous(shape) }
        } else {
            let &[operand] = &node.inputs[..] else {
                return Err(crate::Error::Graph(format!("{} is read before it is computed", self.survey.label(value))));
            };
            let Home { buffer, layout } = self.home(operand)?;
            let view = match &node.op {
                Op::Permute { order } => Some(layout.permute(order)),
                Op::Broadcast { shape } => Some(layout.broadcast(shape)),
                Op::Slice { starts, sizes, steps } => Some(layout.slice(starts, steps, &Shape::from(&sizes[..]))),
                Op::Reshape { shape } => layout.reshape(shape),
                _ => None,
            };
            match view {
                Some(layout) => Home { buffer, layout },
                None => {
                    let reason = format!(
                        "{} of strides {:?} can't be read as {}",
                        layout.shape,
                        layout.strides,
                        graph.shape(value)
                    );
                    let Home { buffer, .. } = self.dense(operand, reason)?;
                    Home { buffer, layout: Layout::contiguous(graph.shape(value)) }
                }
            }
        };
        self.homes[value.index()] = Some(home.clone());
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
        self.drafts.push(Draft { problem: Box::new(problem), choice, inputs, outputs, covers, in_place: None });
        Ok(())
    }

    /// The step of a unit, and copies of operands that no variant can read where they lie.
    fn unit(&mut self, unit: &Unit) -> Result<()> {
        let mut homes = Vec::with_capacity(unit.inputs.len());
        for (i, &value) in unit.inputs.iter().enumerate() {
            let home = self.home(value)?;
            homes.push(if home.layout.is_contiguous() || unit.kind.takes_strides(i) {
                home
            } else {
                self.dense(value, "its kernel reads a dense tensor".into())?
            });
        }
        let mut layouts: Vec<Layout> = homes.iter().map(|home| home.layout.clone()).collect();
        let mut buffers: Vec<BufferId> = homes.into_iter().map(|home| home.buffer).collect();
        let out = self.order_of(unit);
        let (problem, choice) = loop {
            let problem = problem(self.survey, unit, &layouts, &out)?;
            let error = match select(&*problem, self.profile, self.options) {
                Ok(choice) => break (problem, choice),
                Err(error) => error,
            };
            let Some(i) = layouts.iter().position(|layout| !layout.is_contiguous()) else { return Err(error) };
            let home = self.dense(unit.inputs[i], format!("it is read as it lies by no kernel: {error}"))?;
            (layouts[i], buffers[i]) = (home.layout, home.buffer);
        };
        let mut outputs = Vec::with_capacity(unit.outputs.len());
        for (i, &value) in unit.outputs.iter().enumerate() {
            let layout = if i == 0 { out.clone() } else { Layout::contiguous(self.survey.graph.shape(value)) };
            let buffer = self.temporary(value, stored_shape(&layout));
            self.homes[value.index()] = Some(Home { buffer, layout });
            outputs.push(buffer);
        }
        let mut covers: Vec<String> = unit.computes.iter().flat_map(|&value| self.survey.covers(value)).collect();
        covers.dedup();
        self.drafts.push(Draft { problem, choice, inputs: buffers, outputs, covers, in_place: None });
        Ok(())
    }

    /// How the elements of a unit's first result lie: as the only reader wants them, where the kernel can.
    fn order_of(&mut self, unit: &Unit) -> Layout {
        let graph = self.survey.graph;
        let value = unit.outputs[0];
        let shape = graph.shape(value);
        let dense = Layout::contiguous(shape);
        let (Kind::Attention { .. }, 4) = (&unit.kind, shape.rank()) else { return dense };
        // [B, T, H, D], read as [B, H, T, D].
        let merged = Layout::contiguous(dense.permute(&[0, 2, 1, 3]).shape).permute(&[0, 2, 1, 3]);
        let (mut last, mut views) = (value, [Some(dense.clone()), Some(merged.clone())]);
        while let Ok(reader) = self.survey.sole_reader(last) {
            let node = graph.node(reader);
            let step = |layout: Layout| match &node.op {
                Op::Permute { order } => Some(layout.permute(order)),
                Op::Reshape { shape } => layout.reshape(shape),
                _ => Some(layout),
            };
            if !matches!(node.op, Op::Permute { .. } | Op::Reshape { .. }) {
                break;
            }
            views = views.map(|view| view.and_then(step));
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
        let mut moved = Vec::new();
        for &(state, next) in &states {
            let Home { buffer: old, .. } = self.home(state)?;
            let Home { buffer: new, layout } = self.home(next)?;
            if new == old && layout.is_contiguous() {
                continue;
            }
            let writer = self.drafts.iter().rposition(|draft| draft.outputs[0] == new);
            // What is read when all steps are done: outputs, and what other states become.
            let read_late = graph.outputs().iter().map(|(_, value)| *value).chain(states.iter().map(|(_, next)| *next));
            let whole = layout.is_contiguous()
                && matches!(self.buffers[new.0].role, Role::Temporary(_))
                && self.buffers[new.0].shape == *graph.shape(state)
                && !read_late.into_iter().any(|value| base(graph, value) == state);
            let taken = writer.filter(|_| whole).and_then(|at| {
                let last = self.drafts[at + 1..].iter().all(|draft| !draft.inputs.contains(&old));
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
            if matches!(self.buffers[buffer.0].role, Role::State(_)) {
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
                Role::Input(_) | Role::Parameter(_) | Role::Constant(_) | Role::State(_) => "it is given, not computed",
            };
            let to = self.buffer(name.clone(), graph.dtype(*value), shape, Role::Output(name.clone()));
            self.copy(*value, to)?;
            self.note(*value, format!("into the output `{name}`: {reason}"));
        }
        Ok(())
    }
}

/// The value that a chain of views looks at.
fn base(graph: &Graph, mut value: ValueId) -> ValueId {
    while graph.definition(value).op.is_view() {
        value = graph.definition(value).inputs[0];
    }
    value
}

/// The shape of the dense tensor that a permuted layout lies in.
fn stored_shape(layout: &Layout) -> Shape {
    let mut axes: Vec<(isize, usize)> = layout.strides.iter().copied().zip(layout.shape.iter().copied()).collect();
    if !layout.is_contiguous() {
        axes.sort_by_key(|&(stride, _)| std::cmp::Reverse(stride));
    }
    axes.into_iter().map(|(_, size)| size).collect()
}

/// The problem of a unit whose inputs lie like this, and whose first output like `out`.
fn problem(survey: &Survey<'_>, unit: &Unit, inputs: &[Layout], out: &Layout) -> Result<Box<dyn Problem>> {
    let graph = survey.graph;
    let dtype = |i: usize| graph.dtype(unit.inputs[i]);
    let x = || inputs[0].clone();
    Ok(match &unit.kind {
        Kind::Matmul { transpose_a, transpose_b, packing, epilogue } => {
            let unpacked = packing.map(|packing| Layout::contiguous([inputs[1].shape[0], packing.columns]));
            let b = unpacked.as_ref().unwrap_or(&inputs[1]);
            let first = 2 + packing.map_or(0, |packing| 1 + usize::from(packing.zero));
            let rows = inputs[0].shape.rank() > 1;
            let columns = b.shape.rank() > 1;
            let a = if rows { matrix(&inputs[0], *transpose_a) } else { with_axis(&inputs[0], 0) };
            let b = if columns { matrix(b, *transpose_b) } else { with_axis(b, 1) };
            // Bias and residual with the axes that the product of a vector lacks.
            let mut others = inputs[first..].iter().map(|layout| {
                let mut layout = layout.broadcast(&out.shape);
                if !columns {
                    layout = with_axis(&layout, layout.shape.rank());
                }
                if rows { layout } else { with_axis(&layout, layout.shape.rank() - 1) }
            });
            let epilogue = Epilogue {
                scale: epilogue.scale,
                bias: epilogue.bias.and_then(|_| others.next()),
                activation: epilogue.activation,
                residual: epilogue.residual.and_then(|_| others.next()),
            };
            let mut extra = (first..).map(|i| unit.inputs.get(i).map_or(DType::F32, |&value| graph.dtype(value)));
            let mut other = |layout: &Option<Layout>| layout.as_ref().and_then(|_| extra.next()).unwrap_or(DType::F32);
            let dtypes = MatmulDTypes {
                a: dtype(0),
                b: if packing.is_some() { DType::F32 } else { dtype(1) },
                bias: other(&epilogue.bias),
                residual: other(&epilogue.residual),
                out: graph.dtype(unit.outputs[0]),
            };
            let problem = MatmulProblem::new(&a, &b, epilogue)?.stored_as(dtypes)?;
            match packing {
                None => Box::new(problem),
                Some(packing) => Box::new(problem.quantized(*packing, dtype(2))?),
            }
        }
        Kind::Attention { options, lse, status } => {
            let [q, k, v] = [0, 1, 2].map(|i| inputs[i].clone());
            let mut problem = AttentionProblem::new(options.clone(), q, k, v, inputs[3..].to_vec());
            let bias = options.input_of(AttentionOperand::Bias).map_or(DType::F32, dtype);
            let stored = graph.dtype(unit.outputs[0]);
            problem.dtypes = AttentionDTypes { q: dtype(0), k: dtype(1), v: dtype(2), bias, out: stored };
            problem.out = out.clone();
            (problem.lse, problem.status) = (*lse, *status);
            Box::new(problem)
        }
        Kind::Norm(norm) => {
            let Norm { kind, axes, epsilon, sum, mean, rstd, .. } = *norm;
            let mut problem = NormProblem::new(kind, axes, epsilon, x());
            let row = problem.row_shape();
            let mut others = inputs[1..].iter().zip((1..).map(dtype));
            let [residual, weight, bias] =
                [(norm.residual, &out.shape), (norm.weight, &row), (norm.bias, &row)].map(|(there, shape)| {
                    let (layout, dtype) = there.then(|| others.next()).flatten()?;
                    Some((layout.broadcast(shape), dtype))
                });
            let stored = |operand: &Option<(Layout, DType)>| operand.as_ref().map_or(DType::F32, |&(_, dtype)| dtype);
            problem.dtypes = NormDTypes {
                x: dtype(0),
                residual: stored(&residual),
                weight: stored(&weight),
                bias: stored(&bias),
                sum: if sum { graph.dtype(unit.outputs[1]) } else { DType::F32 },
                y: graph.dtype(unit.outputs[0]),
            };
            [problem.residual, problem.weight, problem.bias] =
                [residual, weight, bias].map(|operand| operand.map(|(layout, _)| layout));
            (problem.sum, problem.mean, problem.rstd) = (sum, mean, rstd);
            Box::new(problem)
        }
        &Kind::Softmax { log, axis, scale } => {
            let dtypes = SoftmaxDTypes { x: dtype(0), y: graph.dtype(unit.outputs[0]) };
            Box::new(SoftmaxProblem { log, scale, dtypes, ..SoftmaxProblem::new(axis, x()) })
        }
        Kind::Reduce { function, axes } => Box::new(ReduceProblem::new(*function, dtype(0), x(), axes.clone())),
        &Kind::Argmax { axis, last } => Box::new(ArgmaxProblem { last, ..ArgmaxProblem::new(dtype(0), x(), axis) }),
        &Kind::Concat { axis } => Box::new(ConcatProblem { dtype: dtype(0), axis, inputs: inputs.to_vec() }),
        Kind::Pad { before, after, value } => Box::new(PadProblem {
            dtype: dtype(0),
            input: x(),
            before: before.clone(),
            after: after.clone(),
            value: *value,
        }),
        &Kind::Dequantize(packing) => {
            Box::new(DequantizeProblem { packing, rows: inputs[0].shape[0], scales: dtype(1) })
        }
        &Kind::Rotary { interleaved } => {
            Box::new(RotaryProblem { x: x(), table: inputs[1].shape.clone(), interleaved })
        }
        &Kind::Append { axis, circular } => {
            let (cache, update) = (inputs[0].shape.clone(), inputs[1].clone());
            Box::new(AppendProblem { dtype: dtype(0), cache, update, axis, table: None, circular, in_place: false })
        }
        Kind::AppendPaged => {
            let (cache, update, table) = (inputs[0].shape.clone(), inputs[1].clone(), Some(inputs[3].shape.clone()));
            Box::new(AppendProblem { dtype: dtype(0), cache, update, axis: 2, table, circular: false, in_place: false })
        }
        &Kind::AttentionMerge { lse } => Box::new(AttentionMergeProblem { outs: inputs[0].shape.clone(), lse }),
        &Kind::Gather { axis } => {
            Box::new(GatherProblem { dtype: dtype(0), data: x(), axis, indices: inputs[1].clone() })
        }
        Kind::Pointwise(body) => {
            let operands = inputs.iter().enumerate().map(|(i, layout)| (dtype(i), layout.broadcast(&out.shape)));
            let result = graph.dtype(unit.outputs[0]);
            Box::new(PointwiseProblem::new(&out.shape, result, operands.collect(), body.clone()))
        }
    })
}

/// A matrix as the product reads it.
fn matrix(layout: &Layout, transposed: bool) -> Layout {
    let mut order: Vec<usize> = (0..layout.shape.rank()).collect();
    if transposed {
        order.swap(layout.shape.rank() - 2, layout.shape.rank() - 1);
    }
    layout.permute(&order)
}

/// A layout with a further axis of size 1.
fn with_axis(layout: &Layout, axis: usize) -> Layout {
    let Layout { shape, mut strides, offset } = layout.clone();
    let mut sizes = shape.to_vec();
    sizes.insert(axis, 1);
    strides.insert(axis, 0);
    Layout { shape: sizes.into(), strides, offset }
}
