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
