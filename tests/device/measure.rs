//! Measuring, on the device: what comes out is complete and consistent. How fast anything is, no test can say.

use tilewise::{
    kernel::Arithmetic,
    lower::{self, Options},
    measure::{Effort, Probe, Protocol, Timed},
    workloads::{self, Size},
};

use crate::common::gpu;

#[test]
fn ceilings_are_measured_and_bound_what_is_timed_beside_them() {
    let mut probe = Probe::new(gpu(), Effort::Quick).expect("runs");
    let first = probe.ceilings();
    probe.sample().expect("runs");
    let ceilings = probe.ceilings();
    for (before, after) in [(first.memory, ceilings.memory), (first.cache, ceilings.cache)] {
        // The best sample counts, so more of them never lower a ceiling.
        assert!(before.is_finite() && before > 0.0 && after >= before, "{before} and {after}");
    }
    assert!(ceilings.cache >= ceilings.memory && ceilings.cache_bytes > 0);
    assert_eq!(ceilings.bandwidth.len(), 4);
    assert!(ceilings.dispatch > 0.0 && ceilings.submit >= ceilings.dispatch, "{ceilings:?}");
    assert_eq!(ceilings.multiply.contains_key(&Arithmetic::F16), gpu().profile().shader_f16);
    let matrices = &gpu().profile().cooperative_matrices;
    assert_eq!(ceilings.multiply.contains_key(&Arithmetic::Cooperative), !matrices.is_empty());
    assert!(ceilings.multiply[&Arithmetic::F32] > 0.0);

    for workload in workloads::all(Size::Quick).expect("valid") {
        let program = lower::lower(&workload.graph, gpu().profile(), &Options::default()).expect("lowers");
        let bound = ceilings.bound(&program, true).expect("every kernel computes with what was measured");
        assert!(bound.seconds > 0.0, "{}", workload.name);
        let steps =
            program.steps.iter().map(|step| ceilings.bound_of_step(&program, step, true).expect("known").seconds);
        let sum: f64 = steps.sum();
        assert!((sum - bound.seconds).abs() < 1e-9 * sum, "{}: {sum} and {}", workload.name, bound.seconds);
    }
}

#[test]
fn data_rotates_past_the_caches_or_says_that_it_does_not() {
    let workload = &workloads::all(Size::Quick).expect("valid")[0];
    let program = lower::lower(&workload.graph, gpu().profile(), &Options::default()).expect("lowers");
    let set: u64 = 3 * 128 * 128 * 4;
    for (past_cache, rotations, is_past) in
        [(0, 1, false), (3 * set, 3, true), (3 * set + 1, 4, true), (set << 20, 128, false)]
    {
        let protocol = Protocol { sample: std::time::Duration::from_millis(1), past_cache };
        let mut timed = Timed::new(gpu(), &program, &workload.values().expect("drawn"), &protocol).expect("loads");
        assert_eq!(timed.times().wall.samples, 0);
        for _ in 0..3 {
            timed.sample().expect("runs");
        }
        let times = timed.times();
        assert_eq!(
            (times.rotations, times.rotated_bytes, times.past_cache),
            (rotations, rotations as u64 * set, is_past)
        );
        assert!(times.runs >= 1 && times.wall.samples == 3 && times.wall.best > 0.0);
        if let Some(gpu) = times.gpu {
            assert!(gpu.best > 0.0 && gpu.median <= times.wall.high * 1.01, "{times:?}");
        }
    }
}
