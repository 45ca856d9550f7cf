//! Options that can't act together are refused.

use std::{fs, path::PathBuf};

use crate::common::{text, tilewise};

#[test]
fn options_that_could_do_nothing_are_refused() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("options");
    fs::create_dir_all(&folder).expect("writable");
    let refused = |arguments: &str, expected: &str| {
        let output = tilewise(&folder, &arguments.split(' ').collect::<Vec<_>>());
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {message}");
        assert!(message.contains(expected), "{arguments}: {message}");
    };
    let nothing = |arguments: &str, option: &str, why: &str| {
        refused(arguments, &format!("error: `{option}` can do nothing here: {why}"));
    };
    // The command, and why no option about a device has a place there.
    for (command, why) in [
        ("run g.json --device cpu", "it is about a device, and `--device cpu` takes none"),
        ("diff m.json --dump d", "it is about a device, and `diff` takes none without `--device gpu`"),
        ("diff m.json --dump d --device cpu", "it is about a device, and `diff` takes none without `--device gpu`"),
        ("explain g.json --portable", "it is about a device, and `--portable` takes none"),
        ("explain g.json --dot", "`--dot` prints the graph as it was given"),
        ("bench --from f", "it is about a device, and `--from` takes what was measured"),
        ("shaders", "`shaders` opens no device"),
    ] {
        for option in ["--adapter 0", "--checked-shaders", "--tuned t.json", "--untuned"] {
            nothing(&format!("{command} {option}"), option.split(' ').next().expect("a word"), why);
        }
    }
    for option in ["--checked-shaders", "--tuned t.json", "--untuned"] {
        nothing(&format!("info {option}"), option.split(' ').next().expect("a word"), "`info` runs no kernel");
    }
    nothing("run g.json --device cpu --profile", "--profile", "it is about a device, and `--device cpu` takes none");
    nothing(
        "run g.json --device cpu --check",
        "--check",
        "`--device cpu` is the CPU reference that it would compare with",
    );
    nothing("explain g.json --dot --portable", "--portable", "`--dot` prints the graph as it was given");
    nothing("tune --untuned", "--untuned", "`tune` writes the table that it leaves aside: leave it out");
    for pair in [
        "run g.json --tuned t --untuned",
        "info --brief --json",
        "verify --quick --full",
        "verify --brief --quick",
        "verify --brief --full",
        "bench --quick --large",
        "bench --quick --rounds 3",
        "bench --from f --quick",
        "bench --from f --large",
        "bench --from f --variants",
        "bench --from f --rounds 3",
        "bench --from f --save s",
        "bench --from f --commit c",
        "bench --json --markdown",
        "tune g.json --kernel k",
        "tune g.json --quick",
        "profile g.json --workload w",
        "profile g.json --large",
        "profile --workload w --inputs i",
        "explain g.json --dot --json",
        "explain g.json --dot --wgsl 0",
        "explain g.json --wgsl 0 --json",
        "embed --model m --file f text",
        "embed --model m --json-lines text",
    ] {
        refused(pair, "cannot be used with");
    }
    // Options that need another one.
    for alone in ["bench --across-adapters", "tune --inputs i", "profile --large", "profile --inputs i"] {
        refused(alone, "error: ");
    }
    // Numbers that measure nothing.
    for number in [
        "bench --rounds 0",
        "profile g.json --runs 0",
        "tune --budget 0",
        "tune --budget=-1",
        "tune --budget nan",
        "diff m.json --dump d --tolerance=-1",
        "diff m.json --dump d --tolerance inf",
    ] {
        refused(number, "invalid value");
    }
}
