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

/// A device whose owner wants to hear of none of tilewise's errors.
fn quiet(gpu: &Gpu) {
    gpu.device().on_uncaptured_error(std::sync::Arc::new(|error| panic!("the caller's handler got {error}")));
}

fn foreign_gpu() -> (wgpu::Adapter, Gpu) {
    let adapter = foreign();
    let (device, queue) = open(&adapter);
    let gpu = Gpu::from_wgpu(device, queue);
    quiet(&gpu);
    (adapter, gpu)
}

/// Buffers that are no good, and what is said of them.
fn unusable(gpu: &Gpu, adapter: &wgpu::Adapter) -> [(wgpu::Buffer, &'static str); 4] {
    let destroyed = buffer(gpu.device(), 1024, USAGE);
    destroyed.destroy();
    let mapped = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 1024,
        usage: USAGE,
        mapped_at_creation: true,
    });
    let (other, _queue) = open(adapter);
    let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
    let refused = buffer(gpu.device(), 1024, USAGE | wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::MAP_WRITE);
    drop(scope.pop());
    [
        (destroyed, "was destroyed"),
        (mapped, "is mapped: unmap it before it is given"),
        (buffer(&other, 1024, USAGE), "is of another device"),
        (refused, "was never made: the device refused it when it was created"),
    ]
}

#[test]
fn a_buffer_that_cannot_be_used_is_named_wherever_it_is_given() {
    let (adapter, gpu) = foreign_gpu();
    let w = ramp(10, 1.0);
    let mut executable = gpu.load(&sample(10), [("w", &w)]).expect("loads");
    let [y, z] = [(); 2].map(|()| buffer(gpu.device(), 64, USAGE));
    for (bad, why) in unusable(&gpu, &adapter) {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let given = [("x", bad.slice(..)), ("y", y.slice(..)), ("z", z.slice(..))];
        assert_eq!(
            message(executable.encode(&mut encoder, &given)),
            format!("the buffer of `x` {why}; the program's inputs and outputs are: `x`, `y`, `z`")
        );
        // Nothing was recorded, so that the encoder is as good as before.
        gpu.queue().submit([encoder.finish()]);
        assert_eq!(
            message(gpu.load(&sample(10), Parameters::new().buffer("w", bad.clone()))),
            format!("the buffer of `w` {why}; the program's parameters are: `w`")
        );
        assert_eq!(
            message(gpu.download(bad.slice(..), DType::F32, [10])),
            format!("f32 [10] can't be read: the buffer {why}")
        );
    }
    let text =
        message(gpu.download(buffer(gpu.device(), 64, wgpu::BufferUsages::STORAGE).slice(2..), DType::F32, [16]));
    assert_eq!(
        text,
        "f32 [16] can't be read: the buffer lacks the usage COPY_SRC, and has 62 bytes from offset 2, expected at least 64, \
         and starts at offset 2, expected a multiple of 4"
    );
}

/// A buffer may be good when it is first given, and not later.
#[test]
fn a_buffer_that_was_good_before_is_asked_again() {
    let features = wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
    let gpu = Gpu::builder().features(features).build().expect("software adapters have it");
    quiet(&gpu);
    let w = ramp(10, 1.0);
    let mut executable = gpu.load(&sample(10), [("w", &w)]).expect("loads");
    let mappable = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::MAP_WRITE;
    // With and without the usage of the question that is asked.
    for usage in [mappable | wgpu::BufferUsages::COPY_DST, mappable] {
        let x = buffer(gpu.device(), 64, usage);
        let [y, z] = [(); 2].map(|()| buffer(gpu.device(), 64, USAGE));
        let given = [("x", x.slice(..)), ("y", y.slice(..)), ("z", z.slice(..))];
        let mut encode = || {
            let mut encoder = gpu.device().create_command_encoder(&Default::default());
            executable.encode(&mut encoder, &given).map(|()| encoder.finish())
        };
        for _ in 0..2 {
            gpu.queue().submit([encode().expect("records")]);
        }
        x.map_async(wgpu::MapMode::Write, .., |_| ());
        assert!(message(encode()).starts_with("the buffer of `x` is mapped, or about to be: unmap it before"));
        gpu.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device is there");
        assert!(message(encode()).starts_with("the buffer of `x` is mapped: unmap it before"));
        x.unmap();
        gpu.queue().submit([encode().expect("records")]);
    }
}

/// What a program keeps from one run to the next is the caller's, too.
#[test]
fn a_run_says_which_buffer_of_the_caller_it_could_not_use() {
    let features = wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
    let gpu = Gpu::builder().features(features).build().expect("software adapters have it");
    quiet(&gpu);
    let x = ramp(10, 1.0);
    let w = gpu.device().create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 48,
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::MAP_WRITE,
        mapped_at_creation: false,
    });
    let mut executable = gpu.load(&sample(10), Parameters::new().buffer("w", w.clone())).expect("loads");
    let zero = Tensor::zeros(DType::F32, [10]).expect("small");
    check_sample(&mut executable, 10, &zero);
    w.map_async(wgpu::MapMode::Write, .., |_| ());
    assert_eq!(
        message(executable.run(&[("x", &x)])),
        "the buffer of `w` is mapped, or about to be: unmap it before it is given"
    );
    assert!(message(executable.profile()).starts_with("the buffer of `w` is mapped"));
    assert!(message(executable.bench(2, 1)).starts_with("the buffer of `w` is mapped"));
    w.unmap();
    check_sample(&mut executable, 10, &zero);
    w.destroy();
    assert_eq!(message(executable.run(&[("x", &x)])), "the buffer of `w` was destroyed");
}

#[test]
fn a_state_in_a_buffer_without_the_usage_says_so() {
    let mut g = tilewise::Graph::new();
    let count = g.input("count", DType::I32, [1]).expect("valid");
    let one = g.scalar(1.0, count).expect("valid");
    let next = g.add(count, one).expect("valid");
    g.update(count, next).expect("valid");
    let (_adapter, gpu) = foreign_gpu();
    let count = buffer(gpu.device(), 16, wgpu::BufferUsages::STORAGE);
    let mut program = gpu.compile(&g, Parameters::new().buffer("count", count)).expect("compiles");
    program.run(&[]).expect("runs");
    let text = |usage: &str| format!("the buffer of state `count` lacks the usage {usage}");
    assert_eq!(message(program.state("count")), text("COPY_SRC"));
    assert_eq!(message(program.set_state("count", &Tensor::new([1], vec![1i32]).expect("fits"))), text("COPY_DST"));
    assert_eq!(message(program.reset()), text("COPY_DST"));
}

/// Neither a panic, nor an error in the caller's scope or handler: the caller's encoder has a pass that is open.
#[test]
fn an_open_pass_is_an_error_that_only_encode_returns() {
    let (_adapter, gpu) = foreign_gpu();
    let mut executable = gpu.load(&sample(10), [("w", &ramp(10, 1.0))]).expect("loads");
    let [x, y, z] = [(); 3].map(|()| buffer(gpu.device(), 64, USAGE));
    let given = [("x", x.slice(..)), ("y", y.slice(..)), ("z", z.slice(..))];
    for _ in 0..2 {
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        let pass = encoder.begin_compute_pass(&Default::default()).forget_lifetime();
        let scope = gpu.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let text = message(executable.encode(&mut encoder, &given));
        assert!(
            text.starts_with("a pass is open in the encoder: end it (drop the pass) before a program is recorded"),
            "{text}"
        );
        drop(pass);
        assert!(pollster::block_on(scope.pop()).is_none());
    }
    // The next encoder is as good as ever.
    let mut encoder = gpu.device().create_command_encoder(&Default::default());
    executable.encode(&mut encoder, &given).expect("records");
    gpu.queue().submit([encoder.finish()]);
}

/// However many buffers there are, a name that is not the program's, or is given twice, is refused: before a set of them is
/// known, and when it is.
#[test]
fn hundreds_of_buffers_are_checked_like_few() {
    for pairs in [1, 49, 50, 130] {
        let mut b = Builder::new();
        let names: Vec<[String; 2]> = (0..pairs).map(|i| [format!("x{i}"), format!("y{i}")]).collect();
        for [x, y] in &names {
            let (x, y) = (b.input(x, 4), b.output(y, 4));
            b.step(scale(4, 3.0), &[x], y);
        }
        let mut executable = gpu().load(&b.0, []).expect("loads");
        let memory: Vec<wgpu::Buffer> = names.iter().flatten().map(|_| buffer(gpu().device(), 16, USAGE)).collect();
        let given: Vec<(&str, wgpu::BufferSlice<'_>)> =
            names.iter().flatten().zip(&memory).map(|(name, buffer)| (name.as_str(), buffer.slice(..))).collect();
        let mut encode = |given: &[(&str, wgpu::BufferSlice<'_>)]| {
            let mut encoder = gpu().device().create_command_encoder(&Default::default());
            executable.encode(&mut encoder, given).map(|()| encoder.finish())
        };
        let last = given.len() - 1;
        let (mut unknown, mut twice, mut more) = (given.clone(), given.clone(), given.clone());
        unknown[last].0 = "unknown";
        twice[last].0 = twice[0].0;
        more.push(given[0]);
        for _ in 0..3 {
            assert!(message(encode(&unknown)).starts_with("there is no input or output `unknown`; "));
            assert!(message(encode(&twice)).contains("`x0` is given twice; "));
            assert!(message(encode(&more)).starts_with("`x0` is given twice; "));
            assert!(message(encode(&given[1..])).starts_with("input or output `x0` is missing; "));
            gpu().queue().write_buffer(&memory[last - 1], 0, bytemuck::cast_slice(&[1.0f32, 2.0, 3.0, 4.0]));
            gpu().queue().submit([encode(&given).expect("records")]);
            let y = gpu().download(memory[last].slice(..), DType::F32, [4]).expect("reads");
            assert_eq!(y, vector([3.0, 6.0, 9.0, 12.0]), "{pairs} pairs");
        }
    }
}
