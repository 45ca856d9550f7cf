//! `tilewise embed` on a made-up model, against the reference, and on all-MiniLM-L6-v2 against sentence-transformers.

mod errors;
mod made_up;
mod sentences;

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Output, Stdio},
};

use made_up::{WIDTH, folder, put, put_modules};
use serde_json::{Value, json};
use tilewise::safetensors;

use crate::common::{command, succeed, text, tilewise};

/// Out of order in length, so that the order of the answers is not that of the batches.
const TEXTS: [&str; 6] = ["ab cd", "", "the quick brown fox", "a", "jumps over the dog", "b c d e f"];

fn with_input(folder: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = command(folder, arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // A program that stops early reads no further.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("ends")
}

/// One mode of pooling, by the plain formula.
fn pooled(hidden: &[Vec<f64>], mode: &str) -> Vec<f64> {
    let column = |e: usize| hidden.iter().map(move |token| token[e]);
    let tokens = hidden.len() as f64;
    (0..WIDTH)
        .map(|e| match mode {
            "cls" => hidden[0][e],
            "max" => column(e).fold(f64::MIN, f64::max),
            "mean" => column(e).sum::<f64>() / tokens,
            "mean_sqrt_len_tokens" => column(e).sum::<f64>() / tokens.sqrt(),
            other => panic!("{other}"),
        })
        .collect()
}

fn unit(vector: &[f64]) -> Vec<f64> {
    let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    vector.iter().map(|x| x / length).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("an array").iter().map(|x| x.as_f64().expect("a number")).collect()
}

fn assert_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < 2e-5, "{what}: at {i} {a}, expected {b}");
    }
}

#[test]
fn vectors_are_those_of_the_reference_in_the_order_of_the_texts() {
    let folder = folder("reference");
    let weights = made_up::weights();
    let expected = |text: &str, modes: &[&str]| -> Vec<f64> {
        let hidden = made_up::hidden(&made_up::ids(text, made_up::POSITIONS), &weights);
        modes.iter().flat_map(|mode| pooled(&hidden, mode)).collect()
    };
    // A bare model: the mean, as it is.
    let arguments: Vec<&str> = ["embed", "--model", "."].into_iter().chain(TEXTS).collect();
    let bare: Value = serde_json::from_str(&succeed(&folder, &arguments)).expect("JSON");
    assert_eq!(bare["pooling"], json!(["mean"]));
    assert_eq!(
        (&bare["normalized"], &bare["dimensions"], &bare["max_tokens"]),
        (&json!(false), &json!(16), &json!(24))
    );
    let rows = bare["texts"].as_array().expect("an array");
    assert_eq!(rows.len(), TEXTS.len());
    for (row, text) in rows.iter().zip(TEXTS) {
        assert_eq!((&row["text"], &row["truncated"]), (&json!(text), &json!(false)));
        assert_eq!(row["tokens"], json!(made_up::ids(text, made_up::POSITIONS).len()));
        assert_close(&numbers(&row["embedding"]), &expected(text, &["mean"]), text);
    }
    // Other pooling, unit length, small batches.
    let modes = ["max", "cls", "mean_sqrt_len_tokens"];
    let options = ["embed", "--model", ".", "--format", "json-lines", "--normalize", "true", "--batch-tokens", "12"];
    let pooling = ["--pooling", "max,cls,mean_sqrt_len_tokens"];
    let arguments: Vec<&str> = options.into_iter().chain(pooling).chain(TEXTS).collect();
    let lines = succeed(&folder, &arguments);
    assert_eq!(lines.lines().count(), TEXTS.len());
    for (line, text) in lines.lines().zip(TEXTS) {
        let row: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(row["text"], json!(text));
        assert_close(&numbers(&row["embedding"]), &unit(&expected(text, &modes)), text);
    }
}

#[test]
fn the_files_of_sentence_transformers_say_how() {
    let folder = folder("files");
    put_modules(&folder, &["Transformer", "Pooling", "Normalize"]);
    put(&folder, "1_Pooling/config.json", &json!({"word_embedding_dimension": 16, "pooling_mode_cls_token": true}));
    put(&folder, "sentence_bert_config.json", &json!({"max_seq_length": 6, "do_lower_case": true}));
    let prompts = json!({"prompts": {"query": "Q q ", "passage": "p "}, "default_prompt_name": "query"});
    put(&folder, "config_sentence_transformers.json", &prompts);
    let weights = made_up::weights();
    let expected = |text: &str| pooled(&made_up::hidden(&made_up::ids(text, 6), &weights), "cls");
    let run = |options: &[&str]| {
        let arguments: Vec<&str> = ["embed", "--model", "."].iter().chain(options).copied().collect();
        let output = tilewise(&folder, &arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        (serde_json::from_slice::<Value>(&output.stdout).expect("JSON"), text(&output.stderr))
    };
    let (json, said) = run(&["Ab", "abc def"]);
    assert_eq!(
        (&json["pooling"], &json["normalized"], &json["prompt"]),
        (&json!(["cls"]), &json!(true), &json!("Q q "))
    );
    for (row, prepared) in json["texts"].as_array().expect("an array").iter().zip(["q q ab", "q q abc def"]) {
        assert_close(&numbers(&row["embedding"]), &unit(&expected(prepared)), prepared);
    }
    assert!(said.contains("warning: 1 of 2 texts have more than 6 tokens: text 2 has 10"), "{said}");
    assert!(said.contains("texts/s") && said.contains("tokens/s"), "{said}");
    // Options come before files.
    let (json, said) = run(&["--prompt", "passage", "--normalize", "false", "--max-tokens", "5", "Ab", "cde"]);
    assert_eq!((&json["normalized"], &json["max_tokens"]), (&json!(false), &json!(5)));
    let rows = json["texts"].as_array().expect("an array");
    assert_close(&numbers(&rows[0]["embedding"]), &expected("p ab"), "a prompt by its name");
    assert_close(&numbers(&rows[1]["embedding"]), &expected("p cd"), "the beginning of a text");
    assert_eq!(rows[1]["truncated"], json!(true));
    assert!(said.contains("text 2 has 6"), "{said}");
}

#[test]
fn texts_come_from_files_and_the_standard_input() {
    let folder = folder("input");
    fs::write(folder.join("lines.txt"), "ab\r\n\nc d\n").expect("writable");
    let texts = |output: &Output| -> Vec<String> {
        assert!(output.status.success(), "{}", text(&output.stderr));
        let row = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["text"].as_str().map(String::from);
        text(&output.stdout).lines().map(|line| row(line).expect("a text")).collect()
    };
    let options = ["embed", "--model", ".", "--format", "json-lines"];
    let with = |more: &[&'static str]| -> Vec<&str> { options.iter().chain(more).copied().collect() };
    assert_eq!(texts(&tilewise(&folder, &with(&["--file", "lines.txt"]))), ["ab", "", "c d"]);
    assert_eq!(texts(&with_input(&folder, &options, b"x\ny")), ["x", "y"]);
    let lines = b"\"a\\nb\"\n{\"text\": \"c\"}\n";
    assert_eq!(texts(&with_input(&folder, &with(&["--json-lines", "--file", "-"]), lines)), ["a\nb", "c"]);
}

#[test]
fn a_table_says_how_similar_texts_are() {
    let folder = folder("table");
    let arguments = ["embed", "--model", ".", "--format", "table", "ab cd", "x", "two\nlines", "ab cd"];
    let printed = succeed(&folder, &arguments);
    let rows: Vec<Vec<&str>> = printed
        .lines()
        .filter(|line| line.contains("1.000"))
        .map(|line| line.trim_matches(['│', ' ']).split_whitespace().collect())
        .collect();
    assert_eq!(rows.len(), 4, "{printed}");
    let cosine = |i: usize, j: usize| rows[i][rows[i].len() - 4 + j].parse::<f64>().expect("a number");
    for i in 0..4 {
        assert_eq!(cosine(i, i), 1.0, "{printed}");
        for j in 0..4 {
            assert_eq!(cosine(i, j), cosine(j, i), "{printed}");
        }
    }
    assert!(cosine(0, 3) == 1.0 && cosine(0, 1) < 1.0, "{printed}");
    assert!(printed.contains("two lines"), "{printed}");
}

#[test]
fn a_file_of_tensors_holds_the_same_numbers() {
    let folder = folder("tensors");
    let texts = ["ab cd", "x", "the quick"];
    let arguments: Vec<&str> = ["embed", "--model", ".", "--output", "y.json"].into_iter().chain(texts).collect();
    assert_eq!(succeed(&folder, &arguments), "", "all goes to the file");
    let json: Value = serde_json::from_slice(&fs::read(folder.join("y.json")).expect("written")).expect("JSON");
    let options = ["embed", "--model", ".", "--format", "safetensors", "--output", "y.safetensors"];
    let arguments: Vec<&str> = options.into_iter().chain(texts).collect();
    assert_eq!(succeed(&folder, &arguments), "");
    let tensors = safetensors::load(folder.join("y.safetensors")).expect("written");
    assert_eq!(tensors["tokens"].as_i32(), Some(&[6, 3, 10][..]));
    assert_eq!(tensors["embeddings"].shape(), &[3, WIDTH].into());
    for (i, row) in tensors["embeddings"].as_f32().expect("f32").chunks(WIDTH).enumerate() {
        let expected: Vec<f32> = numbers(&json["texts"][i]["embedding"]).into_iter().map(|x| x as f32).collect();
        assert_eq!(row, expected, "text {i}");
    }
}
