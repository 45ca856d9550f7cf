//! Masks that may be meant otherwise are noted.

use tilewise::{
    DType, Graph,
    graph::Mask,
    lower::{Options, Program},
};

use super::{applied, lowered, program};

const RULE: &str = "read a mask as it is";

/// Attention of `[B, 1, Tq, 4]` over Tk keys with a mask of this shape.
fn masked(
    [items, queries, keys]: [usize; 3],
    shape: &[usize],
    mask: fn(tilewise::ValueId) -> Mask,
    dtype: DType,
) -> Program {
    program(|g| {
        let q = g.input("q", DType::F32, [items, 1, queries, 4])?;
        let k = g.input("k", DType::F32, [items, 1, keys, 4])?;
        let m = g.input("m", dtype, shape)?;
        g.attention(q, k, k, mask(m))
    })
}

fn silent(program: &Program) {
    assert!(program.notes.iter().all(|note| note.rule != RULE), "{program}");
}

#[test]
fn a_mask_that_ends_before_the_keys_do() {
    let short = masked([1, 2, 5], &[2, 4], Mask::boolean, DType::Bool);
    applied(&short, RULE, "the mask `m` [2, 4] has 4 columns for 5 keys: key 4, the newest, no query sees");
    assert!(short.to_string().contains(RULE), "{short}");
    let bias = masked([1, 2, 9], &[1, 2, 4], Mask::bias, DType::F32);
    applied(&bias, RULE, "the bias `m` [1, 2, 4] has 4 columns for 9 keys: keys 4 to 8, the newest, no query sees");
    silent(&masked([1, 2, 5], &[2, 5], Mask::boolean, DType::Bool));
    silent(&masked([1, 2, 5], &[2, 1], Mask::boolean, DType::Bool));
}

#[test]
fn a_mask_of_items_that_is_read_as_one_of_queries() {
    let alike = masked([2, 2, 4], &[2, 4], Mask::boolean, DType::Bool);
    applied(&alike, RULE, "has a row for each query, the same for all items; there are as many items");
    applied(&alike, RULE, "`Mask::key_padding`, or [2, 1, 1, 4]");
    silent(&masked([2, 2, 4], &[2, 4], Mask::key_padding, DType::Bool));
    silent(&masked([2, 2, 4], &[2, 1, 1, 4], Mask::boolean, DType::Bool));
    silent(&masked([3, 2, 4], &[2, 4], Mask::boolean, DType::Bool));
    silent(&masked([1, 1, 4], &[1, 4], Mask::boolean, DType::Bool));
}

/// The files in which users met them.
#[test]
fn files_get_the_notes_too() {
    let batch = r#"{"nodes":[{"op":"input","dtype":"f32","shape":[2,1,4,8],"outputs":["q"]},{"op":"input","dtype":"bool","shape":[2,4],"outputs":["m"]},{"op":"attention","operands":["mask"],"inputs":["q","q","q","m"],"outputs":["y"]}],"outputs":[{"name":"o","value":"y"}]}"#;
    let error = Graph::from_json(batch).expect_err("2 is not 4").to_string();
    assert!(error.contains("if its rows are the items', it is `Mask::key_padding`, or [2, 1, 1, 4]"), "{error}");
    // With as many queries as items, nothing is wrong with it.
    let batch = batch.replace("[2,1,4,8]", "[4,1,4,8]").replace("[2,4]", "[4,4]");
    applied(&lowered(&Graph::from_json(&batch).expect("fits"), &Options::default()), RULE, "as many items");
    let short = r#"{"nodes":[{"op":"input","dtype":"f32","shape":[1,1,2,4],"outputs":["q"]},{"op":"input","dtype":"f32","shape":[1,1,5,4],"outputs":["k"]},{"op":"input","dtype":"bool","shape":[2,4],"outputs":["m"]},{"op":"attention","operands":["mask"],"inputs":["q","k","k","m"],"outputs":["y"]}],"outputs":[{"name":"o","value":"y"}]}"#;
    applied(&lowered(&Graph::from_json(short).expect("fits"), &Options::default()), RULE, "key 4, the newest");
}
