//! States: what outlives a run is written where it is, or copied there at the end.

use tilewise::{
    DType, Graph, Result, ValueId,
    graph::{AttentionArgs, Binary},
    lower::{Options, Program, Role},
};

use super::{families, input, lowered};

/// A state `s` [4, 8] that becomes what `build` makes of it, and is read by the output `y` = exp of what it becomes.
fn with_state(build: impl FnOnce(&mut Graph, ValueId) -> Result<ValueId>) -> Program {
    let mut g = Graph::new();
    let result = (|| {
        let s = input(&mut g, "s", &[4, 8])?;
        let next = build(&mut g, s)?;
        g.update(s, next)?;
        let y = g.softmax(next, -1)?;
        g.output("y", y)
    })();
    result.unwrap_or_else(|e: tilewise::Error| panic!("{e}"));
    lowered(&g, &Options::default())
}

fn next_of(program: &Program) -> Vec<&str> {
    let buffers = program.buffers.iter().filter(|buffer| matches!(buffer.role, Role::Next(_)));
    buffers.map(|buffer| buffer.name.as_str()).collect()
}

#[test]
fn a_pointwise_update_is_made_in_place() {
    let program = with_state(|g, s| {
        let x = input(g, "x", &[8])?;
        g.add(s, x)
    });
    assert_eq!(families(&program), ["pointwise", "softmax"], "{program}");
    assert_eq!(program.steps[0].in_place, Some(0), "{program}");
    assert_eq!(next_of(&program).len(), 1);
    assert!(program.to_string().contains("1 state: 128 B"), "{program}");
    assert!(program.allocations.is_empty());
}

#[test]
fn what_can_not_be_in_place_is_copied_at_the_end() {
    let program = with_state(|g, s| {
        let w = input(g, "w", &[8, 8])?;
        g.matmul(s, w)
    });
    assert_eq!(families(&program), ["matmul", "softmax", "copy"], "{program}");
    let note = program.notes.iter().find(|note| note.rule == "copy").expect("a copy");
    assert_eq!(note.reason, "into the state `s`: it is not computed in place there");
    assert_eq!(next_of(&program), ["s, next"]);
}

#[test]
fn a_state_that_is_read_later_is_not_overwritten() {
    // As an output, and by a later step.
    let mut g = Graph::new();
    let build = |g: &mut Graph| -> Result<()> {
        let s = input(g, "s", &[4, 8])?;
        let next = g.exp(s)?;
        g.update(s, next)?;
        let before = g.softmax(s, 0)?;
        let after = g.matmul_transposed(next, before)?;
        g.output("after", after)
    };
    build(&mut g).unwrap_or_else(|e| panic!("{e}"));
    let later = lowered(&g, &Options::default());
    assert_eq!(families(&later).last(), Some(&"copy"), "{later}");
    assert!(later.steps.iter().all(|step| step.in_place.is_none()), "{later}");

    let mut g = Graph::new();
    let build = |g: &mut Graph| -> Result<()> {
        let s = input(g, "s", &[4, 8])?;
        let next = g.exp(s)?;
        g.update(s, next)?;
        g.output("before", s)
    };
    build(&mut g).unwrap_or_else(|e| panic!("{e}"));
    let output = lowered(&g, &Options::default());
    assert_eq!(families(&output), ["pointwise", "copy", "copy"], "{output}");
}

#[test]
fn states_that_become_each_other_are_put_aside() {
    let mut g = Graph::new();
    let build = |g: &mut Graph| -> Result<()> {
        let (a, b) = (input(g, "a", &[4])?, input(g, "b", &[4])?);
        g.update(a, b)?;
        g.update(b, a)?;
        let sum = g.binary(Binary::Add, a, b)?;
        g.output("sum", sum)
    };
    build(&mut g).unwrap_or_else(|e| panic!("{e}"));
    let program = lowered(&g, &Options::default());
    assert_eq!(families(&program), ["pointwise", "copy", "copy", "copy", "copy"], "{program}");
    assert_eq!(next_of(&program), ["a, next", "b, next"]);
}

#[test]
fn a_state_that_stays_is_left_alone() {
    let mut g = Graph::new();
    let build = |g: &mut Graph| -> Result<()> {
        let s = input(g, "s", &[2, 2])?;
        let same = g.reshape(s, [4])?;
        let same = g.reshape(same, [2, 2])?;
        g.update(s, same)?;
        let y = g.exp(s)?;
        g.output("y", y)
    };
    build(&mut g).unwrap_or_else(|e| panic!("{e}"));
    let program = lowered(&g, &Options::default());
    assert_eq!(families(&program), ["pointwise"], "{program}");
}

/// A step of decoding: only the new rows move, and attention reads the caches where they are.
#[test]
fn caches_grow_in_place() {
    let mut g = Graph::new();
    let build = |g: &mut Graph| -> Result<()> {
        let position = g.input("position", DType::I32, [2])?;
        let q = input(g, "q", &[2, 4, 1, 16])?;
        let mut grown = |name: &str| {
            let cache = input(g, &format!("{name}_cache"), &[2, 4, 128, 16])?;
            let new = input(g, name, &[2, 1, 4, 16])?;
            let new = g.permute(new, &[0, 2, 1, 3])?;
            let (grown, _) = g.append(cache, new, position, 2, false)?;
            g.update(cache, grown)?;
            Ok(grown)
        };
        let (k, v) = (grown("k")?, grown("v")?);
        let y = g.attention(q, k, v, AttentionArgs::default())?;
        g.output("y", y)
    };
    build(&mut g).unwrap_or_else(|e| panic!("{e}"));
    let program = lowered(&g, &Options::default());
    assert_eq!(families(&program), ["append", "append", "attention"], "{program}");
    assert!(program.steps[..2].iter().all(|step| step.in_place == Some(0)), "{program}");
    assert!(program.steps[0].summary.ends_with("in place"), "{program}");
}
