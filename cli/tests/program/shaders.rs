//! `tilewise shaders`: what the shader modules are, and the kernels as modules that every WGSL compiler takes.

use std::{fs, path::PathBuf};

use tilewise::kernel::{Module, Specialization, fingerprint};

use crate::common::{fail, succeed, tilewise};

/// An empty folder.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("it is ours");
    }
    fs::create_dir_all(&folder).expect("writable");
    folder
}

#[test]
fn every_module_is_listed_under_its_family() {
    let printed = succeed(&folder("shaders-list"), &["shaders"]);
    let heading = format!("rotary, fingerprint {}\n", fingerprint("rotary"));
    let (_, rotary) = printed.split_once(&heading).expect("the family has a heading");
    let row = rotary.lines().find(|line| line.contains("plain")).expect("it has a kernel");
    let module = Module::all().iter().find(|module| module.path == "rotary::plain").expect("it is there");
    for part in ["kernel", &module.text.lines().count().to_string(), "WORKGROUP INTERLEAVED"] {
        assert!(row.contains(part), "`{part}` is not in: {row}");
    }
    for module in Module::all() {
        let name = module.path.rsplit("::").next().expect("it has a name");
        assert!(printed.contains(name), "{} is not in:\n{printed}", module.path);
    }
}

#[test]
fn kernels_are_written_as_complete_modules() {
    let folder = folder("shaders-expand");
    let kernels: Vec<&Module> = Module::all().iter().filter(|module| module.is_kernel()).collect();
    let printed = succeed(&folder, &["shaders", "--expand", "new/all"]);
    assert_eq!(printed, format!("{} kernels in new/all\n", kernels.len()));
    let text = fs::read_to_string(folder.join("new/all/copy-tiled.wgsl")).expect("it is written");
    assert_eq!(text, Specialization::defaults("copy::tiled").expect("it links"));
    assert!(text.contains("fn quotient(") && !text.contains("import "), "{text}");
    assert_eq!(fs::read_dir(folder.join("new/all")).expect("it is a folder").count(), kernels.len());
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_with_its_name() {
    let folder = folder("shaders-refused");
    fs::write(folder.join("file"), "").expect("writable");
    let output = tilewise(&folder, &["shaders", "--expand", "file"]);
    fail(&output, &["the folder file can't be made"]);
    fs::create_dir_all(folder.join("taken/rotary-plain.wgsl")).expect("writable");
    let output = tilewise(&folder, &["shaders", "--expand", "taken"]);
    fail(&output, &["taken/rotary-plain.wgsl: can't be written: it is a folder"]);
}
