//! A bounded run of mutated graphs on the device, against the reference. `TILEWISE_FUZZ` takes another number of cases,
//! `TILEWISE_SEED` another seed.

use std::collections::BTreeMap;

use tilewise::{DType, Graph, Result, Tensor};

use crate::{
    common::gpu,
    fuzzers::{
        bodies::{Outcome, decide, device},
        number, shown,
    },
};

#[test]
fn mutated_graphs() {
    let (seed, cases) = (number("TILEWISE_SEED", 1), number("TILEWISE_FUZZ", 120));
    let mut outcomes: BTreeMap<Outcome, u64> = BTreeMap::new();
    for case in 0..cases {
        let input = device::target().case(seed, case);
        match device::check(gpu(), &input) {
            Ok(outcome) => *outcomes.entry(outcome).or_default() += 1,
            Err(fault) => panic!("{}", shown("device", seed, case, &fault, &input)),
        }
    }
    println!("seed {seed}: {outcomes:#?}");
    let compared = outcomes.get(&Outcome::Whole).copied().unwrap_or(0);
    assert!(
        compared * 8 >= cases,
        "{compared} of {cases} cases of seed {seed} were compared: too few to mean something"
    );
}

/// What an output is allowed, or why it can't be compared.
fn decided(build: impl FnOnce(&mut Graph) -> Result<()>, given: &[(&str, Tensor)]) -> Vec<Option<&'static str>> {
    let mut g = Graph::new();
    build(&mut g).unwrap_or_else(|e| panic!("{e}"));
    let given = given.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
    let outputs = decide::outputs(&g, &given).unwrap_or_else(|e| panic!("{e}"));
    outputs.into_iter().map(|(.., bound)| bound.err()).collect()
}

/// What the comparison leaves out is what no two evaluations agree on, and nothing else.
#[test]
fn only_what_depends_on_rounding_is_left_out() {
    let x = |numbers: [f32; 3]| Tensor::new([3], numbers.to_vec()).expect("3 elements");
    let floor_of_product = |g: &mut Graph| -> Result<()> {
        let (a, b) = (g.input("a", DType::F32, [3])?, g.input("b", DType::F32, [3])?);
        let (product, quotient) = (g.mul(a, b)?, g.div(a, b)?);
        for (name, value) in [("product", product), ("quotient", quotient)] {
            let floor = g.unary(tilewise::graph::Unary::Floor, value)?;
            g.output(name, floor)?;
        }
        Ok(())
    };
    let edge = Some("it is at an edge of a function");
    // Whole numbers multiply exactly; a quotient that may be just below 2 has no floor that all agree on.
    assert_eq!(decided(floor_of_product, &[("a", x([2.0, 4.0, 6.0])), ("b", x([1.0, 2.0, 4.0]))]), [None, edge]);
    assert_eq!(decided(floor_of_product, &[("a", x([7.3, 4.2, 25.1])), ("b", x([3.0, 3.0, 3.0]))]), [None, None]);
    let overflow = |g: &mut Graph| -> Result<()> {
        let a = g.input("a", DType::F32, [3])?;
        let square = g.mul(a, a)?;
        let back = g.div(square, a)?;
        g.output("back", back)
    };
    assert_eq!(decided(overflow, &[("a", x([1e20, 1.0, 2.0]))]), [Some("f32 overflows on the way")]);
    assert_eq!(decided(overflow, &[("a", x([3.0, 1.0, 2.0]))]), [None]);
}
