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

use std::sync::{Mutex, MutexGuard, PoisonError};

use tilewise::gpu::Gpu;

/// The device of this thread. `WGPU_ADAPTER_NAME` chooses the adapter.
///
/// A thread that ends hands its device on to the next that asks, with all pipelines that it compiled: tests in one thread share
/// one. Threads side by side have one each, since a software adapter compiles and runs what a device is given on one core;
/// what both need, its driver's cache has.
///
/// # Panics
/// Without an adapter: such tests fail, they are not skipped.
pub(crate) fn gpu() -> &'static Gpu {
    static IDLE: Mutex<Vec<&'static Gpu>> = Mutex::new(Vec::new());

    fn idle() -> MutexGuard<'static, Vec<&'static Gpu>> {
        IDLE.lock().unwrap_or_else(PoisonError::into_inner)
    }
    struct Lent(&'static Gpu);
    impl Drop for Lent {
        fn drop(&mut self) {
            idle().push(self.0);
        }
    }
    thread_local! {
        static LENT: Lent = Lent(idle().pop().unwrap_or_else(|| Box::leak(Box::new(another_gpu()))));
    }
    LENT.with(|lent| lent.0)
}

/// A device of its own, for tests that must be alone on one.
pub(crate) fn another_gpu() -> Gpu {
    match Gpu::new() {
        Ok(gpu) => {
            eprintln!("adapter: {} ({:?}), {}", gpu.profile().adapter, gpu.info().backend, gpu.driver());
            gpu
        }
        Err(error) => panic!("this test needs a GPU adapter, real or software.\n{error}"),
    }
}
