//! What loading a model costs on the host: one tensor at a time, not the file.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

mod common;

use common::gpu;
use tilewise::{DType, Graph, Tensor, nn::Weights, safetensors};

/// The system's allocator, which counts the bytes in use and the most that ever were.
struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every request goes to the system's allocator as it is; only numbers are kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Relaxed) + layout.size();
        MOST.fetch_max(used, Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above; the memory came from there.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `f` gives, and the most bytes that were in use during it beyond those before.
fn most<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = USED.load(Relaxed);
    MOST.store(before, Relaxed);
    let result = f();
    (result, MOST.load(Relaxed) - before)
}

#[test]
fn weights_go_to_the_device_one_tensor_at_a_time() {
    const LARGEST: usize = 4 << 20;
    const OTHERS: usize = 12;
    let mut g = Graph::new();
    let mut tensors = BTreeMap::new();
    for i in 0..=OTHERS {
        let name = format!("layer.{i}.weight");
        let bytes = if i == OTHERS / 2 { LARGEST } else { LARGEST / 2 };
        let weight = g.parameter(&name, DType::F32, [bytes / 4]).expect("a new name");
        let sum = g.reduce(tilewise::graph::Reduce::Sum, weight, &[0], false).expect("fits");
        g.output(format!("sum{i}"), sum).expect("a new name");
        tensors.insert(name, Tensor::new([bytes / 4], vec![1.0f32; bytes / 4]).expect("fits"));
    }
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("memory.safetensors");
    safetensors::save(&file, &tensors).expect("writable");
    drop(tensors);
    // Opening the device is no part of it.
    let gpu = gpu();
    let whole = fs::metadata(&file).expect("written").len() as usize;

    let (weights, opening) = most(|| Weights::open(&file).expect("opens"));
    let (uploaded, uploading) = most(|| weights.upload(gpu, &g).expect("fits"));
    println!("a file of {whole} bytes, the largest tensor {LARGEST}: opening {opening}, uploading {uploading}");
    assert!(opening < 64 << 10, "opening reads the header alone, but takes {opening} bytes");
    // The bytes of the file and the tensor that they become.
    assert!((LARGEST..2 * LARGEST + LARGEST / 2).contains(&uploading), "uploading takes {uploading} bytes");
    assert!(uploading * 2 < whole, "uploading takes {uploading} of {whole} bytes");
    let outputs = gpu.compile(&g, uploaded.parameters()).expect("compiles").run(&[]).expect("runs");
    assert_eq!(outputs[&format!("sum{}", OTHERS / 2)].as_f32(), Some(&[(LARGEST / 4) as f32][..]));
}
