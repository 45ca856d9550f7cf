//! What can be wrong with a buffer that a caller gives.

use super::{device::Inner, scope::recorded};

/// What a buffer is given for.
pub(super) struct Purpose {
    pub(super) usage: wgpu::BufferUsages,
    /// Bytes from the slice's offset on, and what they are rounded up to, if anything, in words.
    pub(super) bytes: u64,
    pub(super) rounded: &'static str,
    /// What the offset is a multiple of.
    pub(super) alignment: u64,
}

impl Purpose {
    /// To be bound in kernels.
    pub(super) fn storage(bytes: u64, alignment: u64) -> Self {
        Purpose { usage: wgpu::BufferUsages::STORAGE, bytes, rounded: " (whole 16-byte blocks)", alignment }
    }

    /// To be copied from.
    pub(super) fn source(bytes: u64) -> Self {
        Purpose { usage: wgpu::BufferUsages::COPY_SRC, bytes, rounded: "", alignment: wgpu::COPY_BUFFER_ALIGNMENT }
    }

    /// To be copied into.
    pub(super) fn target(bytes: u64) -> Self {
        Purpose { usage: wgpu::BufferUsages::COPY_DST, ..Self::source(bytes) }
    }

    /// Everything that keeps a buffer from it: predicates, such as "was destroyed".
    pub(super) fn faults(&self, gpu: &Inner, given: wgpu::BufferSlice<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        let missing = self.usage - given.buffer().usage();
        if !missing.is_empty() {
            faults.push(format!("lacks the usage {}", usages(missing)));
        }
        if given.size() < self.bytes {
            let (size, offset) = (given.size(), given.offset());
            let Purpose { bytes, rounded, .. } = self;
            faults.push(format!("has {size} bytes from offset {offset}, expected at least {bytes}{rounded}"));
        }
        if given.offset() % self.alignment != 0 {
            let (offset, alignment) = (given.offset(), self.alignment);
            faults.push(format!("starts at offset {offset}, expected a multiple of {alignment}"));
        }
        faults.extend(state(gpu, given.buffer()));
        faults
    }
}

fn usages(usages: wgpu::BufferUsages) -> String {
    usages.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(" and ")
}

/// Why no command of this device can use a buffer as it is now; nothing where a browser would have to be waited for.
pub(super) fn state(gpu: &Inner, buffer: &wgpu::Buffer) -> Option<String> {
    if cfg!(target_arch = "wasm32") {
        return None;
    }
    // wgpu has no question for these, but it answers a write of nothing, and a look at memory that is not mapped.
    let written = recorded(&gpu.device, || gpu.queue.write_buffer(buffer, 0, &[])).map(|error| error.to_string());
    let seen = match buffer.get_mapped_range(..) {
        Ok(_) => return Some("is mapped: unmap it before it is given".into()),
        Err(error) => error.to_string(),
    };
    match written {
        _ if seen.contains("has been destroyed") => Some("was destroyed".into()),
        Some(text) if text.contains("expected to be unmapped") => {
            Some("is mapped, or about to be: unmap it before it is given".into())
        }
        Some(text) if text.contains("doesn't match") => Some("is of another device".into()),
        Some(text) if text.contains("is invalid") => {
            Some("was never made: the device refused it when it was created".into())
        }
        // The question needs a usage that the buffer may lack.
        Some(text) if buffer.usage().contains(wgpu::BufferUsages::COPY_DST) => {
            Some(format!("can't be used: {}", text.trim()))
        }
        _ => None,
    }
}
