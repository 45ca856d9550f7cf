//! What may have been done differently: each hypothesis is a set of edits to the part of the graph that departs.

mod attention;
mod heads;
mod layers;
mod numbers;
mod site;
mod wiring;

pub(super) use numbers::{Numbers, Said, by_numbers, plainly, transposed_shape};
use site::Found;
pub(super) use site::{Hypothesis, Site};

/// Every hypothesis that this part has room for.
pub(super) fn all(site: &Site<'_>) -> Vec<Hypothesis> {
    let mut found = Found::default();
    for a in site.attentions {
        found.at.clone_from(&a.path);
        attention::add(site, a, &mut found);
        heads::add(site, a, &mut found);
    }
    layers::add(site, &mut found);
    wiring::add(site, &mut found);
    found.all
}
