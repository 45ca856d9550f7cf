//! Floor 7: the graphs to time: the same for `tilewise bench`, for criterion and for comparisons with other libraries.
//!
//! People quote these sizes: square matmuls, products with few rows, attention over a few hundred tokens and while
//! decoding, norms of a 768-wide model, a small BERT, one token of a small GPT.

mod attention;
mod matmul;
mod models;
mod rows;
mod workload;

pub use workload::{Size, Workload};

use crate::Result;

/// Every workload of a size.
///
/// # Errors
/// None: the graphs are built with a builder that can fail, but a test builds them all.
pub fn all(size: Size) -> Result<Vec<Workload>> {
    let mut all = matmul::workloads(size)?;
    all.extend(attention::workloads(size)?);
    all.extend(rows::workloads(size)?);
    all.extend(models::workloads(size)?);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Size, all};

    #[test]
    fn every_workload_is_a_valid_graph_of_a_name_of_its_own() {
        for size in [Size::Quick, Size::Full, Size::Large] {
            let mut names = BTreeSet::new();
            for workload in all(size).expect("valid") {
                workload.graph.verify().expect(&workload.name);
                assert!(workload.name.starts_with(workload.family), "{}", workload.name);
                assert!(names.insert(workload.name.clone()), "{} is there twice", workload.name);
            }
        }
    }

    #[test]
    fn every_input_and_parameter_gets_a_value_that_fits() {
        for workload in all(Size::Quick).expect("valid") {
            let (graph, name) = (&workload.graph, &workload.name);
            let values = workload.values().expect(name);
            assert_eq!(values.len(), graph.inputs().count() + graph.parameters().count(), "{name}");
            for (value, tensor) in values {
                let id = graph.find(&value).expect(&value);
                assert_eq!((tensor.dtype(), tensor.shape()), (graph.dtype(id), graph.shape(id)), "{name}: {value}");
                assert!(tensor.to_f64().iter().all(|x| x.is_finite()), "{name}: {value}");
            }
        }
    }

    #[test]
    fn what_is_quick_has_every_family_of_what_is_full() {
        let families = |size| all(size).expect("valid").into_iter().map(|w| w.family).collect::<BTreeSet<_>>();
        assert_eq!(families(Size::Quick), families(Size::Full));
        assert_eq!(families(Size::Full), families(Size::Large));
    }
}
