//! Compiled pipelines in a file, so that the next start of a program finds them.

use std::{
    fs,
    hash::{DefaultHasher, Hasher},
    path::{Path, PathBuf},
};

use super::{adapter, scope::attempt};
use crate::{Result, files};

/// The first bytes of a file; a checksum of the rest follows.
const HEAD: &[u8; 8] = b"tilewis1";

/// The driver's cache of a device, and the file that keeps it.
#[derive(Debug)]
pub(super) struct PipelineFile {
    pub(super) cache: wgpu::PipelineCache,
    path: PathBuf,
}

impl PipelineFile {
    /// The cache in a folder's file for this device; empty if there is none, or if it is damaged. `None` where the backend
    /// keeps no such cache.
    pub(super) fn open(device: &wgpu::Device, folder: &Path) -> Option<Self> {
        let info = device.adapter_info();
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let key = wgpu::util::pipeline_cache_key(&info)?;
        let mut driver = DefaultHasher::new();
        driver.write(adapter::driver(&info).as_bytes());
        let path = folder.join(format!("{key}_{:016x}", driver.finish()));
        let data = read(&path);
        // SAFETY: the data is what `get_data` gave for this driver: its checksum is right, and nobody but `save` writes
        // files with that head. The driver compares its own header with the device's, and `fallback` has it start afresh
        // if they differ.
        let cache = attempt(device, || unsafe {
            device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
                label: Some("tilewise"),
                data: data.as_deref(),
                fallback: true,
            })
        })?;
        Some(PipelineFile { cache, path })
    }

    /// Writes the file: all of it or nothing.
    pub(super) fn save(&self) -> Result<()> {
        let Some(data) = self.cache.get_data() else { return Ok(()) };
        files::make_folder_of(&self.path)?;
        files::write(&self.path, [&HEAD[..], &checksum(&data).to_le_bytes(), &data].concat())
    }
}

/// What a file keeps, if it is whole.
fn read(path: &Path) -> Option<Vec<u8>> {
    let bytes = fs::read(path).ok()?;
    let (sum, data) = bytes.strip_prefix(HEAD)?.split_first_chunk::<8>()?;
    (checksum(data) == u64::from_le_bytes(*sum)).then(|| data.to_vec())
}

fn checksum(data: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(data);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Graph, Tensor, gpu::Gpu};

    #[test]
    fn pipelines_outlive_the_device_and_a_damaged_file_is_no_harm() {
        let folder = std::env::temp_dir().join(format!("tilewise-pipelines-{}", std::process::id()));
        let start = || Gpu::builder().pipeline_cache(&folder).build().expect("this test needs a GPU adapter");
        let run = |gpu: &Gpu| {
            let mut g = Graph::new();
            let x = g.input("x", DType::F32, [3, 5]).expect("valid");
            let y = g.softmax(x, -1).expect("valid");
            g.output("y", y).expect("valid");
            let x = Tensor::new([3, 5], (0..15).map(|i| i as f32).collect::<Vec<_>>()).expect("fits");
            gpu.compile(&g, []).expect("compiles").run(&[("x", &x)]).expect("runs")["y"].clone()
        };
        let gpu = start();
        let expected = run(&gpu);
        assert_eq!(gpu.save_pipelines().expect("writes"), gpu.info().backend == wgpu::Backend::Vulkan);
        for file in fs::read_dir(&folder).into_iter().flatten() {
            let path = file.expect("is there").path();
            assert!(read(&path).is_some_and(|data| !data.is_empty()), "{}", path.display());
            assert_eq!(run(&start()), expected);
            let mut bytes = fs::read(&path).expect("is there");
            *bytes.last_mut().expect("not empty") ^= 1;
            for damaged in [bytes.clone(), bytes[..bytes.len() / 2].to_vec(), vec![], b"something else".to_vec()] {
                fs::write(&path, damaged).expect("writable");
                assert!(read(&path).is_none());
                assert_eq!(run(&start()), expected);
            }
        }
        let _ = fs::remove_dir_all(folder);
    }

    #[test]
    fn without_a_folder_nothing_is_saved() {
        let gpu = Gpu::new().expect("this test needs a GPU adapter");
        assert!(!gpu.save_pipelines().expect("nothing to do"));
    }
}
