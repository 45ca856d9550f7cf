use super::*;

/// An adapter as another program would open it.
fn foreign() -> wgpu::Adapter {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    pollster::block_on(instance.request_adapter(&Default::default())).expect("an adapter")
}

/// A device with the default limits and no features.
fn open(adapter: &wgpu::Adapter) -> (wgpu::Device, wgpu::Queue) {
    pollster::block_on(adapter.request_device(&Default::default())).expect("a device")
}

fn buffer(device: &wgpu::Device, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
}

const USAGE: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

#[test]
fn a_program_is_recorded_on_the_callers_device() {
    let (device, queue) = open(&foreign());
    let gpu = Gpu::from_wgpu(device.clone(), queue.clone());
    assert!(!gpu.has_timestamps());
    assert_eq!(gpu.profile().subgroup, None);
    let n = 100;
    let w = ramp(n, 2.0);
    let mut executable = gpu.load(&sample(n), [("w", &w)]).expect("loads");
    // More sets than are kept, with the first one again at the end; y lies in the middle of its buffer.
    let sets: Vec<[wgpu::Buffer; 3]> = (0..10)
        .map(|_| [buffer(&device, 400, USAGE), buffer(&device, 1024, USAGE), buffer(&device, 512, USAGE)])
        .collect();
    for (round, [x, y, z]) in sets.iter().chain(&sets[..1]).enumerate() {
        let input = ramp(n, round as f32);
        queue.write_buffer(x, 0, input.as_bytes());
        let mut encoder = device.create_command_encoder(&Default::default());
        executable
            .encode(&mut encoder, &[("z", z.slice(..)), ("x", x.slice(..)), ("y", y.slice(256..))])
            .expect("records");
        queue.submit([encoder.finish()]);
        let expected = sample_outputs(&input, &w);
        assert_eq!(gpu.download(y.slice(256..), DType::F32, [n]).expect("y"), expected[0], "round {round}");
        assert_eq!(gpu.download(z.slice(..), DType::F32, [n]).expect("z"), expected[1], "round {round}");
    }
    // The same executable on host tensors.
    check_sample(&mut executable, n, &w);
}

#[test]
fn programs_are_chained_in_one_submission() {
    let n = 70;
    let w = ramp(n, 1.0);
    let mut first = gpu().load(&sample(n), [("w", &w)]).expect("loads");
    let mut second = gpu().load(&sample(n), [("w", &w)]).expect("loads");
    let x = ramp(n, 1.0);
    let on_device = gpu().upload(&x).expect("uploads");
    let (y, z) = (first.buffer("y").expect("y"), first.buffer("z").expect("z"));
    let (yy, zz) = (second.buffer("y").expect("y"), second.buffer("z").expect("z"));
    let mut encoder = gpu().device().create_command_encoder(&Default::default());
    let buffers = [("x", on_device.slice(..)), ("y", y.slice(..)), ("z", z.slice(..))];
    first.encode(&mut encoder, &buffers).expect("records");
    let buffers = [("x", y.slice(..)), ("y", yy.slice(..)), ("z", zz.slice(..))];
    second.encode(&mut encoder, &buffers).expect("records");
    gpu().queue().submit([encoder.finish()]);
    let expected = &sample_outputs(&sample_outputs(&x, &w)[0], &w)[0];
    assert_eq!(&gpu().download(yy.slice(..), DType::F32, [n]).expect("y"), expected);
    assert_eq!(message(first.buffer("Y")), "there is no input, output or state `Y`");
}

#[test]
fn everything_wrong_with_the_buffers_is_in_one_error() {
    let device = gpu().device();
    let mut executable = gpu().load(&sample(100), [("w", &ramp(100, 1.0))]).expect("loads");
    let mut encoder = device.create_command_encoder(&Default::default());
    let small = buffer(device, 384, USAGE);
    let copies = buffer(device, 1024, wgpu::BufferUsages::COPY_DST);
    let given = [("x", small.slice(..)), ("y", copies.slice(4..)), ("t", small.slice(..))];
    let text = message(executable.encode(&mut encoder, &given));
    let alignment = device.limits().min_storage_buffer_offset_alignment;
    assert_eq!(
        text,
        format!(
            "the buffer of `x` has 384 bytes from offset 0, expected at least 400 (whole 16-byte blocks); \
             the buffer of `y` lacks the usage STORAGE; \
             the buffer of `y` starts at offset 4, expected a multiple of {alignment}; \
             there is no input or output `t`; input or output `z` is missing; \
             the program's inputs and outputs are: `x`, `y`, `z`"
        )
    );
}

#[test]
fn an_output_may_not_share_its_buffer() {
    let device = gpu().device();
    let weight = gpu().upload(&ramp(10, 1.0)).expect("uploads");
    let parameters = Parameters::new().buffer("w", weight.clone());
    let mut executable = gpu().load(&sample(10), parameters).expect("loads");
    let mut encoder = device.create_command_encoder(&Default::default());
    let shared = buffer(device, 1024, USAGE);
    let given = [("x", shared.slice(..)), ("y", shared.slice(512..)), ("z", weight.slice(..))];
    let text = message(executable.encode(&mut encoder, &given));
    assert!(text.starts_with("output `y` has the same buffer as `x`; output `z` has the same buffer as `w`"), "{text}");
}

#[test]
fn a_buffer_of_another_device_is_an_error() {
    let adapter = foreign();
    let (device, queue) = open(&adapter);
    let gpu = Gpu::from_wgpu(device, queue);
    let mut executable = gpu.load(&sample(10), [("w", &ramp(10, 1.0))]).expect("loads");
    let (other, _queue) = open(&adapter);
    let buffers: Vec<wgpu::Buffer> = (0..3).map(|_| buffer(&other, 64, USAGE)).collect();
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    let given = [("x", buffers[0].slice(..)), ("y", buffers[1].slice(..)), ("z", buffers[2].slice(..))];
    match executable.encode(&mut encoder, &given) {
        Err(Error::Validation { during, .. }) => assert_eq!(during, "the caller's buffers"),
        other => panic!("expected Error::Validation, got {other:?}"),
    }
}
