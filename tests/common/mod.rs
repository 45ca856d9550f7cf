//! What the test binaries share.
#![allow(dead_code, reason = "each binary uses a part")]

pub(crate) mod attention;
pub(crate) mod binomial;
pub(crate) mod diff;
pub(crate) mod generate;
pub(crate) mod matmul;
pub(crate) mod models;
pub(crate) mod not_finite;
pub(crate) mod quantize;
pub(crate) mod random;
pub(crate) mod rows;
pub(crate) mod view;

use std::sync::{Mutex, MutexGuard, PoisonError};

use tilewise::gpu::{Bounds, Builder, Gpu};

/// The device of this thread. `WGPU_ADAPTER_NAME` chooses the adapter.
///
/// A thread that ends hands its device on to the next that asks, with all pipelines that it compiled: tests in one thread share
/// one. Threads side by side have one each, since a software adapter compiles and runs what a device is given on one core;
/// what both need, its driver's cache has.
///
/// # Panics
/// Without an adapter: such tests fail, they are not skipped.
pub(crate) fn gpu() -> &'static Gpu {
    static IDLE: Idle = Idle::new();
    thread_local!(static LENT: Lent = Lent::from(&IDLE, shared()));
    LENT.with(|lent| lent.gpu)
}

/// The same with run-time checks of indices and loops in all shaders.
pub(crate) fn checked_gpu() -> &'static Gpu {
    static IDLE: Idle = Idle::new();
    thread_local!(static LENT: Lent = Lent::from(&IDLE, shared().checked_shaders(true)));
    LENT.with(|lent| lent.gpu)
}

/// A device of its own, for tests that must be alone on one.
pub(crate) fn another_gpu() -> Gpu {
    open(Gpu::builder())
}

/// Whether a test of NaN and infinities is asked of this device: one that assumes finite numbers is not, and that is said.
pub(crate) fn asks_of_what_is_not_finite(test: &str) -> bool {
    let refused = gpu().profile().assumes_finite();
    if let Some(why) = refused {
        eprintln!("{test} is refused on {}: {why}", gpu().profile().adapter);
    }
    refused.is_none()
}

fn open(builder: Builder) -> Gpu {
    match builder.build() {
        Ok(gpu) => {
            eprintln!("adapter: {} ({:?}), {}", gpu.profile().adapter, gpu.info().backend, gpu.driver());
            gpu
        }
        Err(error) => panic!("this test needs a GPU adapter, real or software.\n{error}"),
    }
}

/// Devices that no thread has.
struct Idle(Mutex<Vec<&'static Gpu>>);

impl Idle {
    const fn new() -> Self {
        Idle(Mutex::new(Vec::new()))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<&'static Gpu>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device that keeps the pipelines that were asked for last. On a software adapter one takes megabytes.
fn shared() -> Builder {
    Gpu::builder().bounds(Bounds { pipelines: Some(128), ..Bounds::default() })
}

/// A device for as long as a thread lives.
struct Lent {
    gpu: &'static Gpu,
    back_to: &'static Idle,
}

impl Lent {
    fn from(idle: &'static Idle, builder: Builder) -> Self {
        let known = idle.lock().pop();
        Lent { gpu: known.unwrap_or_else(|| Box::leak(Box::new(open(builder)))), back_to: idle }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.back_to.lock().push(self.gpu);
    }
}
