//! Graph → graph rules. Each is a function that looks at one node of the old graph and either writes something in its
//! place or leaves it; the new graph is verified after every pass.

mod activation;
mod attention;
mod causal;
mod rebuild;
mod simplify;
mod widen;

use rebuild::{Rebuild, Work, live};

use super::{Options, survey::Origin};
use crate::{
    Graph, Result, ValueId,
    graph::{Node, NodeId, Op},
    kernel::Profile,
};

/// Runs every pass that the options ask for and the graph gives work to.
pub(super) fn rewrite(given: &Graph, profile: &Profile, options: &Options) -> Result<Work> {
    let origins = (0..given.values().len() as u32).map(|v| Origin::of(ValueId(v))).collect();
    let mut work = Work { graph: given.clone(), origins, notes: Vec::new() };
    let has = |work: &Work, wanted: fn(&Node) -> bool| work.graph.nodes().iter().any(wanted);

    work.pass(given, &mut simplify::simplify)?;
    if options.recognise {
        if has(&work, activation::starts) {
            work.pass(given, &mut activation::recognise)?;
        }
        if has(&work, |node| matches!(node.op, Op::Softmax { .. })) {
            work.pass(given, &mut |rebuild, id| attention::recognise(rebuild, id, profile))?;
            // The opposite of a constant mask is a constant again.
            work.pass(given, &mut simplify::simplify)?;
        }
        if has(&work, |node| matches!(node.op, Op::Attention(_))) {
            let mut masks = causal::Masks::default();
            work.pass(given, &mut |rebuild, id| causal::recognise(&mut masks, rebuild, id))?;
        }
    }
    if work.graph.values().iter().any(|value| value.dtype.bytes() < 4) {
        let mut widened = widen::Widened::default();
        work.pass(given, &mut |rebuild, id| widened.widen(rebuild, id))?;
    }
    // Joins the views that the rules put end to end, and drops what they left without users.
    work.pass(given, &mut simplify::simplify)?;
    if live(&work.graph).contains(&false) {
        work.pass(given, &mut |_, _| Ok(false))?;
    }
    Ok(work)
}

/// What a rule does with a node: `true` if it wrote something in its place.
type Rule<'r> = dyn FnMut(&mut Rebuild<'_>, NodeId) -> Result<bool> + 'r;

impl Work {
    fn pass(&mut self, given: &Graph, rule: &mut Rule<'_>) -> Result<()> {
        let live = live(&self.graph);
        let mut rebuild = Rebuild::new(self, given, &live);
        for (i, _) in live.iter().enumerate().filter(|(_, live)| **live) {
            let id = NodeId(i as u32);
            if !rule(&mut rebuild, id)? {
                rebuild.keep(id)?;
            }
        }
        let (graph, origins, notes) = rebuild.finish()?;
        graph.verify()?;
        (self.graph, self.origins) = (graph, origins);
        self.notes.extend(notes);
        Ok(())
    }
}
