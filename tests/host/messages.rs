//! The whole text of messages that once said nothing to those who got them. Each names the field or the file, the value, what
//! was expected and what to do.

use std::fs;

use tilewise::{
    DType, Graph,
    diff::Model,
    graph::{Op, ScoreMod, infer},
    nn::{Bert, Gpt, Weights},
};

fn of_node(node: &str) -> String {
    let input = r#"{"op": "input", "dtype": "f32", "shape": [2, 3], "outputs": ["x"]}"#;
    Graph::from_json(&format!(r#"{{"nodes": [{input}, {node}], "outputs": []}}"#)).expect_err(node).to_string()
}

/// Was: `invalid value: integer `-1`, expected usize`.
#[test]
fn numbers_that_do_not_fit() {
    assert_eq!(
        of_node(r#"{"op": "softmax", "axis": -1, "inputs": ["x"]}"#),
        "graph: node 1, softmax: `axis` is -1, expected an integer from 0 up (axes are counted from 0, not from the end)"
    );
    assert_eq!(
        of_node(r#"{"op": "reshape", "shape": [3, -1], "inputs": ["x"]}"#),
        "graph: node 1, reshape: `shape` is [3,-1]: -1 stands where an integer from 0 up is expected"
    );
    let config = r#"{"model_type": "llama", "vocab_size": 31, "max_position_embeddings": 12, "hidden_size": "wide"}"#;
    assert_eq!(
        Gpt::from_config(config).expect_err("no number").to_string(),
        "GPT's config.json: `hidden_size` is \"wide\", expected an integer from 0 up"
    );
    assert_eq!(
        Bert::from_config(r#"{"model_type": "bert"}"#).expect_err("nothing in it").to_string(),
        "BERT's config.json: the field `vocab_size` is missing"
    );
    assert_eq!(
        Model::from_json(r#"{"model": "decoder", "width": 8.5, "heads": 2}"#).expect_err("no integer").to_string(),
        "model: `width` is 8.5, expected an integer from 0 up"
    );
}

/// Was: `unknown variant `relu`, expected one of …`.
#[test]
fn functions_that_are_taken_for_operations() {
    assert_eq!(
        of_node(r#"{"op": "relu", "inputs": ["x"]}"#),
        "graph: node 1, relu: `relu` is a function, not an operation: write {\"op\": \"unary\", \"function\": \"relu\", …}"
    );
}

/// Was: `internal WGSL front end error`, or the end of the program.
#[test]
fn functions_that_the_compiler_gives_up_on() {
    let deep = |n: usize| format!("{}score{}", "(".repeat(n), ")".repeat(n));
    assert_eq!(
        ScoreMod::wgsl(&deep(60)).expect_err("deep").to_string(),
        format!(
            "score function: more than 48 brackets in brackets: split it up by `let`\n  {}\n  {}^",
            deep(60),
            " ".repeat(48)
        )
    );
    ScoreMod::wgsl(&"!".repeat(4096)).expect_err("4 KB of !");
}

/// Was: `the weights in  do not fit`.
#[test]
fn an_index_of_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("model.safetensors.index.json");
    fs::write(&file, r#"{"weight_map": {}}"#).expect("writes");
    assert_eq!(
        Weights::open(&file).expect_err("nothing").to_string(),
        format!("{}: its `weight_map` is empty, expected a file for each tensor", file.display())
    );
}

/// Was: `expected 1 to 0`, or an axis out of range, or a loop of years.
#[test]
fn sizes_that_can_not_be() {
    let norm = Op::RmsNorm { axes: 1, epsilon: 0.1, weight: false };
    assert_eq!(
        infer(&norm, &[(DType::F32, &[].into())]).expect_err("a scalar").to_string(),
        "rms_norm: `x` has shape [], expected at least one axis, to normalise over"
    );
    let llama = |changed: &str| {
        let config = r#"{"model_type": "llama", "vocab_size": 32000, "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256}"#;
        let (key, _) = changed.split_once(':').expect("a field");
        let at = config.find(key).expect("is there");
        let end = at + config[at..].find([',', '}']).expect("ends");
        Gpt::from_config(&format!("{}{changed}{}", &config[..at], &config[end..])).map_err(|e| e.to_string())
    };
    llama(r#""num_hidden_layers": 4096"#).expect("could be");
    for (changed, expected) in [
        (r#""num_hidden_layers": 1000000000"#, "`num_hidden_layers` is 1000000000, expected 1 to 4096"),
        (r#""max_position_embeddings": 0"#, "`max_position_embeddings` is 0, expected 1 to 16777216"),
        (
            r#""vocab_size": 2000000000"#,
            "`vocab_size` is 2000000000 and `hidden_size` is 64: a matrix of them has more than 2147483647 elements, which 32-bit \
             indices can't tell apart",
        ),
    ] {
        assert_eq!(llama(changed).expect_err(changed), format!("GPT's config.json: {expected}"));
    }
    let model = r#"{"model": "encoder", "width": 8, "heads": 2, "layers": 1000000000}"#;
    assert_eq!(
        Model::from_json(model).expect_err("too many").to_string(),
        "model: `layers` is 1000000000, expected 1 to 4096"
    );
    let model = r#"{"model": "encoder", "width": 8, "heads": 2, "layers": 4000}"#;
    assert_eq!(
        Model::from_json(model).expect("reads").check_layers(30).expect_err("of 30 tensors").to_string(),
        "model: `layers` is 4000, but dump and weights have 30 tensors, and a layer has several"
    );
}
