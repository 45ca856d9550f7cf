//! The one error type of the crate.

use std::fmt;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong: what was given, what was expected and, where it helps, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation was given operands that it cannot take. `op` names the operation, `message` the operands.
    #[error("{op}: {message}")]
    Op {
        /// The operation, as the graph names it.
        op: String,
        /// What was given and what was expected.
        message: String,
    },

    /// A graph that breaks one of the rules in [`crate::graph`].
    #[error("graph: {0}")]
    Graph(String),

    /// Inputs, parameters or outputs whose names or shapes do not fit the graph.
    #[error("{0}")]
    Binding(String),

    /// A size that is larger than a limit of the device (or of 32-bit indexing).
    #[error("{what}: {value} is over the limit of {limit}{}", hint_suffix(.hint))]
    Limit {
        /// What was measured against the limit, and the limit's name.
        what: String,
        /// The value.
        value: u64,
        /// The limit.
        limit: u64,
        /// What to do about it; may be empty.
        hint: String,
    },

    /// No variant of a kernel can run the problem on this device.
    #[error("{family}: no variant can run here: {}", .reasons.join("; "))]
    NoVariant {
        /// The kernel family.
        family: &'static str,
        /// One line per variant: why not.
        reasons: Vec<String>,
    },

    /// A shader template and its slots do not fit, or the source does not validate.
    #[error("shader {kernel}: {message}")]
    Shader {
        /// The shader's file.
        kernel: String,
        /// What the specialiser, naga or the driver said.
        message: String,
    },

    /// No GPU adapter, or none that fits the request.
    #[error("{message}{}", on_a_line(.hint))]
    NoAdapter {
        /// What was asked for and what was found.
        message: String,
        /// What to do about it; may be empty.
        hint: String,
    },

    /// A kernel that broke a promise in a watched run: it left an element unwritten, wrote behind the end of a buffer, or
    /// gave different bits in two runs. The fault is tilewise's or the driver's.
    #[error("{0}")]
    Guard(String),

    /// The device rejected a command. This is a fault of tilewise or of the driver, not of the data.
    #[error("the device rejected {during}: {message}")]
    Validation {
        /// What was being done.
        during: String,
        /// The message of wgpu.
        message: String,
    },

    /// The device has no memory left.
    #[error("out of device memory during {during}: {message}")]
    OutOfMemory {
        /// What was being done, with the bytes asked for where known.
        during: String,
        /// The message of wgpu.
        message: String,
    },

    /// The device is gone: reset by the driver, removed, out of memory, or destroyed by its owner. Every later call on it ends
    /// with this error; what lay on it, states included, is gone too.
    #[error(
        "the device was lost: {0}. What lay on it is gone, states included: make a new Gpu, and compile on it anew"
    )]
    DeviceLost(String),

    /// The device did not finish in the time that [`Bounds::wait`](crate::gpu::Bounds::wait) gives it. The work goes on, if the
    /// device does; what it was to give is lost.
    #[error(
        "the device did not finish {during} within {waited:?}: it hangs, or has more to do than that; give it less work at a \
         time, or more time (Bounds::wait), and open another if it doesn't recover"
    )]
    Timeout {
        /// What was waited for.
        during: String,
        /// How long.
        waited: std::time::Duration,
    },

    /// A file or text that does not have the expected format.
    #[error("{what}: {message}")]
    Format {
        /// The file or the kind of text.
        what: String,
        /// What is wrong with it.
        message: String,
    },
}

fn hint_suffix(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("; {hint}") }
}

fn on_a_line(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("\n{hint}") }
}

impl Error {
    /// An [`Error::Op`].
    pub fn op(op: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Op { op: op.into(), message: message.into() }
    }

    /// An [`Error::Format`].
    pub fn format(what: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Format { what: what.into(), message: message.into() }
    }

    /// An operand of the wrong dtype.
    pub(crate) fn dtype(op: &str, operand: &str, given: impl fmt::Display, expected: &str) -> Self {
        Error::op(op, format!("`{operand}` is {given}, expected {expected}"))
    }

    /// An operand of the wrong shape.
    pub(crate) fn shape(op: &str, operand: &str, given: impl fmt::Display, expected: impl fmt::Display) -> Self {
        Error::op(op, format!("`{operand}` has shape {given}, expected {expected}"))
    }
}
