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
    let wgsl = INCREMENT.replace("x[id.x] + 1.0", "max(1.0, x[id.x])");
    let message = guard_message(&kernel(&wgsl, 0, &[64], 1), 64);
    assert!(message.contains("is 0x3f800000 in one run and 0x6f6f6f6f in the next"), "{message}");
    // Workspace that is read before it is written.
    let two = SCALE.replace("x[id.x]", "max(1.0, x[id.x])");
    let mut with_workspace = kernel(&two, 1, &[64, 1f32.to_bits()], 1);
    with_workspace.workspace = vec![256];
    with_workspace.launches[0].bindings[0].operand = Operand::Workspace(0);
    let message = guard_message(&with_workspace, 64);
    assert!(message.contains("in one run and 0x6f6f6f6f in the next"), "{message}");
}

#[test]
fn a_bool_that_is_neither_is_found() {
    let wgsl = SCALE.replace("p.factor * x[id.x]", "bitcast<f32>(0x01000201u)");
    let text =
        message(gpu().run_kernel(&kernel(&wgsl, 1, &[1, 0], 1), &[&ramp(1, 1.0)], &[(DType::Bool, Shape::from([4]))]));
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
    assert!(text.starts_with("`y` (written by step 2, test plain: number 2): element 29 ([29]) was never"), "{text}");

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
    let increment = || kernel(INCREMENT, 0, &[n as u32], 1);
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
