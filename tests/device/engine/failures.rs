use super::*;

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
    b.step(kernel(SCALE, 1, &[4, 0], 65_536), &[x], y);
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
        "program: buffer `z` has the name `y` of another input, state, parameter or output"
    );
    assert_eq!(
        broken(|p| p.buffers[3].role = Role::Temporary(7)),
        "program: buffer `t` lies in allocation 7, there are 2"
    );
    assert_eq!(broken(|p| p.steps[1].inputs[0].0 = 70), "program: step 1 (test plain): names buffer 70, there are 7");
    assert_eq!(
        broken(|p| p.steps[0].kernel.launches[0].bindings[0].operand = Operand::Input(1)),
        "program: step 0 (test plain): `main` binds input 1, there are 1"
    );
    assert_eq!(
        broken(|p| p.steps[1].outputs[0] = p.steps[1].inputs[0]),
        "program: step 1 (test plain): `main` binds the memory of `t` twice and writes it"
    );
    assert!(broken(|p| p.steps[0].outputs[0].0 = 1).contains("`main` writes `w`, which is the parameter"));
    assert!(broken(|p| p.steps[1].in_place = Some(0)).contains("takes over `t` as `u`, which are not two"));
}
