//! What loading a model costs on the host: one tensor at a time, not the file.

use std::{collections::BTreeMap, fs, path::PathBuf};

use tilewise::{DType, Graph, Tensor, nn::Weights, safetensors};

use crate::{common::gpu, heap::most};

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

    let (opening, weights) = most(|| Weights::open(&file).expect("opens"));
    let (uploading, uploaded) = most(|| weights.upload(gpu, &g).expect("fits"));
    println!("a file of {whole} bytes, the largest tensor {LARGEST}: opening {opening}, uploading {uploading}");
    assert!(opening < 64 << 10, "opening reads the header alone, but takes {opening} bytes");
    // The bytes of the file and the tensor that they become.
    assert!((LARGEST..2 * LARGEST + LARGEST / 2).contains(&uploading), "uploading takes {uploading} bytes");
    assert!(uploading * 2 < whole, "uploading takes {uploading} of {whole} bytes");
    let outputs = gpu.compile(&g, uploaded.parameters()).expect("compiles").run(&[]).expect("runs");
    assert_eq!(outputs[&format!("sum{}", OTHERS / 2)].as_f32(), Some(&[(LARGEST / 4) as f32][..]));
}
