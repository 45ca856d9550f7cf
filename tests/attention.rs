//! Every variant of attention against the reference.

#[path = "common/attention.rs"]
mod cases;
mod common;

use cases::{Case, Draw};
use common::gpu;
use tilewise::reference::compare::Check;

#[test]
fn sizes() {
    let mut draw = Draw::new(1);
    for sizes in [(1, 1, 1, 5, 7, 4, 4), (2, 3, 1, 64, 64, 64, 64)] {
        Case::new(format!("{sizes:?}"), sizes, &mut draw).check_all(gpu(), Check::measured());
    }
}
