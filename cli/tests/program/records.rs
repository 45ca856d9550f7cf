//! The scripts that put records of `tilewise bench` into the documentation.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

fn script(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(name))
}

/// A folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn record(results: &Path, name: &str, date: &str, peers: bool) {
    let write = |end: &str, text: String| fs::write(results.join(format!("{name}.{end}")), text).expect("written");
    write("json", format!("{{\n  \"schema\": 1,\n  \"date\": \"{date}\",\n  \"adapter\": \"x\"\n}}\n"));
    write("md", format!("| table of {name} |\n"));
    if peers {
        write("peers.json", "{\n  \"date\": \"no record of its own\"\n}\n".into());
        write("peers.md", format!("| peers of {name} |\n"));
    }
}

fn tables(results: &Path, page: &Path) -> Output {
    script("performance-tables.sh").args([results, page]).output().expect("sh runs")
}

#[test]
fn the_page_gets_the_newest_record_of_each_adapter_and_driver() {
    let folder = folder("records");
    let (results, page) = (folder.join("results"), folder.join("page.md"));
    fs::create_dir(&results).expect("a folder");
    record(&results, "soft-mesa-22.3.6-aaaaaaaaaaaa", "2026-01-02T00:00:00Z", true);
    record(&results, "soft-mesa-22.3.6-bbbbbbbbbbbb", "2026-01-01T00:00:00Z", true);
    record(&results, "soft-mesa-26.2.6-aaaaaaaaaaaa", "2026-01-03T00:00:00Z", false);
    let around = |tables: &str| {
        format!("# Page\n\n<!-- records: written by a script -->\n{tables}\n<!-- records: end -->\n\nAfter.\n")
    };
    fs::write(&page, around("| old |\n")).expect("written");
    let expected = around(
        "
### soft-mesa-22.3.6

| table of soft-mesa-22.3.6-aaaaaaaaaaaa |

![The rates under the ceilings](../benches/results/soft-mesa-22.3.6-aaaaaaaaaaaa.roofline.svg)

Other libraries on the same machine: median milliseconds, and how many times those of tilewise.

| peers of soft-mesa-22.3.6-aaaaaaaaaaaa |

### soft-mesa-26.2.6

| table of soft-mesa-26.2.6-aaaaaaaaaaaa |

![The rates under the ceilings](../benches/results/soft-mesa-26.2.6-aaaaaaaaaaaa.roofline.svg)
",
    );
    for time in ["first", "second"] {
        let output = tables(&results, &page);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::read_to_string(&page).expect("readable"), expected, "{time} time");
    }
}

#[test]
fn a_page_without_marks_is_left_alone() {
    let folder = folder("no-marks");
    let page = folder.join("page.md");
    fs::write(&page, "# Page\n").expect("written");
    let output = tables(&folder, &page);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("expected a line '<!-- records: "));
    assert_eq!(fs::read_to_string(&page).expect("readable"), "# Page\n");
}

#[test]
fn the_documentation_has_the_marks() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md"));
    let marks = page.expect("docs/performance.md").lines().filter(|line| line.starts_with("<!-- records: ")).count();
    assert_eq!(marks, 2);
}

#[test]
fn a_record_is_named_after_adapter_and_driver() {
    for (adapter, driver, expected) in [
        ("llvmpipe (LLVM 15.0.6, 256 bits)", "llvmpipe Mesa 22.3.6 (LLVM 15.0.6)", "llvmpipe-mesa-22.3.6"),
        ("llvmpipe (LLVM 22.1.8, 256 bits)", "llvmpipe Mesa 26.2.6-1 (LLVM 22.1.8)", "llvmpipe-mesa-26.2.6-1"),
        ("NVIDIA H200", "NVIDIA 570.86.15", "nvidia-h200-570.86.15"),
        ("Apple M2 Pro", "", "apple-m2-pro"),
    ] {
        let mut command =
            script("record-name.sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh runs");
        let report =
            format!("{{\n  \"adapter\": \"{adapter}\",\n  \"backend\": \"vulkan\",\n  \"driver\": \"{driver}\"\n}}\n");
        command.stdin.take().expect("piped").write_all(report.as_bytes()).expect("written");
        let output = command.wait_with_output().expect("ends");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), expected);
    }
}
