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
