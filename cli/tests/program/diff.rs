//! `tilewise diff` as a user runs it, and docs/diff.md, whose output must be what the program prints. `UPDATE_DOCS=1` writes it
//! anew.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tilewise::{Graph, diff::Model, safetensors};

use crate::layer::{
    fixture::{self, dump, given, plan},
    theirs::{self, Heads, Tensors, gelu},
};

/// The description, the dump of a plan with the inputs, and the weights.
fn folder(name: &str, theirs: &theirs::Plan) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("diff").join(name);
    fs::create_dir_all(&folder).expect("writable");
    fs::write(folder.join("layer.json"), fixture::MODEL).expect("writable");
    let is_input = |name: &String| ["tgt", "memory", "tgt_lengths", "memory_lengths"].contains(&name.as_str());
    let (inputs, weights): (Tensors, Tensors) = given().into_iter().partition(|(name, _)| is_input(name));
    let mut all = dump(theirs, false);
    all.extend(inputs);
    safetensors::save(folder.join("dump.safetensors"), &all).expect("writable");
    safetensors::save(folder.join("weights.safetensors"), &weights).expect("writable");
    folder
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tilewise"));
    command.current_dir(folder).arg("diff").args(arguments).output().expect("the program starts")
}

const USUAL: [&str; 5] = ["layer.json", "--weights", "weights.safetensors", "--dump", "dump.safetensors"];

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Three mistakes.
fn wrong() -> theirs::Plan {
    let mut theirs = plan();
    theirs.own.scale = Some(1.0);
    theirs.cross.merge = Heads::Direct;
    theirs.activation = gelu;
    theirs
}

#[test]
fn the_page_shows_what_the_program_prints() {
    let output = run(&folder("page", &wrong()), &USUAL);
    assert_eq!(output.status.code(), Some(1));
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/diff.md");
    let text = fs::read_to_string(&page).expect("the page is there");
    let start = text.find("```text\n").expect("a block") + "```text\n".len();
    let end = start + text[start..].find("```").expect("its end");
    let current = format!("{}{}{}", &text[..start], printed(&output), &text[end..]);
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&page, &current).expect("writable");
    }
    let found = fs::read_to_string(&page).expect("the page is there");
    assert!(found == current, "docs/diff.md is not what the program prints; UPDATE_DOCS=1 writes it anew:\n{current}");
    // The script is short, and the description is the one that was run.
    let script = text.split("```").nth(1).expect("a script");
    assert!(script.starts_with("python\n") && script.trim().lines().count() <= 16, "{script}");
    assert!(text.contains(fixture::MODEL), "the description that the page shows");
}

#[test]
fn a_right_dump_passes_on_either_side() {
    let folder = folder("right", &plan());
    for device in ["cpu", "gpu"] {
        let output = run(&folder, &[&USUAL[..], &["--device", device]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(printed(&output).contains("No departure: all 12 values agree."), "{}", printed(&output));
    }
}

#[test]
fn details_json_and_other_names() {
    let folder = folder("other", &wrong());
    let all = printed(&run(&folder, &[&USUAL[..], &["--all"]].concat()));
    assert_eq!(all.matches("of the peak;").count(), 3, "{all}");
    let json = printed(&run(&folder, &[&USUAL[..], &["--json", "--tolerance", "1e-4"]].concat()));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["report"]["points"][0]["verdict"], "departs");
    assert_eq!(json["report"]["points"][0]["finding"]["fits"][0]["name"], "not scaled");
    assert_eq!(json["report"]["dtype"], "f32");
    // Theirs has everything under `net.block`, and attention is called `attn`.
    for file in ["dump", "weights"] {
        let path = folder.join(format!("{file}.safetensors"));
        let is_input = |name: &str| name.starts_with("tgt") || name.starts_with("memory");
        let other = |name: String| {
            if is_input(&name) { name } else { format!("net.block.{}", name.replace("self_attn", "attn")) }
        };
        let renamed: Tensors =
            safetensors::load(&path).expect("reads").into_iter().map(|(name, tensor)| (other(name), tensor)).collect();
        safetensors::save(path, &renamed).expect("writable");
    }
    let output = run(&folder, &[&USUAL[..], &["--rename", "net.block=", "--rename", "attn=self_attn"]].concat());
    assert!(
        printed(&output).contains("→ not scaled"),
        "{}{}",
        printed(&output),
        String::from_utf8_lossy(&output.stderr)
    );
    let output = run(&folder, &[&USUAL[..], &["--rename", "attn"]].concat());
    assert!(String::from_utf8_lossy(&output.stderr).contains("expected THEIRS=OURS"));
}

/// A graph in JSON in the place of a description.
#[test]
fn a_graph_is_a_model_too() {
    let folder = folder("graph", &wrong());
    let (graph, _) = Model::from_json(fixture::MODEL).expect("reads").graph(&given()).expect("builds");
    let text = graph.to_json().expect("writes");
    assert_eq!(Graph::from_json(&text).expect("reads").traces().count(), graph.traces().count());
    fs::write(folder.join("layer.json"), text).expect("writable");
    let output = run(&folder, &USUAL);
    assert!(printed(&output).contains("3 values depart by themselves"), "{}", printed(&output));
}

#[test]
fn what_is_wrong_is_said() {
    let folder = folder("refused", &plan());
    let fails = |arguments: &[&str], parts: &[&str]| {
        let output = run(&folder, arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{message}");
        parts.iter().for_each(|part| assert!(message.contains(part), "`{part}` is not in: {message}"));
        assert!(!message.contains("panicked"), "{message}");
    };
    fails(&["none.json", "--dump", "dump.safetensors"], &["none.json"]);
    fails(&["layer.json", "--dump", "none.safetensors"], &["none.safetensors"]);
    fails(
        &["layer.json", "--dump", "dump.safetensors"],
        &[
            "18 of the graph's inputs and parameters",
            "`linear1.bias` (f32 [20]) is missing; near: `linear1`",
            "found: ",
        ],
    );
    fails(&["layer.json", "--dump", "weights.safetensors"], &["layer.json", "input `tgt` is not in the dump"]);
    fs::write(folder.join("half.json"), "{\"layers\": 3}").expect("writable");
    fails(&["half.json", "--dump", "dump.safetensors"], &["half.json", "neither a graph (`nodes`) nor a description"]);
    fs::write(folder.join("cut.json"), "{\"model\": ").expect("writable");
    fails(&["cut.json", "--dump", "dump.safetensors"], &["cut.json"]);
}
