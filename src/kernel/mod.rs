//! Floor 2: what the GPU kernels are, as data. Nothing here names wgpu.
//!
//! A kernel *family* is a file or folder here, with its twins `shaders/x/`, `src/reference/x.rs` and `tests/device/x.rs`. Its
//! `Problem` (sizes, layouts, options) says which *variants* can run on a device and why, and turns one of
//! them into a [`Kernel`]: specialised WGSL, bindings in order, parameters, and a grid of workgroups.

mod access;
mod activation;
mod append;
mod argmax;
mod attention;
mod blocks;
mod ceiling;
mod copy;
mod cross_entropy;
mod dequantize;
mod family;
mod gather;
mod lowering;
mod matmul;
mod norm;
mod operands;
mod pieces;
mod pointwise;
mod profile;
mod quirks;
mod reduce;
mod rotary;
mod rows;
mod scatter_add;
mod softmax;
mod specialize;
mod variant;

use std::{fmt, sync::Arc};

pub use activation::unary_wgsl;
pub use append::AppendProblem;
pub use argmax::ArgmaxProblem;
pub use attention::{AttentionDTypes, AttentionGradProblem, AttentionMergeProblem, AttentionProblem};
pub use ceiling::{Arithmetic, CeilingProblem};
pub use copy::{ConcatProblem, CopyProblem, PadProblem};
pub use cross_entropy::CrossEntropyProblem;
pub use dequantize::DequantizeProblem;
pub use family::FAMILIES;
pub(crate) use family::Family;
pub use gather::GatherProblem;
pub(crate) use lowering::{Lowering, ProblemOf, problem_of};
pub(crate) use matmul::Product;
pub use matmul::{Epilogue, MatmulDTypes, MatmulProblem};
pub(crate) use norm::Norm;
pub use norm::{NormDTypes, NormKind, NormProblem};
pub(crate) use operands::Operands;
pub use pointwise::{Arg, Dropping, Instr, PointwiseProblem};
pub use profile::{AdapterKind, Backend, CooperativeMatrix, Limits, Profile, Rates};
pub use quirks::{QUIRKS, Quirk};
pub use reduce::ReduceProblem;
pub use rotary::RotaryProblem;
pub use scatter_add::ScatterAddProblem;
pub(crate) use softmax::Softmax;
pub use softmax::{SoftmaxDTypes, SoftmaxProblem};
pub use specialize::{Module, Parameters, Scalar, Source, Specialization, fingerprint};

use crate::{DType, Result};

/// What one kernel family is asked to compute: sizes, layouts, dtypes and options, but no buffers.
///
/// Operands are numbered: inputs from 0 in the order that the problem documents, outputs likewise.
pub trait Problem: fmt::Debug + Send + Sync {
    /// The family's name, which its twins bear too.
    fn family(&self) -> &'static str;

    /// Every variant of the family with a verdict for this problem on this device, best first among the usable.
    fn candidates(&self, profile: &Profile) -> Vec<Candidate>;

    /// The dispatches of one variant.
    ///
    /// # Errors
    /// [`Error::Op`](crate::Error::Op) if there is no such variant; [`Error::NoVariant`](crate::Error::NoVariant) if it
    /// can't run here, with the reason that [`candidates`](Problem::candidates) gives;
    /// [`Error::Limit`](crate::Error::Limit) if it needs more workgroups than two dimensions have.
    fn kernel(&self, variant: &str, profile: &Profile) -> Result<Kernel>;

    /// One line for printed programs: the sizes and options that matter, such as `M=64 N=32 K=16 +bias +gelu`.
    fn summary(&self) -> String;

    /// What decides which variant is the fastest: like the summary, with what that leaves out. Problems of one text, once
    /// their sizes are rounded to powers of two, share one measurement.
    fn tuning(&self) -> String {
        self.summary()
    }

    /// Whether output 0 may share the buffer of input `input` (same bytes, each element read before it is written by the
    /// same invocation). [`Problem::set_in_place`] then says so.
    fn allows_in_place(&self, input: usize) -> bool {
        let _ = input;
        false
    }

    /// Rebuilds the problem so that `input` is read through output 0's binding.
    fn set_in_place(&mut self, input: usize) {
        let _ = input;
    }
}

/// A variant of a kernel family, and whether a problem can use it on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The variant's name, unique in its family.
    pub variant: &'static str,
    /// Why this variant is at this place in the order, or why it can't run.
    pub verdict: Verdict,
}

/// What is said of a [`Candidate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can run; the reason says when it is the one to take.
    Usable(String),
    /// It can't run here; the reason names the limit or feature.
    Refused(String),
}

impl Candidate {
    /// A variant that can run, and when it is the one to take.
    pub fn usable(variant: &'static str, reason: impl Into<String>) -> Self {
        Candidate { variant, verdict: Verdict::Usable(reason.into()) }
    }

    /// A variant that can't run here, and why.
    pub fn refused(variant: &'static str, reason: impl Into<String>) -> Self {
        Candidate { variant, verdict: Verdict::Refused(reason.into()) }
    }

    /// Whether the variant can run.
    pub fn is_usable(&self) -> bool {
        matches!(self.verdict, Verdict::Usable(_))
    }

    /// Why these can't run, each reason once: behind the variants that it keeps from it, or alone if it is that of all.
    ///
    /// ```
    /// use tilewise::kernel::Candidate;
    /// let refused = |variant| Candidate::refused(variant, "no memory");
    /// let mut all = vec![refused("tiled"), refused("panel")];
    /// assert_eq!(Candidate::refusals(&all), ["no memory"]);
    /// all.extend([Candidate::refused("vec", "many rows"), Candidate::usable("plain", "runs everywhere")]);
    /// assert_eq!(Candidate::refusals(&all), ["tiled, panel: no memory", "vec: many rows"]);
    /// ```
    pub fn refusals(candidates: &[Candidate]) -> Vec<String> {
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for Candidate { variant, verdict } in candidates {
            let Verdict::Refused(reason) = verdict else { continue };
            match reasons.iter_mut().find(|(other, _)| other == reason) {
                Some((_, variants)) => variants.push(variant),
                None => reasons.push((reason.as_str(), vec![*variant])),
            }
        }
        let of_all = |variants: &[&str]| variants.len() == candidates.len() && variants.len() > 1;
        let said = |(reason, variants): (&str, Vec<&str>)| match of_all(&variants) {
            true => reason.to_string(),
            false => format!("{}: {reason}", variants.join(", ")),
        };
        reasons.into_iter().map(said).collect()
    }
}

/// One variant for one problem, ready to be recorded: dispatches in order, and the workspace buffers they share.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Dispatches, in order; each sees what the ones before it wrote.
    pub launches: Vec<Launch>,
    /// Sizes in bytes of the buffers that live only from the first to the last dispatch.
    pub workspace: Vec<u64>,
}

/// One dispatch.
///
/// Every shader has its parameters, 32-bit words, as a uniform block at `@group(0) @binding(0)`, and its storage
/// buffers at the bindings from 1 on, without gaps, in the order of `bindings`.
///
/// A parameter `first_group: u32` is the number of the dispatch's first workgroup. A shader that counts its workgroups from
/// there (`p.first_group + workgroup_id.x + workgroup_id.y * num_workgroups.x`), and returns behind the last, can be
/// [cut](Launch::cut) where it takes long.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What this dispatch does, for printed programs and profiles: `tiled`, or `split-kv: merge`.
    pub label: String,
    /// The complete WGSL module; its entry point is `main`.
    pub source: Arc<Source>,
    /// The storage buffers.
    pub bindings: Vec<Binding>,
    /// The uniform block.
    pub params: Vec<u32>,
    /// Workgroups in x, y and z. A grid with a 0 is not dispatched.
    pub grid: [u32; 3],
    /// Floating-point operations that the formula needs (mask-aware where the mask is known on the host).
    pub flops: u64,
    /// Exponentials that the formula needs, of softmax and attention: devices have slow units for them, or none.
    pub exponentials: u64,
    /// Bytes that must be read and written at the least.
    pub bytes: u64,
}

/// A storage buffer of a [`Launch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Which buffer.
    pub operand: Operand,
    /// Whether the shader declares it `read` or `read_write`.
    pub access: Access,
}

/// The buffers of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// The problem's input of this number.
    Input(usize),
    /// The problem's output of this number.
    Output(usize),
    /// The kernel's workspace buffer of this number.
    Workspace(usize),
}

/// `input 0`: the name that a program of one kernel gives it.
impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Operand::Input(i) => write!(f, "input {i}"),
            Operand::Output(i) => write!(f, "output {i}"),
            Operand::Workspace(i) => write!(f, "workspace {i}"),
        }
    }
}

/// How a shader declares a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    Write,
}

impl Binding {
    /// An input that is read.
    pub fn read(operand: Operand) -> Self {
        Binding { operand, access: Access::Read }
    }

    /// An output or workspace buffer that is written (and may be read back).
    pub fn write(operand: Operand) -> Self {
        Binding { operand, access: Access::Write }
    }
}

/// Folds a count of workgroups into a grid that respects the limit of each dimension.
///
/// The shader finds its number as `workgroup_id.x + workgroup_id.y * num_workgroups.x` and returns if it is not below
/// the count (uniformly, so that barriers stay legal).
///
/// # Errors
/// [`Error::Limit`](crate::Error::Limit) if even two dimensions do not suffice.
pub fn fold_grid(workgroups: u64, profile: &Profile, kernel: &str) -> Result<[u32; 3]> {
    let limit = u64::from(profile.limits.workgroups_per_dimension);
    if workgroups <= limit {
        return Ok([workgroups as u32, 1, 1]);
    }
    let y = workgroups.div_ceil(limit);
    if y > limit {
        return Err(crate::Error::Limit {
            what: format!("{kernel}: workgroups (max_compute_workgroups_per_dimension, squared)"),
            value: workgroups,
            limit: limit * limit,
            hint: "split the problem".into(),
        });
    }
    // As square as it gets, so that few workgroups are idle.
    Ok([workgroups.div_ceil(y) as u32, y as u32, 1])
}

/// Bytes of a device buffer for `elements` of `dtype`: whole 16-byte blocks, and never none.
pub fn buffer_bytes(dtype: DType, elements: usize) -> u64 {
    let bytes = (elements as u64).saturating_mul(dtype.bytes() as u64).max(16);
    bytes.checked_next_multiple_of(16).unwrap_or(u64::MAX - 15)
}
