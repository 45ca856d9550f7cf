//! Lowering without a device: what each rule does and does not do, how memory is planned, what errors say.

mod attention;
mod cut;
mod fusion;
mod layers;
mod memory;
mod remarks;
mod rewrites;
mod selection;
mod states;

use tilewise::{
    DType, Graph, Result, ValueId,
    kernel::Profile,
    lower::{Note, Options, Program, lower},
};

/// Lowers for the weakest device, and checks what must hold for every program.
pub(crate) fn lowered(graph: &Graph, options: &Options) -> Program {
    let program = lower(graph, &Profile::portable(), options).unwrap_or_else(|e| panic!("{e}"));
    memory::check(graph, &program);
    program
}

/// The graph that `build` makes, its result as the output `y`, lowered with every option on.
pub(crate) fn program(build: impl FnOnce(&mut Graph) -> Result<ValueId>) -> Program {
    lowered(&graph(build), &Options::default())
}

pub(crate) fn graph(build: impl FnOnce(&mut Graph) -> Result<ValueId>) -> Graph {
    let mut graph = Graph::new();
    let y = build(&mut graph).unwrap_or_else(|e| panic!("{e}"));
    graph.output("y", y).unwrap_or_else(|e| panic!("{e}"));
    graph
}

pub(crate) fn input(g: &mut Graph, name: &str, shape: &[usize]) -> Result<ValueId> {
    g.input(name, DType::F32, shape)
}

/// The families of the steps, in order.
pub(crate) fn families(program: &Program) -> Vec<&'static str> {
    program.steps.iter().map(|step| step.family).collect()
}

/// The only note of a rule.
#[track_caller]
pub(crate) fn note<'a>(program: &'a Program, rule: &str) -> &'a Note {
    let notes: Vec<&Note> = program.notes.iter().filter(|note| note.rule == rule).collect();
    assert_eq!(notes.len(), 1, "notes of {rule}: {notes:#?}\n{program}");
    notes[0]
}

/// The only note of a rule applied and says this.
#[track_caller]
pub(crate) fn applied(program: &Program, rule: &str, reason: &str) {
    let note = note(program, rule);
    assert!(note.applied && note.reason.contains(reason), "{note:#?}");
}

/// The only note of a rule did not apply and says this.
#[track_caller]
pub(crate) fn refused(program: &Program, rule: &str, reason: &str) {
    let note = note(program, rule);
    assert!(!note.applied && note.reason.contains(reason), "{note:#?}");
}
