//! What is written, and what happens when that can't be: full disks, readers that are gone, files in the way.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use tilewise::{Tensor, safetensors};

use crate::common::{command, fail, succeed, text, tilewise};

/// A thousand times 1.5, without an adapter.
const GRAPH: &str = r#"{
  "nodes": [
    {"op": "input", "dtype": "f32", "shape": [1000], "outputs": ["x"]},
    {"op": "unary", "function": "neg", "inputs": ["x"], "outputs": ["y"]}
  ],
  "outputs": [{"name": "y", "value": "y"}]
}"#;

const RUN: [&str; 6] = ["run", "graph.json", "--inputs", "in.safetensors", "--device", "cpu"];

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("files").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("writable");
    fs::write(folder.join("graph.json"), GRAPH).expect("writable");
    let x = Tensor::new([1000], vec![1.5f32; 1000]).expect("fits");
    safetensors::save(folder.join("in.safetensors"), &[("x".to_string(), x)].into()).expect("writable");
    folder
}

fn run(more: &[&'static str]) -> Vec<&'static str> {
    RUN.iter().chain(more).copied().collect()
}

#[cfg(target_os = "linux")]
fn to_full(mut command: Command) -> Output {
    command.stdout(File::options().write(true).open("/dev/full").expect("is there"));
    command.stderr(Stdio::piped()).spawn().expect("the program starts").wait_with_output().expect("ends")
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_the_standard_output_is_an_error() {
    let folder = folder("full");
    for arguments in [
        &RUN[..],
        &["explain", "graph.json", "--portable"],
        &["explain", "graph.json", "--dot"],
        &["explain", "graph.json", "--wgsl", "0", "--portable"],
        &["shaders"],
        &["--help"],
        &["run", "--help"],
        &["--version"],
    ] {
        let output = to_full(command(&folder, arguments));
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        assert_eq!(
            message.lines().last(),
            Some("error: the standard output can't be written: No space left on device (os error 28)"),
            "{arguments:?}"
        );
    }
    // What goes to a file is written all the same.
    let output = to_full(command(&folder, &run(&["--outputs", "out.safetensors"])));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(safetensors::load(folder.join("out.safetensors")).expect("is there").len(), 1);
}

#[cfg(unix)]
#[test]
fn a_reader_who_has_seen_enough_ends_the_program_quietly() {
    let folder = folder("closed");
    for arguments in
        [&["shaders"][..], &["--help"], &["explain", "graph.json", "--portable"], &run(&["--outputs", "y"])]
    {
        let mut child = command(&folder, arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("ends");
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()), "{arguments:?}");
    }
    assert_eq!(safetensors::load(folder.join("y")).expect("is there").len(), 1, "the file is written");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_standard_error_does_not_panic() {
    let folder = folder("full_error");
    for (arguments, code) in [(&["run", "none.json"][..], 1), (&["teapot"], 2), (&run(&[]), 0)] {
        let output = command(&folder, arguments)
            .stderr(File::options().write(true).open("/dev/full").expect("is there"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts")
            .wait_with_output()
            .expect("ends");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stdout));
    }
}

/// A limit on the size of files is a disk that is full after 512 bytes.
#[cfg(target_os = "linux")]
#[test]
fn the_old_file_stays_until_the_new_one_is_whole() {
    let folder = folder("old");
    fs::write(folder.join("out.safetensors"), "the old one").expect("writable");
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tilewise")])
        .args(run(&["--outputs", "out.safetensors"]))
        .current_dir(&folder)
        .output()
        .expect("sh runs");
    fail(&output, &["out.safetensors: can't be written: File too large"]);
    assert_eq!(text(&output.stdout), "y: f32 [1000]\n", "what was computed is told");
    assert_eq!(fs::read_to_string(folder.join("out.safetensors")).expect("is there"), "the old one");
    let mut names: Vec<_> = fs::read_dir(&folder).expect("readable").map(|f| f.expect("a file").file_name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["graph.json", "in.safetensors", "out.safetensors"], "no part stays");
    succeed(&folder, &run(&["--outputs", "out.safetensors"]));
    assert_eq!(
        safetensors::load(folder.join("out.safetensors")).expect("whole")["y"].as_f32(),
        Some(&[-1.5; 1000][..])
    );
}

#[test]
fn targets_that_can_not_be_written_are_found_before_the_work() {
    let folder = folder("targets");
    fs::write(folder.join("fixed"), "x").expect("writable");
    let mut permissions = fs::metadata(folder.join("fixed")).expect("is there").permissions();
    permissions.set_readonly(true);
    fs::set_permissions(folder.join("fixed"), permissions).expect("its owner");
    fs::create_dir(folder.join("folder")).expect("writable");
    for (file, why) in [
        ("none/x", "there is no folder none; make it first"),
        ("folder", "it is a folder; name a file in it"),
        ("fixed", "it is read-only; name another file, or make it writable"),
    ] {
        for arguments in [
            &run(&["--outputs"])[..],
            // An hour of measuring would come first.
            &["bench", "--large", "--save"],
            &["bench", "--large", "--plot"],
            &["bench", "--large", "--roofline"],
            &["profile", "graph.json", "--trace"],
        ] {
            let output = tilewise(&folder, &[arguments, &[file]].concat());
            fail(&output, &[&format!("{file}: can't be written: {why}")]);
            assert_eq!(text(&output.stdout), "", "{arguments:?}");
        }
    }
    fail(&tilewise(&folder, &["bench", "--large", "--compare", "none.json"]), &["none.json can't be read"]);
}

#[test]
fn names_that_the_format_has_for_itself_are_refused_before_the_work() {
    let folder = folder("reserved");
    fs::write(folder.join("graph.json"), GRAPH.replace("\"name\": \"y\"", "\"name\": \"__metadata__\""))
        .expect("writable");
    let output = tilewise(&folder, &run(&["--outputs", "out.safetensors"]));
    fail(&output, &["a tensor can't be called `__metadata__`, which the format has for itself: give it another name"]);
    assert_eq!((text(&output.stdout), folder.join("out.safetensors").exists()), (String::new(), false));
}
