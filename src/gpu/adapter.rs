use crate::{
    DType, Error, Result,
    kernel::{AdapterKind, Backend, CooperativeMatrix, Limits, Profile, Rates},
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
        let kind = match self.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete GPU",
            wgpu::DeviceType::IntegratedGpu => "integrated GPU",
            wgpu::DeviceType::VirtualGpu => "virtual GPU",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "unknown kind",
        };
        write!(f, "{}: {} ({}, {kind}, {})", self.index, self.name, self.backend, self.driver)
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
        rates: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => Rates::DISCRETE,
            wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => {
                Rates::INTEGRATED
            }
            wgpu::DeviceType::Cpu => Rates::SOFTWARE,
        },
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
/// The environment variable `WGPU_BACKEND` (such as `vulkan` or `dx12,metal`) leaves others out, and the drivers' own
/// variables apply.
pub async fn adapters_async() -> Vec<Adapter> {
    enumerate(Search::default().descriptor()).await.iter().enumerate().map(|(i, a)| Adapter::new(i, a)).collect()
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

/// Where to look for an adapter, and which one to take.
#[derive(Clone, Debug, Default)]
pub(super) struct Search {
    pub(super) choice: Choice,
    /// Those of `WGPU_BACKEND`, or else all.
    pub(super) backends: Option<wgpu::Backends>,
    /// That of `WGPU_POWER_PREF`, or else none.
    pub(super) power: Option<wgpu::PowerPreference>,
    /// Percent of the driver's memory budget from which on buffers are refused.
    pub(super) memory_percent: Option<u8>,
}

/// What leaves backends out, in words, and the backends that it leaves.
struct Restriction {
    by: String,
    undo: &'static str,
    backends: wgpu::Backends,
}

impl Search {
    fn restriction(&self) -> Option<Restriction> {
        match self.backends {
            Some(backends) => Some(Restriction {
                by: format!("the program, which asks for the backends {},", names(backends)),
                undo: "Ask for others, or for none in particular",
                backends,
            }),
            None => variable("WGPU_BACKEND").map(|text| Restriction {
                by: format!("WGPU_BACKEND={text}"),
                undo: "Unset WGPU_BACKEND, or set it to another",
                backends: wgpu::Backends::from_comma_list(&text),
            }),
        }
    }

    fn descriptor(&self) -> wgpu::InstanceDescriptor {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
        descriptor.backends = self.restriction().map_or(wgpu::Backends::all(), |restriction| restriction.backends);
        descriptor.memory_budget_thresholds.for_resource_creation = self.memory_percent;
        descriptor
    }

    /// The adapter that is wanted, or an error that lists what is there.
    pub(super) async fn choose(&self) -> Result<wgpu::Adapter> {
        let mut found = enumerate(self.descriptor()).await;
        let env = variable("WGPU_ADAPTER_NAME");
        let (wanted, at, hint) = match (&self.choice, env) {
            (Choice::Index(index), _) => (
                format!("adapter {index}"),
                (*index < found.len()).then_some(*index),
                "Choose one of these by its number, or leave the choice to tilewise.",
            ),
            (Choice::Name(name), _) => (
                format!("an adapter named `{name}`"),
                by_name(&found, name),
                "Choose one of these by a part of its name, or leave the choice to tilewise.",
            ),
            (Choice::Best, Some(name)) => (
                format!("an adapter named `{name}` (WGPU_ADAPTER_NAME)"),
                by_name(&found, &name),
                "Unset WGPU_ADAPTER_NAME, or set it to a part of one of these names.",
            ),
            (Choice::Best, None) => ("a GPU adapter".to_string(), best(&found, self.power), ""),
        };
        match at {
            Some(at) => Ok(found.swap_remove(at)),
            None if found.is_empty() => Err(self.none(&wanted).await),
            None => {
                let among = self.restriction().map_or(String::new(), |restriction| format!(" (by {})", restriction.by));
                let message = format!("{wanted} was asked for; found{among}: {}", list(&found));
                Err(Error::NoAdapter { message, hint: hint.into() })
            }
        }
    }

    /// Why there is no adapter at all: the restriction, or the system.
    async fn none(&self, wanted: &str) -> Error {
        if let Some(Restriction { by, undo, .. }) = self.restriction() {
            let mut descriptor = self.descriptor();
            descriptor.backends = wgpu::Backends::all();
            let others = enumerate(descriptor).await;
            if !others.is_empty() {
                let usable = others.iter().fold(wgpu::Backends::empty(), |all, a| all | a.get_info().backend.into());
                return Error::NoAdapter {
                    message: format!("{wanted} was asked for; {by} leaves none of: {}", list(&others)),
                    hint: format!("{undo}: there is {}.", names(usable)),
                };
            }
        }
        let build = names(wgpu::Instance::enabled_backend_features());
        let build = if build.is_empty() { "none".into() } else { build };
        let message = format!("{wanted} was asked for; no adapter was found (backends of this build: {build})");
        // These choose among the drivers that are installed.
        let drivers = ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "VK_LOADER_DRIVERS_SELECT", "VK_LOADER_DRIVERS_DISABLE"];
        let set: Vec<String> = drivers.iter().filter_map(|name| Some(format!("{name}={}", variable(name)?))).collect();
        let hint = match &set[..] {
            [] => install_hint().to_string(),
            _ => format!("{} decides which drivers are looked at. {}", set.join(", "), install_hint()),
        };
        Error::NoAdapter { message, hint }
    }
}

/// An environment variable; one that is empty is not set.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The names that `WGPU_BACKEND` takes.
fn names(backends: wgpu::Backends) -> String {
    let known = wgpu::Backend::ALL.into_iter().filter(|&backend| backends.contains(backend.into()));
    known.map(wgpu::Backend::to_str).collect::<Vec<_>>().join(", ")
}

fn list(found: &[wgpu::Adapter]) -> String {
    let all = found.iter().enumerate().map(|(i, adapter)| Adapter::new(i, adapter).to_string());
    all.collect::<Vec<_>>().join("; ")
}

async fn enumerate(descriptor: wgpu::InstanceDescriptor) -> Vec<wgpu::Adapter> {
    // A build without any backend has no adapters; wgpu would panic.
    if wgpu::Instance::enabled_backend_features().is_empty() {
        return Vec::new();
    }
    wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::all()).await
}

fn by_name(found: &[wgpu::Adapter], name: &str) -> Option<usize> {
    let name = name.to_lowercase();
    found.iter().position(|adapter| adapter.get_info().name.to_lowercase().contains(&name))
}

/// A GPU before a software implementation, one with its own memory before one without, unless little power is to be used;
/// among equals the first.
fn best(found: &[wgpu::Adapter], power: Option<wgpu::PowerPreference>) -> Option<usize> {
    let power = power.or_else(wgpu::PowerPreference::from_env).unwrap_or_default();
    let rank = |adapter: &wgpu::Adapter| match (adapter.get_info().device_type, power) {
        (wgpu::DeviceType::IntegratedGpu, wgpu::PowerPreference::LowPower) => 0,
        (wgpu::DeviceType::DiscreteGpu, _) => 1,
        (wgpu::DeviceType::IntegratedGpu, _) => 2,
        (wgpu::DeviceType::VirtualGpu, _) => 3,
        (wgpu::DeviceType::Other, _) => 4,
        (wgpu::DeviceType::Cpu, _) => 5,
    };
    (0..found.len()).min_by_key(|&i| rank(&found[i]))
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
