//! What all tests share.
#![allow(dead_code, reason = "each test uses a part")]

use std::sync::OnceLock;

use tilewise::gpu::Gpu;

/// The device of this process. `WGPU_ADAPTER_NAME` chooses the adapter.
///
/// # Panics
/// Without an adapter: such tests fail, they are not skipped.
pub(crate) fn gpu() -> &'static Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(|| match Gpu::new() {
        Ok(gpu) => {
            eprintln!("adapter: {} ({:?}), {}", gpu.profile().adapter, gpu.info().backend, gpu.driver());
            gpu
        }
        Err(error) => panic!("this test needs a GPU adapter, real or software.\n{error}"),
    })
}
