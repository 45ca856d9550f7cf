//! Where temporaries lie: those that are never alive together share memory.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{
    Buffer, BufferId, Note, Options, Program, Role, Step, cut,
    place::{Draft, Placed},
};
use crate::{DType, Error, Result, Shape, kernel::Profile};

/// Takes over inputs where kernels may, builds the kernels, and gives each temporary its allocation.
pub(super) fn plan(
    placed: Placed,
    profile: &Profile,
    options: &Options,
    mut notes: Vec<Note>,
    unfused_bytes: u64,
) -> Result<Program> {
    let Placed { mut buffers, mut drafts } = placed;
    let in_place = if options.share_memory { take_over(&buffers, &mut drafts) } else { vec![None; drafts.len()] };
    let mut steps = Vec::with_capacity(drafts.len());
    for (draft, in_place) in drafts.into_iter().zip(in_place) {
        let Draft { problem, choice, inputs, outputs, covers, in_place: settled } = draft;
        let in_place = settled.or(in_place);
        let kernel = problem.kernel(choice.variant, profile)?;
        let mut workspace = Vec::with_capacity(kernel.workspace.len());
        for (i, &bytes) in kernel.workspace.iter().enumerate() {
            let bytes = bytes.next_multiple_of(16).max(16);
            workspace.push(BufferId(buffers.len()));
            buffers.push(Buffer {
                name: format!("{} workspace {i}", covers.last().map_or("", String::as_str)),
                dtype: DType::U32,
                shape: Shape::from([(bytes / 4) as usize]),
                bytes,
                role: Role::Temporary(usize::MAX),
            });
        }
        steps.push(Step {
            family: problem.family(),
            key: choice.key,
            variant: choice.variant,
            reason: choice.reason,
            candidates: choice.candidates,
            summary: problem.summary(),
            covers,
            kernel,
            inputs,
            outputs,
            workspace,
            in_place,
        });
    }
    check_limits(&buffers, profile)?;
    let allocations = allocate(&mut buffers, &steps, options.share_memory);
    cut::cut(&mut steps, profile, options, &mut notes);
    let submissions = cut::submissions(&steps, profile, options);
    let program = Program { buffers, allocations, steps, submissions, notes, unfused_bytes };
    debug_assert!(program.verify().is_ok(), "{:?}", program.verify());
    Ok(program)
}

/// For each step the input whose memory its first output takes: a temporary that no later step reads, read once by this
/// one, of the same size.
fn take_over(buffers: &[Buffer], drafts: &mut [Draft]) -> Vec<Option<usize>> {
    let mut last_reader = vec![None; buffers.len()];
    for (step, draft) in drafts.iter().enumerate() {
        draft.inputs.iter().for_each(|input| last_reader[input.0] = Some(step));
    }
    let is_temporary = |id: BufferId| matches!(buffers[id.0].role, Role::Temporary(_));
    drafts
        .iter_mut()
        .enumerate()
        .map(|(step, draft)| {
            let output = draft.outputs[0];
            if draft.in_place.is_some() {
                return None;
            }
            let input = (0..draft.inputs.len()).find(|&i| {
                let input = draft.inputs[i];
                is_temporary(input)
                    && is_temporary(output)
                    && last_reader[input.0] == Some(step)
                    && buffers[input.0].bytes == buffers[output.0].bytes
                    && draft.problem.allows_in_place(i)
                    && draft.inputs.iter().filter(|&&other| other == input).count() == 1
            })?;
            draft.problem.set_in_place(input);
            Some(input)
        })
        .collect()
}

/// An error if a buffer is larger than the device can have or bind.
fn check_limits(buffers: &[Buffer], profile: &Profile) -> Result<()> {
    let limits = &profile.limits;
    let limits = [(limits.binding_bytes, "max_storage_buffer_binding_size"), (limits.buffer_bytes, "max_buffer_size")];
    for buffer in buffers {
        // Not that of a tensor: a workspace may be larger.
        buffer.shape.checked_elements(&buffer.name)?;
        if let Some((limit, name)) = limits.into_iter().find(|(limit, _)| buffer.bytes > *limit) {
            return Err(Error::Limit {
                what: format!(
                    "`{}` {} {}: bytes ({name} of {})",
                    buffer.name, buffer.dtype, buffer.shape, profile.adapter
                ),
                value: buffer.bytes,
                limit,
                hint: "split the tensor, or use a device with a higher limit".into(),
            });
        }
    }
    Ok(())
}

/// Temporaries that take each other over, and the steps from the first that writes to the last that reads them.
struct Block {
    bytes: u64,
    first: usize,
    last: usize,
    members: Vec<BufferId>,
}

/// Gives every temporary an allocation, the largest first, each the first that is free as long as it lives. Two operands
/// of one step are alive together.
fn allocate(buffers: &mut [Buffer], steps: &[Step], share: bool) -> Vec<u64> {
    let mut block_of: Vec<Option<usize>> = vec![None; buffers.len()];
    let mut is_member = vec![false; buffers.len()];
    let mut blocks: Vec<Block> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        if let Some(input) = step.in_place {
            block_of[step.outputs[0].0] = block_of[step.inputs[input].0];
        }
        for &id in step.inputs.iter().chain(&step.outputs).chain(&step.workspace) {
            let Buffer { bytes, role: Role::Temporary(_), .. } = buffers[id.0] else { continue };
            let block = *block_of[id.0].get_or_insert_with(|| {
                blocks.push(Block { bytes, first: at, last: at, members: Vec::new() });
                blocks.len() - 1
            });
            let block = &mut blocks[block];
            block.last = at;
            if !std::mem::replace(&mut is_member[id.0], true) {
                block.members.push(id);
            }
        }
    }
    blocks.sort_by_key(|block| (Reverse(block.bytes), block.first));
    let mut crowds = Crowds::new(&blocks, steps.len());
    // By allocation: its bytes, and when it is taken: the last step by the first.
    let mut allocations: Vec<(u64, BTreeMap<usize, usize>)> = Vec::new();
    for block in &blocks {
        let free = |taken: &BTreeMap<usize, usize>| {
            taken.range(..=block.last).next_back().is_none_or(|(_, &last)| last < block.first)
        };
        let from = if share { crowds.least(block) } else { allocations.len() };
        let found = allocations[from..].iter().position(|(_, taken)| free(taken)).map(|at| from + at);
        let allocation = found.unwrap_or_else(|| {
            allocations.push((block.bytes, BTreeMap::new()));
            allocations.len() - 1
        });
        allocations[allocation].1.insert(block.first, block.last);
        crowds.take(block, allocation);
        block.members.iter().for_each(|id| buffers[id.0].role = Role::Temporary(allocation));
    }
    allocations.into_iter().map(|(bytes, _)| bytes).collect()
}

/// The busiest step of each part of a program, and the allocations that are taken there. Who is alive at one of them need not
/// ask the allocations below the first that is free there: without that, thousands of temporaries that live together would
/// each ask all others.
struct Crowds {
    steps: Vec<Crowd>,
}

struct Crowd {
    step: usize,
    taken: Vec<bool>,
    /// The first allocation that is free.
    free: usize,
}

impl Crowds {
    const PARTS: usize = 64;

    fn new(blocks: &[Block], steps: usize) -> Self {
        // How many more are alive at a step than at the one before.
        let mut change = vec![0isize; steps + 1];
        for block in blocks {
            change[block.first] += 1;
            change[block.last + 1] -= 1;
        }
        let alive = change.iter().scan(0, |alive, change| {
            *alive += change;
            Some(*alive)
        });
        let alive: Vec<isize> = alive.take(steps).collect();
        let part = steps.div_ceil(Self::PARTS).max(1);
        let busiest = alive.chunks(part).enumerate().filter_map(|(i, alive)| {
            let (at, _) = alive.iter().enumerate().max_by_key(|(_, alive)| **alive)?;
            Some(Crowd { step: i * part + at, taken: Vec::new(), free: 0 })
        });
        Crowds { steps: busiest.collect() }
    }

    /// The allocations below this one are taken while the block is alive.
    fn least(&self, block: &Block) -> usize {
        let met = self.steps.iter().filter(|crowd| (block.first..=block.last).contains(&crowd.step));
        met.map(|crowd| crowd.free).max().unwrap_or(0)
    }

    /// The block lies in this allocation.
    fn take(&mut self, block: &Block, allocation: usize) {
        for crowd in self.steps.iter_mut().filter(|crowd| (block.first..=block.last).contains(&crowd.step)) {
            if crowd.taken.len() <= allocation {
                crowd.taken.resize(allocation + 1, false);
            }
            crowd.taken[allocation] = true;
            while crowd.taken.get(crowd.free) == Some(&true) {
                crowd.free += 1;
            }
        }
    }
}
