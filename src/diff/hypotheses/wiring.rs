//! The right computation on something else: another value, other weights, other axes.

use std::collections::{BTreeMap, BTreeSet};

use super::site::{Found, Site};
use crate::{Shape, ValueId, diff::rebuild::Edit, graph::Op};

pub(super) fn add(site: &Site<'_>, found: &mut Found) {
    found.at = site.name.to_string();
    values(site, found);
    weights(site, found);
    axes(site, found);
}

/// Another value of the same shape instead of one that is read.
fn values(site: &Site<'_>, found: &mut Found) {
    let is_norm = |v: ValueId| matches!(site.g.definition(v).op, Op::LayerNorm { .. } | Op::RmsNorm { .. });
    for &own in site.read.iter().filter(|&&v| site.g.dtype(v).is_float()) {
        for other in site.others() {
            if other == own || site.g.shape(other) != site.g.shape(own) {
                continue;
            }
            let (here, there) = (site.call(own), site.call(other));
            let hint = format!("`{there}` is read instead of `{here}`");
            let edits = vec![Edit::new(own, move |r| r.unedited(other))];
            // A norm that comes of this value, or one that this value comes of.
            if is_norm(other) && other > own && site.depends(other, own) {
                found.alone(
                    "norm before instead of after",
                    format!("{hint}: is the layer pre-norm (norm_first)?"),
                    edits,
                );
            } else if is_norm(own) && site.g.definition(own).inputs[0] == other {
                found.alone("norm after instead of before", format!("{hint}: is the layer post-norm?"), edits);
            } else {
                found.alone(format!("reads `{there}`"), hint, edits);
            }
        }
    }
}

/// The weights of another module: shared, or in another order.
fn weights(site: &Site<'_>, found: &mut Found) {
    let used = site.parameters();
    let all: BTreeMap<&str, &Shape> = site.g.parameters().map(|(name, v)| (name, site.g.shape(v))).collect();
    // Prefixes of what is used, the longest first: the nearest module that explains it.
    let ancestors = |name: &str| name.match_indices('.').map(|(at, _)| name[..at].to_string()).collect::<Vec<_>>();
    let mut prefixes: Vec<String> =
        used.iter().flat_map(|(_, name)| ancestors(name)).collect::<BTreeSet<_>>().into_iter().collect();
    prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
    let modules: BTreeSet<String> = all.keys().flat_map(|name| ancestors(name)).collect();
    let mut tried = BTreeSet::new();
    for prefix in prefixes {
        let within = |name: &str, prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
        let own: Vec<&(ValueId, String)> = used.iter().filter(|(_, name)| within(name, &prefix)).collect();
        for module in modules.iter().filter(|module| **module != prefix) {
            let renamed: Option<Vec<(ValueId, String, Shape)>> = own
                .iter()
                .map(|(v, name)| {
                    let other = format!("{module}{}", &name[prefix.len()..]);
                    let shape = site.g.shape(*v);
                    (all.get(other.as_str()) == Some(&shape)).then(|| (*v, other, shape.clone()))
                })
                .collect();
            let Some(renamed) = renamed else { continue };
            let names: Vec<String> = renamed.iter().map(|(_, other, _)| other.clone()).collect();
            if !tried.insert(names) {
                continue;
            }
            let edits = renamed
                .into_iter()
                .map(|(v, other, shape)| Edit::new(v, move |r| r.parameter(&other, &shape)))
                .collect();
            found.alone(
                format!("weights of `{module}`"),
                format!("`{prefix}` has weights of its own: are layers shared, or in another order?"),
                edits,
            );
        }
    }
}

/// Batch and time confused: everything is read as `[T, B, E]`, or the other way round.
fn axes(site: &Site<'_>, found: &mut Found) {
    let target = site.target;
    let turned: Vec<ValueId> = site.read.iter().copied().filter(|&v| site.g.shape(v).rank() == 3).collect();
    if turned.is_empty() || site.g.shape(target).rank() != 3 {
        return;
    }
    let mut edits: Vec<Edit> = turned
        .iter()
        .map(|&v| {
            Edit::new(v, move |r| {
                let x = r.unedited(v)?;
                r.g.permute(x, &[1, 0, 2])
            })
        })
        .collect();
    // Masks speak of the axes that are no longer there.
    for a in site.attentions.iter().filter(|a| site.has(a.masked)) {
        let (biased, masked, sizes, all) =
            (a.biased, a.masked, a.visible.sizes, a.visible.table().iter().all(|seen| *seen));
        edits.push(Edit::new(masked, move |r| {
            let s = r.value(biased)?;
            if all || r.g.shape(s)[..] != sizes { Ok(s) } else { r.plain(masked) }
        }));
    }
    edits.push(Edit::new(target, move |r| {
        let y = r.plain(target)?;
        r.g.permute(y, &[1, 0, 2])
    }));
    let hint = "the module works along the batch axis: check batch_first ([B, T, E] or [T, B, E])";
    found.alone("batch and time confused", hint, edits);
}
