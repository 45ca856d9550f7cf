//! The launch before the others: clean records of batch items or packed sequences, from lengths and offsets that live in
//! buffers.

use super::{
    setup::{RECORD, Setup, distinct},
    sizes::window,
};
use crate::{
    Result,
    graph::{Align, AttentionOperand as A},
    kernel::{Binding, Kernel, Launch, Operand, Specialization, buffer_bytes},
    tensor::DType,
};

/// What the variants need before their own launches: scratch 0 with the records, if lengths or offsets come from buffers,
/// and the status, if it is asked for.
pub(super) fn begin(setup: &Setup<'_>) -> Result<Kernel> {
    let mut kernel = Kernel { launches: Vec::new(), scratch: Vec::new() };
    let problem = setup.problem;
    if !setup.has_items() && !problem.status {
        return Ok(kernel);
    }
    let slopes = if setup.has(A::Slopes) { setup.sizes.heads } else { 0 };
    kernel.scratch.push(buffer_bytes(DType::I32, setup.records() * RECORD + slopes));

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
        .region("SLOPES", setup.has(A::Slopes))
        .region("BOTTOM_RIGHT", problem.options.align == Align::BottomRight)
        .region("STATUS", status.is_some())
        .source()?;
    let lengths = [A::KeyLengths, A::QueryLengths, A::Offsets, A::QueryOffsets, A::KeyOffsets];
    let operands = [&lengths[..], &[A::Slopes]].concat();
    let table = checks_pages.then_some(A::BlockTable);
    let read = lengths.into_iter().chain(table).chain([A::Slopes]);
    let mut bindings: Vec<Binding> = read.filter_map(|operand| setup.input(operand)).map(Binding::read).collect();
    bindings.push(Binding::write(Operand::Scratch(0)));
    bindings.extend(status.map(Binding::write));

    let range = setup.sizes.range(problem);
    let (left, right) = window(problem);
    let mut params = vec![
        setup.sizes.items as u32,
        setup.sizes.heads as u32,
        setup.sizes.rows as u32,
        setup.sizes.keys as u32,
        setup.sizes.key_limit as u32,
        range.offset as u32,
        left.unwrap_or(0) as u32,
        right.unwrap_or(0) as u32,
        u32::from(left.is_none()),
        u32::from(right.is_none()),
    ];
    for &operand in &operands {
        let layout = problem.operand(operand);
        params.push(layout.map_or(0, |layout| layout.offset as u32));
        params.push(layout.map_or(0, |layout| layout.strides[0] as u32));
    }
    params.push((setup.records() * RECORD) as u32);
    params.extend(setup.table());

    let words = operands.iter().filter_map(|&operand| problem.operand(operand)).map(distinct).sum::<u64>();
    kernel.launches.push(Launch {
        label: "records".into(),
        source,
        bindings,
        params,
        grid: [1, 1, 1],
        flops: 0,
        exponentials: 0,
        bytes: 4 * words + kernel.scratch[0],
    });
    Ok(kernel)
}
