//! What the test binaries share.
#![allow(dead_code, reason = "each binary uses a part")]

pub(crate) mod attention;
pub(crate) mod diff;
pub(crate) mod generate;
pub(crate) mod matmul;
pub(crate) mod models;
pub(crate) mod quantize;
pub(crate) mod random;
pub(crate) mod rows;
pub(crate) mod view;

use std::sync::OnceLock;

use tilewise::gpu::Gpu;

/// The device of this process, whose compiled pipelines all tests share. `WGPU_ADAPTER_NAME` chooses the adapter.
///
/// # Panics
/// Without an adapter: such tests fail, they are not skipped.
pub(crate) fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| {
        let gpu = another_gpu();
        eprintln!("adapter: {} ({:?}), {}", gpu.profile().adapter, gpu.info().backend, gpu.driver());
        gpu
    })
}

/// The same once more, for tests that must be alone on a device.
pub(crate) fn another_gpu() -> Gpu {
    Gpu::new().unwrap_or_else(|error| panic!("this test needs a GPU adapter, real or software.\n{error}"))
}
