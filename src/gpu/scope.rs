//! wgpu's errors as values: error scopes, the lost device, and errors that no scope caught.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::{Error, Result};

/// What callbacks of the device report; the next call returns it.
#[derive(Debug, Default)]
pub(super) struct Health {
    lost: Mutex<Option<String>>,
    uncaptured: Mutex<Option<Error>>,
}

impl Health {
    /// Makes every later call fail with [`Error::DeviceLost`]. The first reason stays.
    pub(super) fn set_lost(&self, reason: impl Into<String>) {
        lock(&self.lost).get_or_insert_with(|| reason.into());
    }

    /// A buffer is not mapped though no scope caught an error. wgpu keeps silent so only about a device that is lost.
    pub(super) fn unmapped(&self) -> Error {
        self.set_lost("a buffer could not be mapped");
        Error::DeviceLost(lock(&self.lost).clone().unwrap_or_default())
    }

    /// Installs the callbacks; this replaces those of the device.
    pub(super) fn watch(self: &Arc<Self>, device: &wgpu::Device) {
        let health = Arc::clone(self);
        device.set_device_lost_callback(move |reason, message| {
            health.set_lost(format!("{reason:?}: {message}"));
        });
        let health = Arc::clone(self);
        device.on_uncaptured_error(Arc::new(move |error| {
            lock(&health.uncaptured).get_or_insert_with(|| from_wgpu("an earlier command", &error));
        }));
    }

    /// The error that a callback left, if there is one.
    pub(super) fn check(&self) -> Result<()> {
        if let Some(reason) = &*lock(&self.lost) {
            return Err(Error::DeviceLost(reason.clone()));
        }
        match lock(&self.uncaptured).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// The data of a mutex, also after a panic of another thread: all of them guard plain data that is valid at any time.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn from_wgpu(during: &str, error: &wgpu::Error) -> Error {
    let during = during.to_string();
    match error {
        wgpu::Error::OutOfMemory { source } => Error::OutOfMemory { during, message: chain(source.as_ref()) },
        wgpu::Error::Validation { description, .. } | wgpu::Error::Internal { description, .. } => {
            Error::Validation { during, message: description.trim().to_string() }
        }
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// Runs `commands` with the errors of the device caught. `during` says in messages what was being done.
pub(super) async fn scoped<T>(
    device: &wgpu::Device,
    health: &Health,
    during: &str,
    commands: impl FnOnce() -> T,
) -> Result<T> {
    let (value, errors) = catch(device, commands);
    for error in errors {
        if let Some(error) = error.await {
            health.check()?;
            return Err(from_wgpu(during, &error));
        }
    }
    Ok(value)
}

/// [`scoped`] where nothing can be awaited. wgpu answers at once on every system but the browser, where the errors of
/// these commands are dropped; what is recorded this way has been checked beforehand.
pub(super) fn scoped_now<T>(
    device: &wgpu::Device,
    health: &Health,
    during: &str,
    commands: impl FnOnce() -> T,
) -> Result<T> {
    let (value, errors) = catch(device, commands);
    for error in errors {
        if let Poll::Ready(Some(error)) = pin!(error).poll(&mut Context::from_waker(Waker::noop())) {
            health.check()?;
            return Err(from_wgpu(during, &error));
        }
    }
    Ok(value)
}

/// Opens a scope for each kind of error, runs the commands and closes the scopes: they belong to this thread and must
/// not outlive a point where a future may move to another.
fn catch<T, F: FnOnce() -> T>(
    device: &wgpu::Device,
    commands: F,
) -> (T, [impl Future<Output = Option<wgpu::Error>> + use<T, F>; 3]) {
    let internal = device.push_error_scope(wgpu::ErrorFilter::Internal);
    let validation = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let memory = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
    let value = commands();
    (value, [memory.pop(), validation.pop(), internal.pop()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_wgpu_keep_their_kind_and_their_causes() {
        let io = std::io::Error::other(std::fmt::Error);
        let error = from_wgpu("a buffer", &wgpu::Error::OutOfMemory { source: Box::new(io) });
        assert_eq!(
            error.to_string(),
            "out of device memory during a buffer: an error occurred when formatting an argument"
        );
        let source = Box::new(std::fmt::Error);
        let error = from_wgpu("a copy", &wgpu::Error::Internal { source, description: "  no luck\n".into() });
        assert_eq!(error.to_string(), "the device rejected a copy: no luck");
    }

    #[test]
    fn the_first_loss_is_the_one_that_is_told() {
        let health = Health::default();
        health.check().expect("healthy");
        health.set_lost("reset");
        health.set_lost("destroyed");
        let _ = health.unmapped();
        for _ in 0..2 {
            assert!(matches!(health.check(), Err(Error::DeviceLost(reason)) if reason == "reset"));
        }
    }
}
