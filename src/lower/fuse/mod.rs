//! Graph → units: which nodes share a kernel.
//!
//! A value inside a unit is never in memory, so it has one reader and is no output; all that a unit reads is computed by
//! units before it.

mod rows;

use std::collections::BTreeSet;

use super::{Note, Options, pattern::scaled, survey::Survey};
use crate::{
    DType, Graph, Shape, ValueId,
    graph::{Binary, Node, NodeId, Op, Unary},
    kernel::{Arg, Instr, Lowering, MatmulProblem, PointwiseProblem, ProblemOf, Product, Profile, problem_of},
    quantize::Packing,
};

/// Nodes that are one kernel, and what it reads and writes.
pub(super) struct Unit<'a> {
    /// Makes the kernel's problem of the inputs and outputs.
    pub(super) problem: ProblemOf<'a>,
    /// In the order of the problem.
    pub(super) inputs: Vec<ValueId>,
    /// In the order of the problem, which may leave out those that are not used.
    pub(super) outputs: Vec<ValueId>,
    /// The values that it computes, in order.
    pub(super) computes: Vec<ValueId>,
    /// The node of the graph where it stands: everything it reads is computed before.
    at: NodeId,
}

/// `activation(scale · product + bias) + residual`; bias and residual are inputs after the two factors.
#[derive(Clone, Copy, Debug, Default)]
struct Epilogue {
    scale: Option<f32>,
    bias: Option<ValueId>,
    activation: Option<Unary>,
    residual: Option<ValueId>,
    /// Whether the graph rounds the result to a narrower dtype at the end.
    rounded: bool,
}

/// Every computing node in exactly one unit, in an order of execution.
pub(super) fn fuse<'a>(
    survey: &'a Survey<'_>,
    profile: &Profile,
    options: &Options,
    notes: &mut Vec<Note>,
) -> Vec<Unit<'a>> {
    let nodes = survey.graph.nodes().len();
    let mut fusion = Fusion {
        survey,
        fuse: options.fuse,
        taken: vec![false; nodes],
        bypassed: vec![0; nodes],
        units: Vec::new(),
        notes,
    };
    for i in 0..nodes {
        fusion.matmul(NodeId(i as u32));
    }
    for i in 0..nodes {
        fusion.single(NodeId(i as u32));
    }
    fusion.pointwise((profile.limits.storage_buffers as usize).saturating_sub(1).min(PointwiseProblem::MAX_OPERANDS));
    let mut units = fusion.units;
    units.sort_unstable_by_key(|unit| unit.at);
    units
}

struct Fusion<'a, 'n> {
    survey: &'a Survey<'a>,
    fuse: bool,
    /// By node: it is in a unit.
    taken: Vec<bool>,
    /// By node: how many of its readers read its operand instead.
    bypassed: Vec<usize>,
    units: Vec<Unit<'a>>,
    notes: &'n mut Vec<Note>,
}

impl Fusion<'_, '_> {
    fn note(&mut self, rule: &'static str, value: ValueId, applied: bool, reason: String) {
        self.notes.push(Note { rule, value: self.survey.label(value), applied, reason });
    }

    /// A matmul and the chain of pointwise functions after it, as far as the kernel's epilogue has them in that order.
    fn matmul(&mut self, id: NodeId) {
        const RULE: &str = RULE_MATMUL;
        let graph = self.survey.graph;
        let node = graph.node(id);
        let Lowering::Matmul(mut product) = Lowering::of(&node.op) else { return };
        self.taken[id.index()] = true;
        let (mut epilogue, mut at) = (Epilogue::default(), id);
        let mut computes = vec![node.outputs[0]];
        while let (true, Some(&last)) = (self.fuse, computes.last()) {
            // Who would come next, if it alone read the value.
            let readers = self.survey.readers(last).iter().filter(|reader| !self.taken[reader.index()]);
            let Some((reader, extended)) = readers
                .into_iter()
                .find_map(|&reader| Some((reader, epilogue.extended(graph, last, graph.node(reader))?)))
            else {
                break;
            };
            if let Err(reason) = self.survey.sole_reader(last) {
                let then = graph.node(reader).op.name();
                self.note(RULE, last, false, format!("{reason}; it is written to memory, and {then} is a kernel"));
                break;
            }
            self.taken[reader.index()] = true;
            (epilogue, at) = (extended, reader);
            computes.push(graph.node(reader).outputs[0]);
        }
        let result = computes[computes.len() - 1];
        // Where nothing comes between, a bias as large as the result is a residual.
        let large = |bias: ValueId| graph.shape(bias) == graph.shape(result) && graph.shape(bias).rank() > 1;
        if epilogue.activation.is_none() && epilogue.residual.is_none() {
            epilogue.residual = epilogue.bias.take_if(|bias| large(*bias));
        }
        if computes.len() > 1 {
            let parts = [
                epilogue.scale.map(|scale| format!("scale {scale}")),
                epilogue.bias.map(|bias| format!("bias {}", self.survey.quote(bias))),
                epilogue.activation.map(|activation| activation.name().to_string()),
                epilogue.residual.map(|residual| format!("residual {}", self.survey.quote(residual))),
                (graph.dtype(result) != graph.dtype(node.outputs[0]))
                    .then(|| format!("conversion to {}", graph.dtype(result))),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            self.note(RULE, result, true, format!("{} on the product before it is written", parts.join(", ")));
        }
        let mut inputs = node.inputs.clone();
        inputs.extend([epilogue.bias, epilogue.residual].into_iter().flatten());
        if self.fuse {
            inputs.iter_mut().for_each(|input| self.read_narrow(RULE, input, result));
            product.packing = self.read_packed(&mut inputs, product.transpose_b, result);
        }
        let Epilogue { scale, bias, activation, residual, .. } = epilogue;
        let product = Product { scale, bias: bias.is_some(), activation, residual: residual.is_some(), ..product };
        let problem = problem_of(move |operands| MatmulProblem::of(product, operands));
        self.units.push(Unit { problem, inputs, outputs: vec![result], computes, at });
    }

    /// Lets the unit that computes `result` read f16 or bf16 where the graph converts them to f32 for it.
    fn read_narrow(&mut self, rule: &'static str, input: &mut ValueId, result: ValueId) {
        let graph = self.survey.graph;
        let cast = graph.value(*input).node;
        let node = graph.node(cast);
        let (Op::Cast { dtype: DType::F32 }, &[narrow]) = (&node.op, &node.inputs[..]) else { return };
        let dtype = graph.dtype(narrow);
        if self.fuse && dtype.is_narrow() && !self.taken[cast.index()] {
            *input = narrow;
            self.bypassed[cast.index()] += 1;
            let reason = format!("reads {} as {dtype} and widens it itself", self.survey.quote(narrow));
            self.note(rule, result, true, reason);
        }
    }

    /// Lets the unit that computes `result` write it in f16 or bf16, if all that the graph does with it is to round it to
    /// that: what it writes.
    fn write_narrow(&mut self, rule: &'static str, result: ValueId) -> ValueId {
        let graph = self.survey.graph;
        let Ok(reader) = self.survey.sole_reader(result) else { return result };
        let Op::Cast { dtype } = graph.node(reader).op else { return result };
        if !self.fuse || !dtype.is_narrow() || graph.dtype(result) != DType::F32 || self.taken[reader.index()] {
            return result;
        }
        self.taken[reader.index()] = true;
        let rounded = graph.node(reader).outputs[0];
        self.note(rule, rounded, true, format!("writes {} as {dtype}", self.survey.quote(result)));
        rounded
    }

    /// Lets the matmul that computes `result` read a transposed b in few bits.
    fn read_packed(&mut self, inputs: &mut Vec<ValueId>, transpose_b: bool, result: ValueId) -> Option<Packing> {
        let graph = self.survey.graph;
        let id = graph.value(inputs[1]).node;
        let node = graph.node(id);
        let Op::Dequantize(packing) = node.op else { return None };
        if !transpose_b {
            return None;
        }
        self.bypassed[id.index()] += 1;
        let words = self.survey.quote(node.inputs[0]);
        inputs.splice(1..2, node.inputs.iter().copied());
        self.note(RULE_MATMUL, result, true, format!("reads {words} as {packing} and widens it itself"));
        Some(packing)
    }

    /// Whether every reader of a node's result reads its operand instead.
    fn is_bypassed(&self, id: NodeId) -> bool {
        let result = self.survey.graph.node(id).outputs[0];
        let times = self.bypassed[id.index()];
        times > 0 && times == self.survey.readers(result).len() && !self.survey.leaves(result)
    }

    /// A node whose kernel takes at most what stands directly before it.
    fn single(&mut self, id: NodeId) {
        let node = self.survey.graph.node(id);
        if self.taken[id.index()] || self.is_bypassed(id) {
            return;
        }
        match Lowering::of(&node.op) {
            Lowering::Norm(norm) => self.norm(id, norm),
            Lowering::Softmax(softmax) => self.softmax(id, softmax),
            Lowering::Kernel(problem) => {
                self.taken[id.index()] = true;
                let (inputs, outputs) = (node.inputs.clone(), node.outputs.clone());
                self.units.push(Unit { problem, inputs, outputs, computes: vec![node.outputs[0]], at: id });
            }
            // Products and chains are looked for by themselves.
            Lowering::Source | Lowering::View(_) | Lowering::Matmul(_) | Lowering::Pointwise(_) => {}
        }
    }

    /// The pointwise functions that are left, from the last to the first: each joins the chain that alone reads it.
    fn pointwise(&mut self, operands: usize) {
        let graph = self.survey.graph;
        let mut chains: Vec<Chain<'_>> = Vec::new();
        let mut chain_of: Vec<Option<usize>> = vec![None; graph.nodes().len()];
        for (i, node) in graph.nodes().iter().enumerate().rev() {
            let Lowering::Pointwise(instr) = Lowering::of(&node.op) else { continue };
            if self.taken[i] || self.is_bypassed(NodeId(i as u32)) {
                continue;
            }
            let result = node.outputs[0];
            let reads = reads(node).filter(|read| graph.uniform(read.value).is_none());
            let reads: BTreeSet<Read> = reads.collect();
            let joined = self.fuse.then(|| self.chain_for((result, instr), &reads, &chains, &chain_of, operands));
            let place = match joined {
                Some(Ok(chain)) => {
                    chains[chain].reads.remove(&Read { value: result, whole: false });
                    chains[chain].reads.extend(reads);
                    chain
                }
                other => {
                    if let Some(Err(Some(reason))) = other {
                        self.note(RULE_POINTWISE, result, false, reason);
                    }
                    chains.push(Chain { nodes: Vec::new(), reads, shape: graph.shape(result) });
                    chains.len() - 1
                }
            };
            chains[place].nodes.push((NodeId(i as u32), instr));
            chain_of[i] = Some(place);
        }
        for chain in chains.into_iter().rev() {
            self.chain(chain);
        }
    }

    /// The chain that a pointwise result can join; otherwise why not, if there is something to say.
    fn chain_for(
        &self,
        (result, instr): (ValueId, Instr),
        reads: &BTreeSet<Read>,
        chains: &[Chain<'_>],
        chain_of: &[Option<usize>],
        operands: usize,
    ) -> Result<usize, Option<String>> {
        let survey = self.survey;
        let readers = survey.readers(result);
        let mut wanted = readers.iter().filter_map(|reader| chain_of[reader.index()]);
        let first = wanted.next().ok_or(None)?;
        let all = readers.iter().all(|reader| chain_of[reader.index()] == Some(first));
        if survey.leaves(result) || !all {
            // Either it is an output, or the readers are several: one alone would be the chain's.
            return Err(Some(survey.sole_reader(result).err().unwrap_or_default()));
        }
        if readers.iter().any(|reader| self.bypassed[reader.index()] > 0) {
            return Err(Some(format!("{} is read by a kernel that widens it itself", survey.quote(result))));
        }
        let whole = Read { value: result, whole: true };
        if readers.iter().any(|reader| self::reads(survey.graph.node(*reader)).any(|read| read == whole)) {
            return Err(Some(format!("all of {} is read for each element, as a seed", survey.quote(result))));
        }
        let (chain, shape) = (&chains[first], survey.graph.shape(result));
        if chain.shape != shape && !is_cheap(instr) {
            return Err(Some(format!(
                "{} {shape} would be computed anew for each element of {}",
                survey.quote(result),
                chain.shape
            )));
        }
        if chain.nodes.iter().map(|(_, instr)| length(*instr)).sum::<usize>() + length(instr) > LONGEST {
            return Err(Some(format!(
                "the kernel computes {LONGEST} functions already, or as much, and longer ones compile slowly"
            )));
        }
        let count = chain.reads.union(reads).filter(|read| read.value != result).count();
        if count > operands {
            return Err(Some(format!("the kernel would read {count} tensors, it can read {operands}")));
        }
        Ok(first)
    }

    /// The unit of a chain.
    fn chain(&mut self, chain: Chain<'_>) {
        let graph = self.survey.graph;
        let mut nodes = chain.nodes;
        nodes.reverse();
        let mut inputs: Vec<Read> = Vec::new();
        let mut read = |read: Read| {
            let Read { value, .. } = read;
            if let Ok(instr) = nodes.binary_search_by_key(&graph.value(value).node, |(id, _)| *id) {
                return Arg::Instr(instr);
            }
            if let Some(number) = graph.uniform(value) {
                return Arg::Scalar(graph.dtype(value), number);
            }
            let known = inputs.iter().position(|&input| input == read);
            Arg::Operand(known.unwrap_or_else(|| {
                inputs.push(read);
                inputs.len() - 1
            }))
        };
        let body = nodes.iter().map(|&(id, instr)| {
            let operands: Vec<Read> = reads(graph.node(id)).collect();
            instr.over(|arg| match arg {
                Arg::Operand(i) => read(operands[i]),
                Arg::Instr(_) | Arg::Scalar(..) => arg,
            })
        });
        let body: Vec<Instr> = body.collect();
        let computes: Vec<ValueId> = nodes.iter().map(|(id, _)| graph.node(*id).outputs[0]).collect();
        let (Some(&(at, _)), Some(&result)) = (nodes.last(), computes.last()) else { return };
        if nodes.len() > 1 {
            let names: Vec<&str> = nodes.iter().map(|(id, _)| graph.node(*id).op.name()).collect();
            self.note(RULE_POINTWISE, result, true, format!("{} in one kernel", names.join(", ")));
        }
        let inputs = inputs.into_iter().map(|read| read.value).collect();
        let problem = problem_of(move |operands| PointwiseProblem::of(&body, operands));
        self.units.push(Unit { problem, inputs, outputs: vec![result], computes, at });
    }
}

const RULE_MATMUL: &str = "fuse into matmul";
const RULE_POINTWISE: &str = "fuse pointwise";

/// Functions in one kernel. Compilers of drivers take more than proportional time for long functions.
const LONGEST: usize = 256;

/// As how many functions one counts.
fn length(instr: Instr) -> usize {
    match instr {
        Instr::Unary(..) | Instr::Binary(..) | Instr::Where(..) | Instr::Cast(..) => 1,
        // Ten rounds, each of four products of halves, twice.
        Instr::Dropout(..) => 32,
    }
}

/// Pointwise nodes that are to be one kernel.
struct Chain<'a> {
    /// From the last to the first, each with its function of its operands.
    nodes: Vec<(NodeId, Instr)>,
    /// The tensors that they read from memory.
    reads: BTreeSet<Read>,
    shape: &'a Shape,
}

/// A tensor that a pointwise function reads: its element at the function's place or, of a seed, all of it. One tensor can be both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Read {
    value: ValueId,
    whole: bool,
}

/// What a pointwise node reads, in order.
fn reads(node: &Node) -> impl Iterator<Item = Read> {
    let seed = matches!(node.op, Op::Dropout { .. }).then_some(1);
    node.inputs.iter().enumerate().map(move |(i, &value)| Read { value, whole: seed == Some(i) })
}

/// Whether to compute a pointwise function again for each element that it is stretched to costs less than to store it.
fn is_cheap(instr: Instr) -> bool {
    match instr {
        // What devices compute exactly is an instruction or two.
        Instr::Unary(function, _) => function.is_exact(),
        Instr::Binary(function, ..) => function.is_exact(),
        Instr::Where(..) | Instr::Cast(..) => true,
        Instr::Dropout(..) => false,
    }
}

impl Epilogue {
    /// The epilogue with a node that reads its result so far, if that is what comes next in one.
    fn extended(mut self, graph: &Graph, result: ValueId, node: &Node) -> Option<Self> {
        // A larger operand would stretch the product.
        let same = graph.shape(node.outputs[0]) == graph.shape(result);
        if !same || self.rounded {
            return None;
        }
        match (&node.op, &node.inputs[..]) {
            // What is rounded can't be taken up again; f32 is what the epilogue is in.
            (Op::Cast { dtype }, _) if dtype.is_float() => self.rounded = *dtype != DType::F32,
            _ if self.residual.is_some() => return None,
            (Op::Binary { function: Binary::Add }, &[a, b]) => {
                let other = if a == result { b } else { a };
                let slot =
                    if self.bias.is_none() && self.activation.is_none() { &mut self.bias } else { &mut self.residual };
                *slot = Some(other);
            }
            (Op::Binary { function: Binary::Mul | Binary::Div }, _) => {
                let first = self.scale.is_none() && self.bias.is_none() && self.activation.is_none();
                let (_, factor) = scaled(graph, node).filter(|&(x, _)| first && x == result)?;
                self.scale = Some(factor as f32);
            }
            (Op::Unary { function }, _) if self.activation.is_none() => self.activation = Some(*function),
            _ => return None,
        }
        Some(self)
    }
}
