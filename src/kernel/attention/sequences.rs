//! The launch before the others: clean records of batch items or packed sequences, from lengths and offsets that live in
//! buffers.

use super::{
    setup::{RECORD, Setup, distinct},
    sizes::window,
};
use crate::{
    Result,
    graph::{Align, AttentionOperand as A},
    kernel::{Binding, Kernel, Launch, Operand, Parameters, Specialization, buffer_bytes},
    tensor::DType,
};

/// What the variants need before their own launches: workspace 0 with the records, if lengths or offsets come from buffers,
/// and the status, if it is asked for.
pub(super) fn begin(setup: &Setup<'_>) -> Result<Kernel> {
    let mut kernel = Kernel { launches: Vec::new(), workspace: Vec::new() };
    let problem = setup.problem;
    if !setup.gathers() && !problem.status {
        return Ok(kernel);
    }
    let numbers: Vec<A> = setup.per_head().map(|operand| operand.kind).collect();
    let beside = setup.beside.map_or(0, |beside| beside.words);
    kernel.workspace.push(buffer_bytes(DType::I32, setup.gathered() + beside));

    let status = problem.status.then_some(Operand::Output(1 + usize::from(problem.lse)));
    // The block table is looked at only to report on it.
    let checks_pages = problem.status && setup.sizes.pages.is_some();
    let source = Specialization::new("attention::sequences")
        .region("KEY_LENGTHS", setup.has(A::KeyLengths))
        .region("QUERY_LENGTHS", setup.has(A::QueryLengths))
        .region("OFFSETS", setup.has(A::Offsets))
        .region("PACKED", setup.sizes.packed)
        .region("PACKED_KEYS", setup.has(A::KeyOffsets))
        .region("CHECK_PAGES", checks_pages)
        .region("PER_HEAD", !numbers.is_empty())
        .value("PER_HEAD_OPERANDS", numbers.len())
        .region("BOTTOM_RIGHT", problem.options.align == Align::BottomRight)
        .region("STATUS", status.is_some())
        .source()?;
    // Each with its parameters.
    let lengths = [
        (A::KeyLengths, "key_lengths_offset", "key_lengths_step"),
        (A::QueryLengths, "query_lengths_offset", "query_lengths_step"),
        (A::Offsets, "offsets_offset", "offsets_step"),
        (A::QueryOffsets, "query_offsets_offset", "query_offsets_step"),
        (A::KeyOffsets, "key_offsets_offset", "key_offsets_step"),
    ];
    let table = setup.table().filter(|_| checks_pages);
    let read = lengths.into_iter().map(|(operand, ..)| operand);
    let read = read.chain(table.map(|_| A::BlockTable)).chain(numbers.iter().copied());
    let mut bindings: Vec<Binding> = read.filter_map(|operand| setup.input(operand)).map(Binding::read).collect();
    bindings.push(Binding::write(Operand::Workspace(0)));
    bindings.extend(status.map(Binding::write));

    let range = setup.sizes.range(problem);
    let (left, right) = window(problem);
    let mut parameters = Parameters::new()
        .set("items", setup.sizes.items)
        .set("q_rows", setup.sizes.rows as i32)
        .set("k_rows", setup.sizes.keys as i32)
        .set("k_limit", setup.sizes.key_limit as i32)
        .set("offset", range.offset)
        .set("left", left.unwrap_or(0) as i32)
        .set("right", right.unwrap_or(0) as i32)
        .set("open_left", left.is_none())
        .set("open_right", right.is_none())
        .set("numbers_at", setup.records() * RECORD)
        .set("heads", setup.sizes.heads);
    let mut words = 0;
    let lengths = lengths.map(|(operand, offset, step)| (operand, offset.to_string(), step.to_string()));
    let numbers = numbers.into_iter().enumerate();
    let numbers = numbers.map(|(n, kind)| (kind, format!("numbers_offset_n{n}"), format!("numbers_step_n{n}")));
    for (operand, offset, step) in lengths.into_iter().chain(numbers) {
        if let Some(layout) = problem.operand(operand) {
            parameters = parameters.set(offset, layout.offset).set(step, layout.strides[0]);
            words += distinct(layout);
        }
    }
    if let Some(table) = table {
        parameters = parameters.and(table.parameters()).set("page_rows", table.page_rows);
    }

    kernel.launches.push(Launch {
        label: "records".into(),
        params: source.words(&parameters)?,
        source,
        bindings,
        grid: [1, 1, 1],
        flops: 0,
        exponentials: 0,
        bytes: 4 * words + kernel.workspace[0],
    });
    Ok(kernel)
}
