use std::fmt;

use serde::{Deserialize, Serialize};

/// The type of a tensor's elements.
///
/// On the device `F32`, `I32` and `U32` take a 32-bit word each; `F16` and `BF16` lie two to a word and `Bool` four to
/// a word (one byte each, 0 or 1), the lower index in the lower bits. Buffers are padded to 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    BF16,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 32-bit integer.
    U32,
    /// True or false, one byte.
    Bool,
}

impl DType {
    /// Every dtype, in declaration order.
    pub const ALL: [DType; 6] = [DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32, DType::Bool];

    /// Bytes an element takes, on the host and on the device.
    pub const fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::Bool => 1,
        }
    }

    /// Whether this is one of the three floating-point types.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16)
    }

    /// Whether this is a float that is stored narrower than kernels compute.
    pub(crate) const fn is_narrow(self) -> bool {
        matches!(self, DType::F16 | DType::BF16)
    }

    /// Whether this is one of the two integer types.
    pub const fn is_integer(self) -> bool {
        matches!(self, DType::I32 | DType::U32)
    }

    /// The name used in graphs, messages and files.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::Bool => "bool",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
