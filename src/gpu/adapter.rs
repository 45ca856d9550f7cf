use std::fmt::Write as _;

use crate::{
    DType, Error, Result,
    kernel::{AdapterKind, Backend, CooperativeMatrix, Limits, Profile},
};

/// An adapter of this system: a GPU, or a software implementation of one.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Its index in [`adapters`], by which [`Builder::adapter_index`](super::Builder::adapter_index) chooses it.
    pub index: usize,
    /// The name that the driver gives.
    pub name: String,
    /// Vulkan, Metal, DX12 or the browser.
    pub backend: wgpu::Backend,
    /// The driver's name and version.
    pub driver: String,
    /// The kind of device, as the driver has it.
    pub device_type: wgpu::DeviceType,
    /// The limits and features that kernels can count on.
    pub profile: Profile,
    /// Every limit of the adapter.
    pub limits: wgpu::Limits,
    /// Every feature of the adapter.
    pub features: wgpu::Features,
}

impl Adapter {
    fn new(index: usize, adapter: &wgpu::Adapter) -> Self {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        Adapter {
            index,
            profile: profile(&info, &limits, features, &adapter.cooperative_matrix_properties()),
            driver: driver(&info),
            name: info.name,
            backend: info.backend,
            device_type: info.device_type,
            limits,
            features,
        }
    }

    /// A GPU or a software implementation.
    pub fn kind(&self) -> AdapterKind {
        self.profile.kind
    }
}

impl std::fmt::Display for Adapter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} ({}, {:?}, {})", self.index, self.name, self.backend, self.device_type, self.driver)
    }
}

/// The driver's name and version in one line.
pub(super) fn driver(info: &wgpu::AdapterInfo) -> String {
    format!("{} {}", info.driver, info.driver_info).trim().to_string()
}

/// What kernels can count on, given a device's (or adapter's) limits and features.
pub(super) fn profile(
    info: &wgpu::AdapterInfo,
    limits: &wgpu::Limits,
    features: wgpu::Features,
    cooperative: &[wgpu::CooperativeMatrixProperties],
) -> Profile {
    let usable = features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
    Profile {
        adapter: info.name.clone(),
        driver: driver(info),
        kind: match info.device_type {
            wgpu::DeviceType::Cpu => AdapterKind::Cpu,
            wgpu::DeviceType::IntegratedGpu
            | wgpu::DeviceType::DiscreteGpu
            | wgpu::DeviceType::VirtualGpu
            | wgpu::DeviceType::Other => AdapterKind::Gpu,
        },
        backend: match info.backend {
            // What runs nothing may be taken for anything.
            wgpu::Backend::Vulkan | wgpu::Backend::Noop => Backend::Vulkan,
            wgpu::Backend::Metal => Backend::Metal,
            wgpu::Backend::Dx12 => Backend::Dx12,
            wgpu::Backend::Gl => Backend::Gl,
            wgpu::Backend::BrowserWebGpu => Backend::Browser,
        },
        limits: Limits {
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            workgroup_invocations: limits.max_compute_invocations_per_workgroup,
            workgroup_size_x: limits.max_compute_workgroup_size_x,
            workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            binding_bytes: limits.max_storage_buffer_binding_size,
            buffer_bytes: limits.max_buffer_size,
        },
        shader_f16: features.contains(wgpu::Features::SHADER_F16),
        shader_int64: features.contains(wgpu::Features::SHADER_INT64),
        subgroup: features
            .contains(wgpu::Features::SUBGROUP)
            .then_some((info.subgroup_min_size, info.subgroup_max_size)),
        cooperative_matrices: cooperative.iter().filter(|_| usable).map(cooperative_matrix).collect(),
        cooperative_matrix_faults: Vec::new(),
    }
}

fn cooperative_matrix(properties: &wgpu::CooperativeMatrixProperties) -> CooperativeMatrix {
    let dtype = |scalar: wgpu::CooperativeScalarType| match scalar {
        wgpu::CooperativeScalarType::F32 => DType::F32,
        wgpu::CooperativeScalarType::F16 => DType::F16,
        wgpu::CooperativeScalarType::I32 => DType::I32,
        wgpu::CooperativeScalarType::U32 => DType::U32,
    };
    let wgpu::CooperativeMatrixProperties { m_size: m, n_size: n, k_size: k, ab_type, cr_type, .. } = *properties;
    CooperativeMatrix { m, n, k, ab: dtype(ab_type), c: dtype(cr_type) }
}

/// Every adapter of this system, in the order of the drivers.
///
/// The environment variables `WGPU_BACKEND` (such as `vulkan` or `dx12,metal`) and those of the drivers apply.
pub async fn adapters_async() -> Vec<Adapter> {
    enumerate().await.iter().enumerate().map(|(i, adapter)| Adapter::new(i, adapter)).collect()
}

/// [`adapters_async`], waiting for the answer.
#[cfg(feature = "native")]
pub fn adapters() -> Vec<Adapter> {
    pollster::block_on(adapters_async())
}

/// Which adapter to take.
#[derive(Clone, Debug, Default)]
pub(super) enum Choice {
    /// The one that `WGPU_ADAPTER_NAME` names, or else the best.
    #[default]
    Best,
    /// The first whose name contains this text, in any case.
    Name(String),
    /// By its place in the list.
    Index(usize),
}

async fn enumerate() -> Vec<wgpu::Adapter> {
    // A build without any backend has no adapters; wgpu would panic.
    if wgpu::Instance::enabled_backend_features().is_empty() {
        return Vec::new();
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    instance.enumerate_adapters(wgpu::Backends::all()).await
}

/// The adapter of this choice, or an error that lists what is there.
pub(super) async fn choose(choice: &Choice) -> Result<wgpu::Adapter> {
    let mut found = enumerate().await;
    let env = std::env::var("WGPU_ADAPTER_NAME").ok().filter(|name| !name.is_empty());
    let (wanted, at) = match (choice, env) {
        (Choice::Index(index), _) => (format!("adapter {index}"), (*index < found.len()).then_some(*index)),
        (Choice::Name(name), _) => (format!("an adapter named `{name}`"), by_name(&found, name)),
        (Choice::Best, Some(name)) => {
            (format!("an adapter named `{name}` (WGPU_ADAPTER_NAME)"), by_name(&found, &name))
        }
        (Choice::Best, None) => ("a GPU adapter".to_string(), best(&found)),
    };
    match at {
        Some(at) => Ok(found.swap_remove(at)),
        None => Err(no_adapter(&wanted, &found)),
    }
}

fn by_name(found: &[wgpu::Adapter], name: &str) -> Option<usize> {
    let name = name.to_lowercase();
    found.iter().position(|adapter| adapter.get_info().name.to_lowercase().contains(&name))
}

/// A GPU before a software implementation, one with its own memory before one without; among equals the first.
fn best(found: &[wgpu::Adapter]) -> Option<usize> {
    let rank = |adapter: &wgpu::Adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    };
    (0..found.len()).min_by_key(|&i| rank(&found[i]))
}

fn no_adapter(wanted: &str, found: &[wgpu::Adapter]) -> Error {
    let mut message = format!("{wanted} was asked for; ");
    if found.is_empty() {
        let _ = write!(
            message,
            "no adapter was found (backends of this build: {:?})",
            wgpu::Instance::enabled_backend_features()
        );
    } else {
        let list: Vec<String> =
            found.iter().enumerate().map(|(i, adapter)| Adapter::new(i, adapter).to_string()).collect();
        let _ = write!(message, "found: {}", list.join("; "));
    }
    Error::NoAdapter { message, hint: install_hint().to_string() }
}

fn install_hint() -> &'static str {
    if cfg!(target_arch = "wasm32") {
        "The browser offers no WebGPU here: use a browser that has it, over https or on localhost."
    } else if wgpu::Instance::enabled_backend_features().is_empty() {
        "This build has no backend: turn on the feature `native` of tilewise, or a backend feature of wgpu."
    } else if cfg!(target_os = "macos") {
        "Metal comes with macOS on every Mac since 2012; a virtual machine may need GPU acceleration turned on."
    } else if cfg!(windows) {
        "Install the graphics driver of the GPU's maker; without a GPU, Windows has the software adapter \
         \"Microsoft Basic Render Driver\" (DX12), which some server editions leave out."
    } else {
        "Install a Vulkan driver. On Debian and Ubuntu: `apt-get install mesa-vulkan-drivers` \
         (with a software adapter, lavapipe, that needs no GPU); on Fedora `dnf install mesa-vulkan-drivers`; \
         on Arch `pacman -S vulkan-swrast`. For NVIDIA, the maker's driver."
    }
}
