//! Floor 3: from a graph to a [`Program`]. Pure functions; nothing here names wgpu.
//!
//! [`lower`] works in passes; each adds its decisions to [`Program::notes`], which begin with masks that may be meant otherwise:
//!
//! 1. *Rewrite* (graph → graph): operations without effect are removed; attention, activations and causal masks that are
//!    written out become one operation; f16 and bf16 operands of kernels that read only f32 are converted.
//! 2. *Fuse* (graph → kernel problems): a matmul takes the bias, activation and residual after it, and the conversions of its
//!    operands and its result; a norm the addition before it; a softmax its scale; chains of pointwise functions become one.
//! 3. *Place*: reshape, permute, slice and broadcast become strides over the operand's buffer; where a kernel or a reshape
//!    can't do that, a copy is made.
//! 4. *Select* a variant of each kernel for the device.
//! 5. *Plan*: temporaries that are never alive together share memory, and kernels that may work in place do.
//! 6. *Cut*: a dispatch that might take so long that the driver's watchdog ends it becomes several, and so does the submission
//!    that a run is. Both go by the device's [rates](crate::kernel::Rates) and the [options](Options::longest_dispatch).
//!
//! ```
//! use tilewise::{DType, Graph, kernel::Profile, lower::{self, Options}};
//! let mut g = Graph::new();
//! let x = g.input("x", DType::F32, [8, 64])?;
//! let w = g.parameter("w", DType::F32, [32, 64])?;
//! let b = g.parameter("b", DType::F32, [32])?;
//! let y = g.linear(x, w, Some(b))?;
//! let y = g.gelu(y)?;
//! g.output("y", y)?;
//! let program = lower::lower(&g, &Profile::portable(), &Options::default())?;
//! assert_eq!(program.steps.len(), 1);
//! assert_eq!(program.steps[0].summary, "M=8 N=32 K=64 +bias +gelu");
//! # Ok::<(), tilewise::Error>(())
//! ```

mod choices;
mod cut;
mod explain;
mod fuse;
mod options;
#[allow(clippy::wildcard_enum_match_arm, reason = "rules look for some operations among all")]
mod pattern;
mod place;
mod plan;
mod program;
mod remarks;
#[allow(clippy::wildcard_enum_match_arm, reason = "rules look for some operations among all")]
mod rewrite;
mod select;
mod survey;

pub use choices::Choices;
pub(crate) use cut::parts;
pub use options::Options;
pub use program::{Buffer, BufferId, Note, Program, Role, Start, Step};

use crate::{Graph, Result, kernel::Profile};

/// Lowers a graph for a device. Takes microseconds a node and compiles nothing: a graph with other shapes is lowered anew,
/// and its kernels are the ones that are compiled already.
///
/// # Errors
/// - [`Error::Graph`](crate::Error::Graph) if the graph breaks a rule;
/// - [`Error::NoVariant`](crate::Error::NoVariant) if no kernel can do an operation on this device, with the reasons;
/// - [`Error::Limit`](crate::Error::Limit) if a tensor is larger than the device can bind;
/// - [`Error::Op`](crate::Error::Op) if a forced family or variant is unknown or can't run.
pub fn lower(graph: &Graph, profile: &Profile, options: &Options) -> Result<Program> {
    graph.verify()?;
    check_names(graph)?;
    select::check(options)?;
    let work = rewrite::rewrite(graph, profile, options)?;
    let survey = survey::Survey::new(&work.graph, graph, &work.origins, None);
    let mut notes = remarks::remarks(graph);
    notes.extend(work.notes);
    let units = fuse::fuse(&survey, profile, options, &mut notes);
    let placed = place::place(&survey, profile, options, &units, &mut notes)?;
    plan::plan(placed, profile, options, notes, unfused_bytes(graph))
}

/// An error if an output has the name of an input, state or parameter: all are bound by name.
fn check_names(graph: &Graph) -> Result<()> {
    let given = |name: &str| graph.find(name).is_some_and(|value| graph.definition(value).op.is_source());
    match graph.outputs().iter().find(|(name, _)| given(name)) {
        None => Ok(()),
        Some((name, _)) => Err(crate::Error::Graph(format!(
            "the output `{name}` has the name of an input, state or parameter; a program tells them by name, so give it another"
        ))),
    }
}

/// Bytes of the intermediate values of a graph: what is computed and used, but neither a view nor an output.
fn unfused_bytes(graph: &Graph) -> u64 {
    let mut inside: Vec<bool> = graph.users().iter().map(|users| !users.is_empty()).collect();
    graph.outputs().iter().for_each(|(_, value)| inside[value.index()] = false);
    let computed = |value: &crate::graph::Value| {
        let op = &graph.node(value.node).op;
        !op.is_source() && !op.is_view()
    };
    let intermediates = graph.values().iter().zip(inside).filter(|(value, inside)| *inside && computed(value));
    intermediates.fold(0, |sum, (value, _)| sum.saturating_add(value_bytes(value)))
}

fn value_bytes(value: &crate::graph::Value) -> u64 {
    crate::kernel::buffer_bytes(value.dtype, value.shape.elements().unwrap_or(usize::MAX))
}
