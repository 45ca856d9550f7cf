//! The engine, on hand-made programs: nothing here depends on a kernel of the crate.

mod common;
#[path = "common/program.rs"]
mod program;

use common::gpu;
use program::{Builder, add, kernel, sample, sample_outputs, scale, vector};
use tilewise::{
    DType, Error, Result, Shape, Tensor,
    gpu::{Executable, Gpu, LoadOptions, Parameters, adapters, wgpu},
    kernel::{AdapterKind, Kernel, Operand},
    lower::{Program, Role},
};

fn ramp(n: usize, step: f32) -> Tensor {
    vector((0..n).map(|i| i as f32 * step))
}

fn check_sample(executable: &mut Executable, n: usize, w: &Tensor) {
    let x = ramp(n, 0.25);
    let outputs = executable.run(&[("x", &x)]).expect("runs");
    let [y, z] = sample_outputs(&x, w);
    assert_eq!(outputs["y"], y);
    assert_eq!(outputs["z"], z);
    assert_eq!(outputs.len(), 2);
}

#[track_caller]
fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.expect_err("an error was expected").to_string()
}

mod running {
    use super::*;

    #[test]
    fn a_program_runs_and_gives_the_same_bits_again() {
        for n in [1, 3, 64, 1000] {
            let w = ramp(n, 3.0);
            let mut executable = gpu().load(&sample(n), &[("w", &w)]).expect("loads");
            for _ in 0..3 {
                check_sample(&mut executable, n, &w);
            }
            // A run after one on other data.
            let other = ramp(n, -7.0);
            let outputs = executable.run(&[("x", &other)]).expect("runs");
            assert_eq!(outputs["z"], sample_outputs(&other, &w)[1]);
            check_sample(&mut executable, n, &w);
        }
    }

    #[test]
    fn a_new_shape_compiles_nothing() {
        let gpu = Gpu::new().expect("an adapter");
        assert_eq!(gpu.compiled_pipelines(), 0);
        let w = ramp(10, 1.0);
        let mut small = gpu.load(&sample(10), [("w", &w)]).expect("loads");
        assert_eq!(gpu.compiled_pipelines(), 2, "scale and add");
        let v = ramp(777, 1.0);
        let mut large = gpu.load(&sample(777), [("w", &v)]).expect("loads");
        assert_eq!(gpu.compiled_pipelines(), 2);
        check_sample(&mut small, 10, &w);
        check_sample(&mut large, 777, &v);
        assert_eq!(gpu.compiled_pipelines(), 2);
    }

    #[test]
    fn the_async_twin_gives_the_same_and_its_future_is_send() {
        fn send<T: Send>(value: T) -> T {
            value
        }
        let w = ramp(100, 1.0);
        let x = ramp(100, 1.0);
        pollster::block_on(send(async {
            let gpu = Gpu::new_async().await.expect("an adapter");
            let mut executable = gpu.load_async(&sample(100), [("w", &w)]).await.expect("loads");
            for _ in 0..3 {
                let outputs = executable.run_async(&[("x", &x)]).await.expect("runs");
                assert_eq!(outputs["y"], sample_outputs(&x, &w)[0]);
            }
        }));
    }

    #[test]
    fn a_dropped_run_does_no_harm() {
        let w = ramp(100, 1.0);
        let mut executable = gpu().load(&sample(100), [("w", &w)]).expect("loads");
        check_sample(&mut executable, 100, &w);
        {
            let x = ramp(100, 9.0);
            let inputs = [("x", &x)];
            let mut run = std::pin::pin!(executable.run_async(&inputs));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            let _ = run.as_mut().poll(&mut context);
        }
        check_sample(&mut executable, 100, &w);
    }

    #[test]
    fn threads_share_a_device() {
        std::thread::scope(|scope| {
            for n in [5, 50, 500] {
                scope.spawn(move || {
                    let w = ramp(n, 2.0);
                    let mut executable = gpu().load(&sample(n), [("w", &w)]).expect("loads");
                    for _ in 0..20 {
                        check_sample(&mut executable, n, &w);
                    }
                });
            }
        });
    }

    #[test]
    fn an_empty_tensor_is_no_special_case() {
        let w = ramp(0, 1.0);
        let mut executable = gpu().load(&sample(0), [("w", &w)]).expect("loads");
        check_sample(&mut executable, 0, &w);
        let empty = Tensor::zeros(DType::F32, [3, 0]).expect("empty");
        let y = gpu().run_kernel(&scale(0, 1.0), &[&empty], &[(DType::F32, Shape::from([0, 7]))]).expect("runs");
        assert_eq!(y, [Tensor::zeros(DType::F32, [0, 7]).expect("empty")]);
        let down = gpu().download(gpu().upload(&empty).expect("uploads").slice(..), DType::F32, [3, 0]);
        assert_eq!(down.expect("downloads"), empty);
    }

    #[test]
    fn narrow_types_arrive_as_they_left() {
        let copy = "
@group(0) @binding(1) var<storage, read> x: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(4)
fn main(@builtin(global_invocation_id) id: vec3u) { y[id.x] = x[id.x]; }";
        for n in [1, 2, 3, 5, 7] {
            let flags = Tensor::new([n], (0..n).map(|i| i % 3 == 0).collect::<Vec<bool>>()).expect("fits");
            let halves: Vec<half::f16> = (0..n).map(|i| half::f16::from_f32(i as f32 + 0.5)).collect();
            let halves = Tensor::new([n], halves).expect("fits");
            for tensor in [flags, halves] {
                let spec = [(tensor.dtype(), tensor.shape().clone())];
                let copied = gpu().run_kernel(&kernel(copy, 1, &[], 1), &[&tensor], &spec).expect("runs");
                assert_eq!(copied, [tensor]);
            }
        }
    }

    #[test]
    fn tensors_go_up_and_come_down() {
        let tensor = ramp(33, 1.5);
        let buffer = gpu().upload(&tensor).expect("uploads");
        assert_eq!(buffer.size(), 144);
        assert_eq!(gpu().download(buffer.slice(..), DType::F32, [33]).expect("downloads"), tensor);
        let part = gpu().download(buffer.slice(8..), DType::F32, [3]).expect("downloads");
        assert_eq!(part, vector([3.0, 4.5, 6.0]));
        let text = message(gpu().download(buffer.slice(8..), DType::F32, [35]));
        assert_eq!(text, "f32 [35] needs 140 bytes, the buffer has 136 from offset 8");
    }
}

mod names {
    use super::*;

    #[test]
    fn everything_wrong_with_the_inputs_is_in_one_error() {
        let mut b = Builder::new();
        let (p, q, r) = (b.input("p", 4), b.input("q", 4), b.input("r", 4));
        let y = b.output("y", 4);
        b.step(add(4), &[p, q], y);
        let _ = r;
        let mut executable = gpu().load(&b.0, []).expect("loads");
        let (short, integers) = (ramp(3, 1.0), Tensor::new([4], vec![1i32; 4]).expect("fits"));
        let text = message(executable.run(&[("p", &short), ("q", &integers), ("Q", &short), ("p", &short)]));
        assert_eq!(
            text,
            "`p` is f32 [3], expected f32 [4]; `q` is i32 [4], expected f32 [4]; there is no input `Q`; \
             `p` is given twice; input `r` is missing; the program's inputs are: `p`, `q`, `r`"
        );
    }

    #[test]
    fn parameters_are_checked_alike() {
        let w = ramp(4, 1.0);
        let text = message(gpu().load(&sample(4), []));
        assert_eq!(text, "parameter `w` is missing; the program's parameters are: `w`");
        let text = message(gpu().load(&sample(5), [("w", &w), ("v", &w)]));
        assert!(text.starts_with("`w` is f32 [4], expected f32 [5]; there is no parameter `v`"), "{text}");
        let buffer = gpu().upload(&w).expect("uploads");
        let text = message(gpu().load(&sample(5), Parameters::new().buffer("w", buffer)));
        assert!(text.contains("`w` has 16 bytes from offset 0, expected at least 32"), "{text}");
    }

    #[test]
    fn parameters_may_be_shared_buffers_and_maps() {
        let w = ramp(9, 4.0);
        let buffer = gpu().upload(&w).expect("uploads");
        for _ in 0..2 {
            let parameters = Parameters::new().buffer("w", buffer.clone());
            check_sample(&mut gpu().load(&sample(9), parameters).expect("loads"), 9, &w);
        }
        let map = std::collections::BTreeMap::from([("w".to_string(), w.clone())]);
        check_sample(&mut gpu().load(&sample(9), &map).expect("loads"), 9, &w);
    }
}

mod callers_buffers {
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
        assert_eq!(message(first.buffer("Y")), "there is no input or output `Y`");
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
                 the program's input or outputs are: `x`, `y`, `z`"
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
        assert!(
            text.starts_with("output `y` has the same buffer as `x`; output `z` has the same buffer as `w`"),
            "{text}"
        );
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
}

mod failures {
    use super::*;

    #[test]
    fn a_lost_device_is_an_error_from_then_on() {
        let gpu = Gpu::new().expect("an adapter");
        let w = ramp(10, 1.0);
        let mut executable = gpu.load(&sample(10), [("w", &w)]).expect("loads");
        check_sample(&mut executable, 10, &w);
        gpu.device().destroy();
        let lost = |result: Result<()>| match result {
            Err(Error::DeviceLost(_)) => {}
            other => panic!("expected Error::DeviceLost, got {other:?}"),
        };
        lost(executable.run(&[("x", &w)]).map(drop));
        lost(executable.run(&[("x", &w)]).map(drop));
        lost(executable.profile().map(drop));
        lost(gpu.load(&sample(11), [("w", &w)]).map(drop));
        lost(gpu.upload(&w).map(drop));
        let mut encoder = gpu.device().create_command_encoder(&Default::default());
        lost(executable.encode(&mut encoder, &[]));
        // Another device is not affected.
        check_sample(&mut super::gpu().load(&sample(10), [("w", &w)]).expect("loads"), 10, &w);
    }

    #[test]
    fn the_loss_of_the_callers_device_is_noticed() {
        let owner = Gpu::new().expect("an adapter");
        let gpu = Gpu::from_wgpu(owner.device().clone(), owner.queue().clone());
        let w = ramp(10, 1.0);
        let mut executable = gpu.load(&sample(10), [("w", &w)]).expect("loads");
        owner.device().destroy();
        assert!(matches!(executable.run(&[("x", &w)]), Err(Error::DeviceLost(_))));
        assert!(matches!(gpu.upload(&w), Err(Error::DeviceLost(_))));
        let gpu = Gpu::from_wgpu(owner.device().clone(), owner.queue().clone());
        gpu.report_lost("unplugged");
        assert!(message(gpu.upload(&w)).contains("unplugged"));
    }

    #[test]
    fn a_rejected_shader_names_itself_and_says_why() {
        for (wgsl, why) in [
            ("fn main( {}", "expected"),
            ("@compute @workgroup_size(1) fn main() { let x: u32 = 1.5; }", "AbstractFloat"),
            ("@compute @workgroup_size(4096) fn main() {}", "workgroup"),
            ("@compute @workgroup_size(1) fn other() {}", "main"),
        ] {
            match gpu().run_kernel(&kernel(wgsl, 1, &[], 1), &[&ramp(4, 1.0)], &[(DType::F32, Shape::from([4]))]) {
                Err(Error::Shader { kernel, message }) => {
                    assert_eq!(kernel, "test");
                    assert!(message.contains(why), "{message}");
                }
                other => panic!("{wgsl}: expected Error::Shader, got {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_over_a_limit_is_refused_by_name() {
        let gpu = Gpu::builder().portable(true).build().expect("an adapter");
        assert_eq!(gpu.profile().limits, tilewise::kernel::Profile::portable().limits);
        let mut b = Builder::new();
        let big = b.input("big", (128 << 20) / 4 + 1);
        let y = b.output("y", 4);
        b.step(scale(4, 1.0), &[big], y);
        match gpu.load(&b.0, []) {
            Err(Error::Limit { what, value, limit, hint }) => {
                assert!(what.starts_with("bytes of `big` (max_storage_buffer_binding_size of "), "{what}");
                assert_eq!((value, limit), ((128 << 20) + 16, 128 << 20));
                assert!(!hint.is_empty());
            }
            other => panic!("expected Error::Limit, got {other:?}"),
        }

        let limit = |program: &Program| match gpu.load(program, []) {
            Err(Error::Limit { what, value, limit, .. }) => (what, value, limit),
            other => panic!("expected Error::Limit, got {other:?}"),
        };
        let mut b = Builder::new();
        let (x, y) = (b.input("x", 4), b.output("y", 4));
        b.step(kernel(program::SCALE, 1, &[4, 0], 65_536), &[x], y);
        let text = "test plain: main: workgroups (max_compute_workgroups_per_dimension)".to_string();
        assert_eq!(limit(&b.0), (text, 65_536, 65_535));
        let mut b = Builder::new();
        let inputs: Vec<_> = (0..8).map(|i| b.input(&format!("x{i}"), 4)).collect();
        let y = b.output("y", 4);
        b.step(kernel("", 8, &[], 1), &inputs, y);
        let text = "test plain: main: storage buffers (max_storage_buffers_per_shader_stage)".to_string();
        assert_eq!(limit(&b.0), (text, 9, 8));
    }

    #[test]
    fn an_error_that_nobody_caught_is_returned_by_the_next_call_once() {
        let gpu = Gpu::new().expect("an adapter");
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::MAP_WRITE;
        let wrong = wgpu::BufferDescriptor { label: None, size: 16, usage, mapped_at_creation: false };
        let _ = gpu.device().create_buffer(&wrong);
        match gpu.upload(&ramp(4, 1.0)) {
            Err(Error::Validation { during, .. }) => assert_eq!(during, "an earlier command"),
            other => panic!("expected Error::Validation, got {other:?}"),
        }
        gpu.upload(&ramp(4, 1.0)).expect("works again");
    }

    #[test]
    fn a_program_that_breaks_its_rules_is_refused() {
        let broken = |change: fn(&mut Program)| {
            let mut program = sample(4);
            change(&mut program);
            message(gpu().load(&program, [("w", &ramp(4, 1.0))]))
        };
        assert_eq!(
            broken(|p| p.buffers[0].bytes = 8),
            "program: buffer `x` has 8 bytes, expected a multiple of 16 and at least 16 for f32 [4]"
        );
        assert_eq!(
            broken(|p| p.buffers[6].role = Role::Output("y".into())),
            "program: buffer `z` has the name `y` of another input, parameter or output"
        );
        assert_eq!(
            broken(|p| p.buffers[3].role = Role::Temporary(7)),
            "program: buffer `t` lies in allocation 7, there are 2"
        );
        assert_eq!(
            broken(|p| p.steps[1].inputs[0].0 = 70),
            "program: step 1 (test plain): names buffer 70, there are 7"
        );
        assert_eq!(
            broken(|p| p.steps[0].kernel.launches[0].bindings[0].operand = Operand::Input(1)),
            "program: step 0 (test plain): `main` binds Input(1), there are 1"
        );
        assert_eq!(
            broken(|p| p.steps[1].outputs[0] = p.steps[1].inputs[0]),
            "program: step 1 (test plain): `main` binds the memory of `t` twice and writes it"
        );
        assert!(broken(|p| p.steps[0].outputs[0].0 = 1).contains("`main` writes `w`, which is Parameter"));
        assert!(broken(|p| p.steps[1].in_place = Some(0)).contains("takes over `t` as `u`, which are not two"));
    }
}

mod guarded {
    use super::*;

    fn guard_message(kernel: &Kernel, n: usize) -> String {
        match gpu().run_kernel(kernel, &[&ramp(n, 1.0)], &[(DType::F32, Shape::from([n / 2, 2]))]) {
            Err(Error::Guard(message)) => message,
            other => panic!("expected Error::Guard, got {other:?}"),
        }
    }

    #[test]
    fn a_good_kernel_passes() {
        let y = gpu().run_kernel(&scale(1000, 3.0), &[&ramp(1000, 1.0)], &[(DType::F32, Shape::from([1000]))]);
        assert_eq!(y.expect("runs"), [ramp(1000, 3.0)]);
    }

    #[test]
    fn an_unwritten_element_is_found() {
        assert_eq!(
            guard_message(&scale(97, 3.0), 100),
            "`output 0` (written by step 0, kernel given: main): element 97 ([48, 1]) was never written, \
             or comes from memory that was never written"
        );
    }

    #[test]
    fn a_write_behind_the_end_is_found() {
        let message = guard_message(&scale(102, 3.0), 100);
        assert!(message.contains("32-bit word 0 behind its end (400 bytes) was overwritten with 0x"), "{message}");
    }

    #[test]
    fn a_read_of_unwritten_memory_is_found() {
        // max drops a NaN, so the first run looks right.
        let wgsl = program::INCREMENT.replace("x[id.x] + 1.0", "max(1.0, x[id.x])");
        let mut kernel = kernel(&wgsl, 0, &[64], 1);
        let message = guard_message(&kernel, 64);
        assert!(message.contains("is 0x3f800000 in one run and 0x6f6f6f6f in the next"), "{message}");
        // Scratch that is read before it is written.
        let two = program::SCALE.replace("x[id.x]", "max(1.0, x[id.x])");
        kernel = program::kernel(&two, 1, &[64, 1f32.to_bits()], 1);
        kernel.scratch = vec![256];
        kernel.launches[0].bindings[0].operand = Operand::Scratch(0);
        let message = guard_message(&kernel, 64);
        assert!(message.contains("in one run and 0x6f6f6f6f in the next"), "{message}");
    }

    #[test]
    fn a_bool_that_is_neither_is_found() {
        let wgsl = program::SCALE.replace("p.factor * x[id.x]", "bitcast<f32>(0x01000201u)");
        let text = message(gpu().run_kernel(
            &kernel(&wgsl, 1, &[1, 0], 1),
            &[&ramp(1, 1.0)],
            &[(DType::Bool, Shape::from([4]))],
        ));
        assert!(text.ends_with("element 1 ([1]) is the byte 0x02, neither 0 nor 1"), "{text}");
    }

    #[test]
    fn whole_programs_are_watched() {
        let w = ramp(30, 1.0);
        let load = |program: &Program| gpu().load_with(program, [("w", &w)], LoadOptions { guard: true });
        check_sample(&mut load(&sample(30)).expect("loads"), 30, &w);

        // A temporary that is written only in part shows in the outputs that come from it.
        let mut partly = sample(30);
        partly.steps[0].kernel = scale(29, 2.0);
        let text = message(load(&partly).expect("loads").run(&[("x", &w)]));
        assert!(
            text.starts_with("`y` (written by step 2, test plain: number 2): element 29 ([29]) was never"),
            "{text}"
        );

        // 32 elements fill whole 16-byte blocks; the 33rd is behind the end of the temporary.
        let mut beyond = sample(32);
        beyond.steps[0].kernel = scale(33, 2.0);
        let w = ramp(32, 1.0);
        let options = LoadOptions { guard: true };
        let text = message(gpu().load_with(&beyond, [("w", &w)], options).expect("loads").run(&[("x", &w)]));
        assert!(text.starts_with("`t` (written by step 0, test plain: number 0): 32-bit word 0 behind"), "{text}");
    }

    #[test]
    fn what_is_taken_over_in_place_is_watched_too() {
        let n = 20;
        let mut b = Builder::new();
        let x = b.input("x", n);
        let t = b.temporary("t", n);
        let u = b.buffer("u", DType::F32, [n], Role::Temporary(0));
        let v = b.buffer("v", DType::F32, [n], Role::Temporary(0));
        let y = b.output("y", n);
        let increment = || kernel(program::INCREMENT, 0, &[n as u32], 1);
        b.step(scale(n, 2.0), &[x], t);
        b.step(increment(), &[t], u).in_place = Some(0);
        b.step(increment(), &[u], v).in_place = Some(0);
        b.step(scale(n, 1.0), &[v], y);
        let x = ramp(n, 1.0);
        let expected = vector((0..n).map(|i| 2.0 * i as f32 + 2.0));
        for guard in [false, true] {
            let mut executable = gpu().load_with(&b.0, [], LoadOptions { guard }).expect("loads");
            for _ in 0..2 {
                assert_eq!(executable.run(&[("x", &x)]).expect("runs")["y"], expected, "guard: {guard}");
            }
        }
    }
}

mod times {
    use super::*;

    fn check(gpu: &Gpu, has_clock: bool) {
        let n = 20_000;
        let w = ramp(n, 1.0);
        let mut executable = gpu.load(&sample(n), [("w", &w)]).expect("loads");
        assert_eq!((executable.flops(), executable.bytes()), (4, 8));
        executable.set_inputs(&[("x", &ramp(n, 1.0))]).expect("fills");
        for _ in 0..2 {
            let profile = executable.profile().expect("runs");
            assert_eq!(profile.steps.len(), 4);
            assert_eq!(profile.steps[3].label, "test plain: number 3");
            assert!(!profile.wall.is_zero());
            assert_eq!(profile.gpu.is_some(), has_clock);
            for step in &profile.steps {
                assert_eq!(step.gpu.is_some(), has_clock);
                if let (Some(step), Some(all)) = (step.gpu, profile.gpu) {
                    assert!(!step.is_zero() && step <= all, "{step:?} of {all:?}");
                }
            }
        }
        for (iterations, rotations) in [(1, 0), (10, 1), (7, 3), (7, 2), (2, 5)] {
            let timing = executable.bench(iterations, rotations).expect("runs");
            assert_eq!(timing.iterations, iterations);
            assert_eq!(timing.gpu.is_some(), has_clock);
            assert!(timing.seconds() > 0.0 && timing.seconds() <= timing.wall.as_secs_f64());
        }
        check_sample(&mut executable, n, &w);
    }

    #[test]
    fn steps_and_runs_are_timed() {
        check(gpu(), gpu().has_timestamps());
    }

    #[test]
    fn a_pass_for_each_step_where_a_pass_has_no_timestamps() {
        if !gpu().has_timestamps() {
            return check(gpu(), false);
        }
        let gpu = Gpu::builder().portable(true).features(wgpu::Features::TIMESTAMP_QUERY).build().expect("an adapter");
        check(&gpu, true);
    }

    #[test]
    fn without_a_clock_only_the_wall_time_is_there() {
        check(&Gpu::builder().portable(true).build().expect("an adapter"), false);
    }

    #[test]
    fn an_empty_program_takes_no_time() {
        let mut executable = gpu().load(&Builder::new().0, []).expect("loads");
        assert!(executable.run(&[]).expect("runs").is_empty());
        assert!(executable.profile().expect("runs").steps.is_empty());
    }
}

mod choosing {
    use super::*;

    #[test]
    fn adapters_are_listed_and_chosen() {
        let all = adapters();
        assert!(!all.is_empty());
        for (i, adapter) in all.iter().enumerate() {
            assert_eq!(adapter.index, i);
            assert!(adapter.to_string().contains(&adapter.name));
            assert_eq!(adapter.kind() == AdapterKind::Cpu, adapter.device_type == wgpu::DeviceType::Cpu);
        }
        let last = &all[all.len() - 1];
        let gpu = Gpu::builder().adapter_index(last.index).build().expect("opens");
        assert_eq!(gpu.info().name, last.name);
        let gpu = Gpu::builder().adapter(last.name.to_uppercase()).build().expect("opens");
        assert_eq!(gpu.info().name, last.name);
        assert_eq!(gpu.profile(), &last.profile, "the device offers what the adapter promised");
    }

    #[test]
    fn an_unknown_adapter_is_an_error_that_lists_the_known() {
        for (builder, what) in [
            (Gpu::builder().adapter("Voodoo 2"), "an adapter named `Voodoo 2` was asked for; found: 0: "),
            (Gpu::builder().adapter_index(99), "adapter 99 was asked for; found: 0: "),
        ] {
            match builder.build() {
                Err(Error::NoAdapter { message, hint }) => {
                    assert!(message.starts_with(what), "{message}");
                    assert!(message.contains(&adapters()[0].name), "{message}");
                    assert!(!hint.is_empty());
                }
                other => panic!("expected Error::NoAdapter, got {other:?}"),
            }
        }
    }

    #[test]
    fn a_test_without_its_adapter_fails_with_a_hint() {
        let output = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "guarded::a_good_kernel_passes", "--nocapture"])
            .env("WGPU_ADAPTER_NAME", "Voodoo 2")
            .output()
            .expect("starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(text.contains("an adapter named `Voodoo 2` (WGPU_ADAPTER_NAME) was asked for; found: "), "{text}");
        if cfg!(target_os = "linux") {
            assert!(text.contains("apt-get install mesa-vulkan-drivers"), "{text}");
        }
    }

    #[test]
    fn a_missing_feature_is_an_error() {
        // Pipelines for ray tracing, which no software adapter has, or else a feature that no GPU has all of.
        let adapter = &adapters()[0];
        let missing = wgpu::Features::all() - adapter.features;
        let first = missing.iter().next().expect("no adapter has every feature");
        let error = Gpu::builder().adapter_index(0).features(first).build();
        assert!(message(error).contains("lacks"));
    }
}
