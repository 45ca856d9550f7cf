use serde::{Deserialize, Serialize};

use crate::DType;

/// What the choice of kernels needs to know of a device. Plain data: a program can be lowered for a device that is
/// elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// The adapter's name, for messages.
    pub adapter: String,
    /// The driver's name and version, by which [quirks](super::QUIRKS) are known.
    #[serde(default)]
    pub driver: String,
    /// What kind of processor runs the kernels.
    pub kind: AdapterKind,
    /// The API that runs them, and compiles their text.
    #[serde(default)]
    pub backend: Backend,
    /// The limits that kernels have to respect.
    pub limits: Limits,
    /// `f16` in shaders (`SHADER_F16`).
    pub shader_f16: bool,
    /// `u64` in shaders (`SHADER_INT64`).
    #[serde(default)]
    pub shader_int64: bool,
    /// Subgroup operations, with the smallest and largest subgroup size; `None` without the feature.
    pub subgroup: Option<(u32, u32)>,
    /// The small products that subgroups of this device do on units made for them.
    #[serde(default)]
    pub cooperative_matrices: Vec<CooperativeMatrix>,
    /// Those that the device has as well, but that failed the test when it was opened, and what was wrong.
    #[serde(default)]
    pub cooperative_matrix_faults: Vec<(CooperativeMatrix, String)>,
    /// How fast kernels are taken to be, where long work is cut ([`Profile::watchdog`]).
    #[serde(default)]
    pub rates: Rates,
}

/// How fast the kernels of this crate are taken to be on a device, so that it can be told beforehand what would take long. An
/// estimate on the slow side does no harm: work is cut that need not be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Floating-point operations a second.
    pub flops: f64,
    /// Bytes a second, read or written.
    pub bytes: f64,
    /// Whether they were measured; otherwise they are what a slow device of the kind reaches.
    pub measured: bool,
}

/// Operations that an exponential counts as.
const EXPONENTIAL: f64 = 16.0;

impl Rates {
    /// A GPU with memory of its own, an old and small one.
    pub const DISCRETE: Rates = Rates { flops: 500e9, bytes: 40e9, measured: false };
    /// A GPU in a processor, an old and small one.
    pub const INTEGRATED: Rates = Rates { flops: 100e9, bytes: 10e9, measured: false };
    /// Two processor cores.
    pub const SOFTWARE: Rates = Rates { flops: 10e9, bytes: 4e9, measured: false };

    /// Seconds that work is taken to need: for the operations or for the bytes, whatever takes longer.
    pub fn seconds(&self, flops: u64, exponentials: u64, bytes: u64) -> f64 {
        let operations = flops as f64 + EXPONENTIAL * exponentials as f64;
        (operations / self.flops).max(bytes as f64 / self.bytes)
    }
}

/// The slowest GPU that is thought of.
impl Default for Rates {
    fn default() -> Self {
        Rates::INTEGRATED
    }
}

/// A product of small matrices that the invocations of a subgroup do together: `c [m n] += a [m k] · b [k n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CooperativeMatrix {
    /// Rows of a and c.
    pub m: u32,
    /// Columns of b and c.
    pub n: u32,
    /// Columns of a, rows of b.
    pub k: u32,
    /// The dtype of a and b.
    pub ab: DType,
    /// The dtype of c.
    pub c: DType,
}

/// f16 with f32 sums: what kernels use.
pub(crate) const HALVES: [DType; 2] = [DType::F16, DType::F32];

impl CooperativeMatrix {
    /// The same size everywhere, the dtypes of a and b and of c.
    pub fn square(size: u32, [ab, c]: [DType; 2]) -> Self {
        CooperativeMatrix { m: size, n: size, k: size, ab, c }
    }
}

/// The API below wgpu.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Vulkan; also where nothing is known.
    #[default]
    Vulkan,
    /// Metal.
    Metal,
    /// Direct3D 12.
    Dx12,
    /// OpenGL, or OpenGL ES.
    Gl,
    /// A browser's WebGPU, which compiles the text itself.
    Browser,
}

impl Backend {
    /// Whether the compiler of the text wants `enable subgroups;` where subgroups are used: WGSL asks for it, and naga, which
    /// compiles for all others, rejects it.
    pub fn enables_subgroups(self) -> bool {
        match self {
            Backend::Browser => true,
            Backend::Vulkan | Backend::Metal | Backend::Dx12 | Backend::Gl => false,
        }
    }
}

/// What kind of processor an adapter is; kernels that suit a GPU and a CPU differ completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// A GPU, of its own or in the processor.
    Gpu,
    /// A software implementation such as lavapipe or SwiftShader.
    Cpu,
}

/// The device limits that kernels have to respect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of workgroup memory (`max_compute_workgroup_storage_size`).
    pub workgroup_bytes: u32,
    /// Invocations of a workgroup (`max_compute_invocations_per_workgroup`).
    pub workgroup_invocations: u32,
    /// Invocations of a workgroup in x (`max_compute_workgroup_size_x`).
    pub workgroup_size_x: u32,
    /// Workgroups in one dimension of a grid (`max_compute_workgroups_per_dimension`).
    pub workgroups_per_dimension: u32,
    /// Storage buffers of a shader (`max_storage_buffers_per_shader_stage`).
    pub storage_buffers: u32,
    /// Bytes of one binding (`max_storage_buffer_binding_size`).
    pub binding_bytes: u64,
    /// Bytes of one buffer (`max_buffer_size`).
    pub buffer_bytes: u64,
}

impl Profile {
    /// The least that any WebGPU device offers: no optional feature, and every limit at its default.
    pub fn portable() -> Self {
        Profile {
            adapter: "portable WebGPU minimum".into(),
            driver: String::new(),
            kind: AdapterKind::Gpu,
            backend: Backend::default(),
            limits: Limits {
                workgroup_bytes: 16 << 10,
                workgroup_invocations: 256,
                workgroup_size_x: 256,
                workgroups_per_dimension: 65_535,
                storage_buffers: 8,
                binding_bytes: 128 << 20,
                buffer_bytes: 256 << 20,
            },
            shader_f16: false,
            shader_int64: false,
            subgroup: None,
            cooperative_matrices: Vec::new(),
            cooperative_matrix_faults: Vec::new(),
            rates: Rates::default(),
        }
    }

    /// Invocations of a workgroup of a kernel whose invocations have nothing to do with each other, nor much to do.
    pub(super) fn plain_workgroup(&self) -> u32 {
        match self.kind {
            AdapterKind::Gpu => 256.min(self.limits.workgroup_invocations),
            AdapterKind::Cpu => 64,
        }
    }
}
