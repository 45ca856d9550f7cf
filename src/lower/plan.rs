//! Where temporaries lie: those that are never alive together share memory.

use std::cmp::Reverse;

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
                    && draft.inputs.iter().filter(|&&other| other == input).count() == 1
                    && buffers[input.0].bytes == buffers[output.0].bytes
                    && draft.problem.allows_in_place(i)
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
            if !block.members.contains(&id) {
                block.members.push(id);
            }
        }
    }
    blocks.sort_by_key(|block| (Reverse(block.bytes), block.first));
    // By allocation: its bytes, and when it is taken.
    let mut allocations: Vec<(u64, Vec<(usize, usize)>)> = Vec::new();
    for block in &blocks {
        let free =
            |taken: &[(usize, usize)]| taken.iter().all(|&(first, last)| block.last < first || last < block.first);
        let found = allocations.iter().position(|(_, taken)| share && free(taken));
        let allocation = found.unwrap_or_else(|| {
            allocations.push((block.bytes, Vec::new()));
            allocations.len() - 1
        });
        allocations[allocation].1.push((block.first, block.last));
        block.members.iter().for_each(|id| buffers[id.0].role = Role::Temporary(allocation));
    }
    allocations.into_iter().map(|(bytes, _)| bytes).collect()
}
