//! wgpu's errors as values: error scopes, the lost device, and errors that no scope caught.
//!
//! wgpu reports no error of a command on a lost device: it calls the device-lost callback, which may come much later, or not at
//! all where the device is the caller's, and goes on with objects that are invalid. So whether a device is lost is decided
//! here: [`Health`] is asked when a call begins, and again about every scope; whatever happens on a lost device is
//! [`Error::DeviceLost`].

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crate::{Error, Result};

/// What is known of a device: whether it is lost, and what no error scope caught.
#[derive(Debug)]
pub(super) struct Health {
    device: wgpu::Device,
    reports: Arc<Reports>,
    sentinel: Option<Mutex<Sentinel>>,
}

/// What callbacks report. They hold on to it, so it holds on to nothing of the device.
#[derive(Debug, Default)]
struct Reports {
    lost: Mutex<Option<Loss>>,
    uncaptured: Mutex<Option<Error>>,
}

#[derive(Debug)]
struct Loss {
    known_by: KnownBy,
    reason: String,
}

/// How the loss of a device is known; of two reasons the one that says more stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum KnownBy {
    /// wgpu no longer takes commands.
    Silence,
    /// The device-lost callback, or the device's owner.
    Report,
    /// The command that found no memory.
    Memory,
}

/// A buffer for asking whether wgpu still takes commands: to map it is refused at once on a lost device, and only there.
#[derive(Debug)]
struct Sentinel {
    buffer: wgpu::Buffer,
    refused: Arc<AtomicBool>,
}

impl Health {
    pub(super) fn of(device: &wgpu::Device) -> Self {
        Health { device: device.clone(), reports: Arc::default(), sentinel: Sentinel::on(device).map(Mutex::new) }
    }

    /// Makes every later call fail with [`Error::DeviceLost`]. The first reason stays, unless it was a guess.
    pub(super) fn set_lost(&self, reason: impl Into<String>) {
        self.reports.set_lost(KnownBy::Report, reason.into());
    }

    /// A buffer is not mapped though no scope caught an error. wgpu keeps silent so only about a device that is lost.
    pub(super) fn unmapped(&self) -> Error {
        self.reports.set_lost(KnownBy::Silence, NO_COMMANDS.into());
        self.reports.loss().unwrap_or_else(|| Error::DeviceLost(NO_COMMANDS.into()))
    }

    /// Installs the callbacks; this replaces those of the device.
    pub(super) fn watch(&self, device: &wgpu::Device) {
        self.watch_loss(device);
        let reports = Arc::clone(&self.reports);
        device.on_uncaptured_error(Arc::new(move |error| {
            lock(&reports.uncaptured).get_or_insert_with(|| from_wgpu("an earlier command", &error));
        }));
    }

    /// Installs the callback of the device's loss.
    pub(super) fn watch_loss(&self, device: &wgpu::Device) {
        let reports = Arc::clone(&self.reports);
        device.set_device_lost_callback(move |reason, message| {
            reports.set_lost(KnownBy::Report, in_words(reason, &message));
        });
    }

    /// An error if the device is lost, or if a callback left one.
    pub(super) fn check(&self) -> Result<()> {
        self.ask()?;
        lock(&self.reports.uncaptured).take().map_or(Ok(()), Err)
    }

    /// An error if the device is lost.
    fn ask(&self) -> Result<()> {
        if let Some(loss) = self.reports.loss() {
            return Err(loss);
        }
        let Some(sentinel) = &self.sentinel else { return Ok(()) };
        // If the device is lost meanwhile, that is an error of the sentinel, and nobody else's.
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let lost = lock(sentinel).is_refused();
        drop(scope.pop());
        if lost { Err(self.unmapped()) } else { Ok(()) }
    }

    /// What became of commands, given the error that a scope caught.
    fn judge(&self, during: &str, error: Option<&wgpu::Error>) -> Result<()> {
        let error = error.map(|error| from_wgpu(during, error));
        if let Err(loss) = self.ask() {
            let Some(Error::OutOfMemory { during, message }) = error else { return Err(loss) };
            self.reports.set_lost(KnownBy::Memory, format!("it ran out of memory during {during} ({message})"));
            return Err(self.reports.loss().unwrap_or(loss));
        }
        error.map_or(Ok(()), Err)
    }
}

const NO_COMMANDS: &str =
    "wgpu takes no more commands on it, as after `wgpu::Device::destroy` or a reset of the driver";

impl Reports {
    fn set_lost(&self, known_by: KnownBy, reason: String) {
        let mut lost = lock(&self.lost);
        if lost.as_ref().is_none_or(|loss| known_by > loss.known_by) {
            *lost = Some(Loss { known_by, reason });
        }
    }

    fn loss(&self) -> Option<Error> {
        lock(&self.lost).as_ref().map(|loss| Error::DeviceLost(loss.reason.clone()))
    }
}

impl Sentinel {
    /// None where it can't be made, or where a browser would not answer at once; the loss then shows in what fails.
    fn on(device: &wgpu::Device) -> Option<Self> {
        if cfg!(target_arch = "wasm32") {
            return None;
        }
        let descriptor = wgpu::BufferDescriptor {
            label: Some("tilewise: is the device there?"),
            size: 16,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let buffer = attempt(device, || device.create_buffer(&descriptor))?;
        Some(Sentinel { buffer, refused: Arc::default() })
    }

    fn is_refused(&self) -> bool {
        self.refused.store(false, Ordering::Relaxed);
        let refused = Arc::clone(&self.refused);
        self.buffer.map_async(wgpu::MapMode::Read, .., move |mapped| {
            if mapped.is_err() {
                refused.store(true, Ordering::Relaxed);
            }
        });
        let lost = self.refused.load(Ordering::Relaxed);
        if !lost {
            self.buffer.unmap();
        }
        lost
    }
}

/// The device-lost callback's reason in words.
fn in_words(reason: wgpu::DeviceLostReason, message: &str) -> String {
    let message = message.trim();
    match reason {
        wgpu::DeviceLostReason::Destroyed => "its owner destroyed it (`wgpu::Device::destroy`)".into(),
        wgpu::DeviceLostReason::Unknown if message.is_empty() => "the system gave no reason".into(),
        wgpu::DeviceLostReason::Unknown if message.to_lowercase().contains("memory") => {
            format!("it ran out of memory (\"{message}\")")
        }
        wgpu::DeviceLostReason::Unknown => format!(
            "the driver gave it up (\"{message}\"), as it does after work that takes too long, when it is updated, or when the \
             GPU is removed"
        ),
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
    let mut caught = None;
    for error in errors {
        caught = caught.or(error.await);
    }
    health.judge(during, caught.as_ref()).map(|()| value)
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
    let caught = errors.into_iter().find_map(|error| at_once(error).flatten());
    health.judge(during, caught.as_ref()).map(|()| value)
}

/// The errors of recording into an encoder, of which there is one kind; it is not asked whether the device is lost.
pub(super) fn recorded(device: &wgpu::Device, commands: impl FnOnce()) -> Option<wgpu::Error> {
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    commands();
    at_once(scope.pop()).flatten()
}

/// What commands give, unless the device refuses them.
pub(super) fn attempt<T>(device: &wgpu::Device, commands: impl FnOnce() -> T) -> Option<T> {
    let (value, errors) = catch(device, commands);
    let refused = errors.into_iter().any(|error| at_once(error).flatten().is_some());
    (!refused).then_some(value)
}

/// What a future gives, if it need not wait.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
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
    fn the_reason_that_says_most_is_the_one_that_is_told() {
        let reports = Reports::default();
        assert!(reports.loss().is_none());
        for (known_by, reason, told) in [
            (KnownBy::Silence, "silence", "silence"),
            (KnownBy::Report, "reset", "reset"),
            (KnownBy::Report, "destroyed", "reset"),
            (KnownBy::Silence, "silence", "reset"),
            (KnownBy::Memory, "no memory", "no memory"),
            (KnownBy::Report, "reset", "no memory"),
        ] {
            reports.set_lost(known_by, reason.into());
            assert!(matches!(reports.loss(), Some(Error::DeviceLost(reason)) if reason == told));
        }
    }

    #[test]
    fn the_reasons_of_a_loss_are_words() {
        use wgpu::DeviceLostReason::{Destroyed, Unknown};
        assert_eq!(in_words(Destroyed, ""), "its owner destroyed it (`wgpu::Device::destroy`)");
        assert_eq!(in_words(Unknown, " \n"), "the system gave no reason");
        assert_eq!(in_words(Unknown, "Not enough memory left."), "it ran out of memory (\"Not enough memory left.\")");
        assert!(in_words(Unknown, "Device is lost").starts_with("the driver gave it up (\"Device is lost\"), as it"));
        assert_eq!(
            Error::DeviceLost(in_words(Destroyed, "")).to_string(),
            "the device was lost: its owner destroyed it (`wgpu::Device::destroy`). What lay on it is gone, states included: \
             make a new Gpu, and compile on it anew"
        );
    }
}
