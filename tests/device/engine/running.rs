use super::*;

#[test]
fn a_program_runs_and_gives_the_same_bits_again() {
    for n in [1, 3, 64, 1000] {
        let w = ramp(n, 3.0);
        let mut executable = gpu().load(&sample(n), [("w", &w)]).expect("loads");
        let shape = Shape::from([n]);
        assert_eq!(executable.inputs().collect::<Vec<_>>(), [("x", DType::F32, &shape)]);
        let outputs = [("y", DType::F32, &shape), ("z", DType::F32, &shape)];
        assert_eq!(executable.outputs().collect::<Vec<_>>(), outputs);
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
    assert_eq!(text, "f32 [35] can't be read: the buffer has 136 bytes from offset 8, expected at least 140");
}

#[test]
fn a_large_tensor_goes_up_in_pieces() {
    let n = (128 << 20) / 4; // the least that every device can bind
    let values: Vec<u32> = (0..n as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
    let tensor = Tensor::new([n], values).expect("fits");
    let buffer = gpu().upload(&tensor).expect("uploads");
    for start in [0, n / 2 - 4, n - 8] {
        let part = gpu().download(buffer.slice(start as u64 * 4..), DType::U32, [8]).expect("downloads");
        assert_eq!(part.as_bytes(), &tensor.as_bytes()[start * 4..][..32], "from element {start}");
    }
}
