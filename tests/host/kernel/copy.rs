//! Which variant of a copy is taken, and what is no copy, concatenation or padding.

use tilewise::{
    DType, Layout,
    kernel::{AdapterKind, ConcatProblem, CopyProblem, PadProblem, Problem, Profile},
};

#[test]
fn tiles_say_when_they_serve() {
    let profile = Profile::portable();
    let verdict = |input: Layout, dtype: DType| {
        let candidates = CopyProblem { dtype, input }.candidates(&profile);
        let place = candidates.iter().position(|candidate| candidate.variant == "tiled").expect("it is listed");
        (place, format!("{:?}", candidates[place].verdict))
    };
    let large = Layout::contiguous([64, 128]);
    assert_eq!(verdict(large.permute(&[1, 0]), DType::F32).0, 0);
    assert!(verdict(large.clone(), DType::F32).1.contains("no axis but the last is dense"));
    assert_eq!(verdict(Layout::contiguous([64, 8]).permute(&[1, 0]), DType::F32).0, 2);
    let odd = Layout::contiguous([63, 128]).permute(&[1, 0]);
    assert!(verdict(odd.clone(), DType::Bool).1.contains("rows of 63 bool are not whole words"));
    assert_eq!(verdict(odd, DType::I32).0, 0);
    let mut small = profile.clone();
    small.limits.workgroup_bytes = 4096;
    let problem = CopyProblem { dtype: DType::F32, input: large.permute(&[1, 0]) };
    let error = problem.kernel("tiled", &small).expect_err("no room for a tile").to_string();
    assert_eq!(error, "copy: no variant can run here: tiled: needs 4224 bytes of workgroup memory, the limit is 4096");
    small = profile;
    small.kind = AdapterKind::Cpu;
    assert_eq!(problem.candidates(&small)[0].variant, "square");
    let odd = CopyProblem { dtype: DType::F32, input: Layout::contiguous([63, 128]).permute(&[1, 0]) };
    let error = odd.kernel("square", &small).expect_err("rows of 63").to_string();
    assert_eq!(error, "copy: no variant can run here: square: sizes, strides and offset are not all multiples of 4");
}

#[test]
fn faults_are_named() {
    let message = |problem: &dyn Problem| {
        assert!(problem.candidates(&Profile::portable()).iter().all(|candidate| !candidate.is_usable()));
        problem.kernel("plain", &Profile::portable()).expect_err("it must be refused").to_string()
    };
    let concat = |axis: usize, shapes: &[&[usize]]| {
        let inputs = shapes.iter().map(|&shape| Layout::contiguous(shape)).collect();
        message(&ConcatProblem { dtype: DType::F32, axis, inputs })
    };
    assert_eq!(concat(0, &[]), "concat: there is no input");
    assert_eq!(concat(2, &[&[2, 3]]), "concat: there is no axis 2 in [2, 3]");
    assert_eq!(concat(0, &[&[2, 3], &[2, 4]]), "concat: `x1` has shape [2, 4], expected [2, 3], but for axis 0");
    assert_eq!(concat(0, &[&[2, 3], &[2]]), "concat: `x1` has shape [2], expected [2, 3], but for axis 0");
    let input = Layout::contiguous([2, 3]);
    let pad = PadProblem { dtype: DType::F32, input, before: vec![1], after: vec![0, 0], value: 0.0 };
    assert_eq!(message(&pad), "pad: [1] before and [0, 0] after don't fit [2, 3]");
    let huge = CopyProblem { dtype: DType::F32, input: Layout::contiguous([1]).broadcast(&[1 << 16, 1 << 16].into()) };
    let error = huge.kernel("plain", &Profile::portable()).expect_err("too large").to_string();
    assert!(error.starts_with("copy: elements of [65536, 65536] (indices are 32-bit): 4294967296 is over"), "{error}");
}
