mod common;
use std::time::Instant;
use tilewise::{
    gpu::Parameters,
    graph,
    kernel::{self, Arg, Kernel, PointwiseProblem, Problem, buffer_bytes},
    *,
};

fn time(label: &str, kernel: &Kernel, inputs: &[&Tensor], out: (DType, Shape)) {
    use tilewise::lower::*;
    let gpu = common::gpu();
    let mut buffers = vec![];
    let ins: Vec<BufferId> = inputs
        .iter()
        .enumerate()
        .map(|(i, t)| {
            buffers.push(Buffer {
                name: format!("i{i}"),
                dtype: t.dtype(),
                shape: t.shape().clone(),
                bytes: buffer_bytes(t.dtype(), t.len()),
                role: Role::Input(format!("i{i}")),
            });
            BufferId(i)
        })
        .collect();
    buffers.push(Buffer {
        name: "o".into(),
        dtype: out.0,
        shape: out.1.clone(),
        bytes: buffer_bytes(out.0, out.1.elements().unwrap()),
        role: Role::Output("o".into()),
    });
    let o = BufferId(buffers.len() - 1);
    let step = Step {
        family: "x",
        variant: "x",
        reason: "".into(),
        candidates: vec![],
        summary: "".into(),
        covers: vec![],
        kernel: kernel.clone(),
        inputs: ins,
        outputs: vec![o],
        scratch: vec![],
        in_place: None,
    };
    let n = 20;
    let program = Program { unfused_bytes: 0, buffers, allocations: vec![], steps: vec![step; n], notes: vec![] };
    let t0 = Instant::now();
    let mut exe = gpu.load(&program, Parameters::new()).unwrap();
    let named: Vec<(String, &Tensor)> = inputs.iter().enumerate().map(|(i, t)| (format!("i{i}"), *t)).collect();
    let named: Vec<(&str, &Tensor)> = named.iter().map(|(a, b)| (a.as_str(), *b)).collect();
    exe.run(&named).unwrap();
    let first = t0.elapsed();
    // program of n steps, minus program overhead: encode only
    let b: Vec<wgpu::Buffer> = inputs.iter().map(|t| gpu.upload(t).unwrap()).collect();
    let _ = &b;
    let ob = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: buffer_bytes(out.0, out.1.elements().unwrap()),
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
        mapped_at_creation: false,
    });
    let mut times = vec![];
    for _ in 0..7 {
        let mut enc = gpu.device().create_command_encoder(&Default::default());
        let mut pairs: Vec<(String, wgpu::Buffer)> =
            b.iter().enumerate().map(|(i, b)| (format!("i{i}"), b.clone())).collect();
        pairs.push(("o".into(), ob.clone()));
        let pairs: Vec<(&str, wgpu::BufferSlice<'_>)> = pairs.iter().map(|(a, b)| (a.as_str(), b.slice(..))).collect();
        exe.encode(&mut enc, &pairs).unwrap();
        let t = Instant::now();
        gpu.queue().submit([enc.finish()]);
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).unwrap();
        times.push(t.elapsed().as_secs_f64() * 1e3 / n as f64);
    }
    times.sort_by(f64::total_cmp);
    let bytes = kernel.launches[0].bytes as f64;
    println!(
        "{label}: {:.3} ms (min {:.3}) {:.1} GB/s, first {:.2?}",
        times[3],
        times[0],
        bytes / times[3] / 1e6,
        first
    );
}

#[test]
fn timing() {
    let shape = Shape::from([4096, 768]);
    let n = 4096 * 768;
    let x = Tensor::new(shape.clone(), (0..n).map(|i| (i % 1000) as f32 / 100.0 - 5.0).collect::<Vec<f32>>()).unwrap();
    let b = Tensor::new([768], (0..768).map(|i| i as f32).collect::<Vec<f32>>()).unwrap();
    let l = Layout::contiguous(shape.clone());
    use Arg::*;
    use kernel::Instr::*;
    let profile = common::gpu().profile();
    for v in ["plain", "long"] {
        let p = PointwiseProblem::new(
            shape.clone(),
            DType::F32,
            vec![(DType::F32, l.clone())],
            vec![Binary(graph::Binary::Add, Operand(0), Scalar(DType::F32, 2.0))],
        );
        time(&format!("{v} add scalar"), &p.kernel(v, profile).unwrap(), &[&x], (DType::F32, shape.clone()));
        let p = PointwiseProblem::new(
            shape.clone(),
            DType::F32,
            vec![(DType::F32, l.clone()), (DType::F32, Layout::contiguous([768]).broadcast(&shape))],
            vec![Binary(graph::Binary::Add, Operand(0), Operand(1))],
        );
        time(&format!("{v} add bias"), &p.kernel(v, profile).unwrap(), &[&x, &b], (DType::F32, shape.clone()));
        let p = PointwiseProblem::new(
            shape.clone(),
            DType::F32,
            vec![(DType::F32, l.clone()), (DType::F32, l.clone())],
            vec![Binary(graph::Binary::Add, Operand(0), Operand(1))],
        );
        time(&format!("{v} add"), &p.kernel(v, profile).unwrap(), &[&x, &x], (DType::F32, shape.clone()));
        let p = PointwiseProblem::new(
            shape.clone(),
            DType::F32,
            vec![(DType::F32, l.clone()), (DType::F32, Layout::contiguous([768]).broadcast(&shape))],
            vec![Binary(graph::Binary::Add, Operand(0), Operand(1)), Unary(graph::Unary::Gelu, Instr(0))],
        );
        println!(
            "{}",
            p.kernel(v, profile).unwrap().launches[0]
                .source
                .wgsl
                .lines()
                .filter(|l| l.starts_with("fn read") || l.starts_with("fn value") || l.starts_with("fn elements"))
                .collect::<Vec<_>>()
                .join("\n")
        );
        time(&format!("{v} bias gelu"), &p.kernel(v, profile).unwrap(), &[&x, &b], (DType::F32, shape.clone()));
        let p = PointwiseProblem::new(
            shape.clone(),
            DType::F16,
            vec![(DType::F32, l.clone())],
            vec![Cast(DType::F16, Operand(0))],
        );
        time(&format!("{v} cast f16"), &p.kernel(v, profile).unwrap(), &[&x], (DType::F16, shape.clone()));
        let p = PointwiseProblem::new(
            shape.clone(),
            DType::F32,
            vec![(DType::F32, Layout::contiguous([768, 4096]).permute(&[1, 0]))],
            vec![Binary(graph::Binary::Add, Operand(0), Scalar(DType::F32, 2.0))],
        );
        time(&format!("{v} add transposed"), &p.kernel(v, profile).unwrap(), &[&x], (DType::F32, shape.clone()));
        let odd = Shape::from([4096, 767]);
        let xo = Tensor::new(odd.clone(), vec![1f32; 4096 * 767]).unwrap();
        let p = PointwiseProblem::new(
            odd.clone(),
            DType::F32,
            vec![
                (DType::F32, Layout::contiguous(odd.clone())),
                (DType::F32, Layout::contiguous([767]).broadcast(&odd)),
            ],
            vec![Binary(graph::Binary::Add, Operand(0), Operand(1))],
        );
        time(&format!("{v} add bias 767"), &p.kernel(v, profile).unwrap(), &[&xo, &b], (DType::F32, odd.clone()));
    }
}
