//! The program as a user runs it: what it prints, what it writes, how it ends.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Stdio};

use tilewise::{Tensor, safetensors};

use crate::common::{command, fail, succeed, text, tilewise};

/// Hand-written attention over a parameter.
const GRAPH: &str = r#"{
  "nodes": [
    {"op": "input", "dtype": "f32", "shape": [1, 2, 4, 8], "outputs": ["q"]},
    {"op": "input", "dtype": "f32", "shape": [1, 2, 6, 8], "outputs": ["k"]},
    {"op": "parameter", "dtype": "f32", "shape": [1, 2, 6, 8], "outputs": ["v"]},
    {"op": "matmul", "transpose_b": true, "inputs": ["q", "k"], "outputs": ["scores"]},
    {"op": "softmax", "axis": 3, "inputs": ["scores"], "outputs": ["weights"]},
    {"op": "matmul", "inputs": ["weights", "v"], "outputs": ["y"]}
  ],
  "outputs": [{"name": "y", "value": "y"}]
}"#;

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("writable");
    fs::write(folder.join("graph.json"), GRAPH).expect("writable");
    safetensors::save(folder.join("in.safetensors"), &inputs()).expect("writable");
    folder
}

fn inputs() -> BTreeMap<String, Tensor> {
    let tensor = |shape: [usize; 4], seed: f32| {
        let n = shape.iter().product::<usize>();
        Tensor::new(shape, (0..n).map(|i| (i as f32 * 0.7 + seed).sin()).collect::<Vec<_>>()).expect("fits")
    };
    let (q, k, v) = (tensor([1, 2, 4, 8], 0.0), tensor([1, 2, 6, 8], 1.0), tensor([1, 2, 6, 8], 2.0));
    [("q", q), ("k", k), ("v", v)].map(|(name, tensor)| (name.to_string(), tensor)).into()
}

#[test]
fn run_on_the_device_and_in_the_reference_agree() {
    let folder = folder("run");
    let arguments =
        ["run", "graph.json", "--inputs", "in.safetensors", "--outputs", "gpu.safetensors", "--check", "--profile"];
    let printed = succeed(&folder, &arguments);
    assert!(printed.contains("within the bound") && printed.contains("attention"), "{printed}");
    let arguments =
        ["run", "graph.json", "--inputs", "in.safetensors", "--outputs", "cpu.safetensors", "--device", "cpu"];
    assert_eq!(succeed(&folder, &arguments), "y: f32 [1, 2, 4, 8]\n");
    let gpu = safetensors::load(folder.join("gpu.safetensors")).expect("written");
    let cpu = safetensors::load(folder.join("cpu.safetensors")).expect("written");
    assert_eq!(gpu["y"].shape(), cpu["y"].shape());
    for (a, b) in gpu["y"].as_f32().expect("f32").iter().zip(cpu["y"].as_f32().expect("f32")) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
}

#[test]
fn gradients_are_checked_by_differences_and_on_the_device() {
    let folder = folder("gradcheck");
    let printed = succeed(&folder, &["gradcheck", "graph.json", "--inputs", "in.safetensors", "--samples", "5"]);
    for name in ["q", "k", "v"] {
        let row = printed.lines().find(|line| line.contains(&format!(" {name} "))).unwrap_or_default();
        assert!(row.contains("right"), "{name}: {printed}");
    }
    // relu at 0 has no derivative: PyTorch's 0 is not what differences give.
    let kink = r#"{"nodes": [{"op": "input", "dtype": "f32", "shape": [2], "outputs": ["x"]},
        {"op": "unary", "function": "relu", "inputs": ["x"], "outputs": ["y"]}], "outputs": [{"name": "y", "value": "y"}]}"#;
    fs::write(folder.join("kink.json"), kink).expect("writable");
    let zeros = BTreeMap::from([("x".to_string(), Tensor::new([2], vec![0.0f32, 1.0]).expect("fits"))]);
    safetensors::save(folder.join("zeros.safetensors"), &zeros).expect("writable");
    let output = command(&folder, &["gradcheck", "kink.json", "--inputs", "zeros.safetensors"]).output().expect("runs");
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(
        printed.contains("WRONG") && printed.contains("element 0 is off by") && printed.contains("kink"),
        "{printed}"
    );
}

/// What a comparison says of each output: right, NaN as in the reference, or no proof, which is no pass.
#[test]
fn check_tells_what_is_right_from_what_proves_nothing() {
    let folder = folder("check");
    let graph = r#"{
      "nodes": [
        {"op": "input", "dtype": "f32", "shape": [2, 8], "outputs": ["x"]},
        {"op": "input", "dtype": "f32", "shape": [2, 8], "outputs": ["n"]},
        {"op": "rms_norm", "axes": 1, "epsilon": 0, "weight": false, "inputs": ["x"], "outputs": ["normed"]},
        {"op": "binary", "function": "add", "inputs": ["n", "n"], "outputs": ["twice"]}
      ],
      "outputs": [OUTPUTS]
    }"#;
    let output = |name: &str, value: &str| format!(r#"{{"name": "{name}", "value": "{value}"}}"#);
    let write = |name: &str, outputs: &[String]| {
        fs::write(folder.join(name), graph.replace("OUTPUTS", &outputs.join(", "))).expect("writable");
    };
    let mut numbers = vec![0.5f32; 16];
    numbers[3] = f32::NAN;
    let tensor = |numbers: Vec<f32>| Tensor::new([2, 8], numbers).expect("16 elements");
    let given =
        BTreeMap::from([("x", tensor(vec![1e20; 16])), ("n", tensor(numbers))].map(|(n, t)| (n.to_string(), t)));
    safetensors::save(folder.join("given.safetensors"), &given).expect("writable");
    let run = |graph: &str| tilewise(&folder, &["run", graph, "--inputs", "given.safetensors", "--check"]);

    write("right.json", &[output("sum", "twice")]);
    let right = run("right.json");
    let printed = text(&right.stdout);
    assert!(right.status.success(), "{printed}");
    assert!(printed.contains("within the bound; 1 of 16 are NaN, and the reference is NaN there too"), "{printed}");

    // 10²⁰ squared is no f32: a plain evaluation is off by all there is, and so says nothing of the kernel's zeros.
    write("blunt.json", &[output("a", "normed"), output("sum", "twice"), output("b", "normed")]);
    let blunt = run("blunt.json");
    let printed = text(&blunt.stdout);
    assert_eq!(blunt.status.code(), Some(1), "{printed}");
    for said in [
        "a: the comparison proves nothing",
        "b: the comparison proves nothing",
        "got 0.0, expected 1.0",
        "within the bound",
    ] {
        assert!(printed.contains(said), "`{said}` is not in {printed}");
    }
    assert!(!printed.contains("WRONG"), "{printed}");
}

#[test]
fn explain_says_what_becomes_of_a_graph() {
    let folder = folder("explain");
    let printed = succeed(&folder, &["explain", "graph.json"]);
    assert!(printed.contains("recognise attention") && printed.contains("never in memory"), "{printed}");
    let portable = succeed(&folder, &["explain", "graph.json", "--portable", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&portable).expect("JSON");
    assert_eq!(json["steps"][0]["family"], "attention");
    assert!(succeed(&folder, &["explain", "graph.json", "--dot"]).starts_with("digraph {"));
    assert!(succeed(&folder, &["explain", "graph.json", "--wgsl", "0"]).contains("@compute"));
    fail(&tilewise(&folder, &["explain", "graph.json", "--wgsl", "7"]), &["there is no step 7"]);
}

#[test]
fn verify_counts_cases_and_says_so() {
    let folder = folder("verify");
    let printed = succeed(&folder, &["verify", "--quick", "--kernel", "gather"]);
    assert!(printed.contains("every kernel is right") && printed.contains("gather"), "{printed}");
    let output = tilewise(&folder, &["verify", "--brief", "--kernel", "gather", "--kernel", "rotary"]);
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(printed.contains("2 runs within their bounds, 0 faults"), "{printed}");
    // Without a terminal there are lines in place of a bar.
    assert!(said.contains("gather (1 of 2 families") && said.contains("rotary (2 of 2 families"), "{said}");
    let printed = succeed(&folder, &["verify", "--quick", "--kernel", "concat", "--json", "--seed", "3"]);
    let json: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!((&json["right"], &json["seed"]), (&true.into(), &3.into()));
    fail(&tilewise(&folder, &["verify", "--kernel", "teapot"]), &["teapot", "attention"]);
}

#[test]
fn bench_writes_figures_and_pictures() {
    let folder = folder("bench");
    let arguments = [
        "bench",
        "--quick",
        "--kernel",
        "softmax",
        "--json",
        "--save",
        "figures.json",
        "--plot",
        "bars.svg",
        "--roofline",
        "roofline.svg",
        "--commit",
        "0123abcd",
    ];
    let json: serde_json::Value = serde_json::from_str(&succeed(&folder, &arguments)).expect("JSON");
    assert!(json["figures"][0]["times"]["wall"]["median"].as_f64().expect("seconds") > 0.0);
    assert_eq!((&json["commit"], &json["schema"]), (&"0123abcd".into(), &1.into()));
    assert!(json["ceilings"]["memory"].as_f64().expect("bytes a second") > 0.0);
    assert!(fs::read_to_string(folder.join("figures.json")).expect("written").contains("softmax"));
    for picture in ["bars.svg", "roofline.svg"] {
        let drawn = fs::read_to_string(folder.join(picture)).expect("written");
        assert!(drawn.contains("<svg") && drawn.contains("GFLOP/s") && drawn.contains("softmax"), "{drawn}");
    }
    fail(&tilewise(&folder, &["bench", "--kernel", "teapot"]), &["teapot"]);
    fail(
        &tilewise(&folder, &["bench", "--kernel", "softmax", "--quick", "--save", "no/such/folder"]),
        &["no/such/folder"],
    );
}

#[test]
fn bench_compares_saved_runs_and_refuses_what_can_not_be() {
    let folder = folder("compare");
    succeed(&folder, &["bench", "--quick", "--kernel", "softmax", "--save", "before.json"]);
    let before = fs::read_to_string(folder.join("before.json")).expect("written");
    let mut after: serde_json::Value = serde_json::from_str(&before).expect("JSON");
    let same = succeed(&folder, &["bench", "--from", "before.json", "--compare", "before.json"]);
    assert!(same.contains("within the noise") && same.contains("geometric mean of the speed-ups 1.00"), "{same}");

    // Ten times as fast by both clocks, which no spread explains.
    for clock in ["gpu", "wall"] {
        let times = &mut after["figures"][0]["times"][clock];
        for part in ["median", "low", "high", "best"] {
            if let Some(seconds) = times[part].as_f64() {
                times[part] = (seconds / 10.0).into();
            }
        }
    }
    let write = |name: &str, report: &serde_json::Value| {
        fs::write(folder.join(name), report.to_string()).expect("writable");
    };
    write("after.json", &after);
    let printed = succeed(&folder, &["bench", "--from", "after.json", "--compare", "before.json", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(json["changes"][0]["verdict"], "faster");
    assert!((json["changes"][0]["speedup"].as_f64().expect("a number") - 10.0).abs() < 1e-6, "{printed}");
    let printed = succeed(&folder, &["bench", "--from", "before.json", "--compare", "after.json"]);
    assert!(printed.contains("1 slower"), "{printed}");

    after["adapter"] = "another GPU".into();
    write("other.json", &after);
    let arguments = ["bench", "--from", "other.json", "--compare", "before.json"];
    fail(&tilewise(&folder, &arguments), &["another GPU", "--across-adapters"]);
    assert!(succeed(&folder, &[&arguments[..], &["--across-adapters"]].concat()).contains("1 faster"));

    // A figure that can't be true ends with 1, also when it is read from a file.
    after["figures"][0]["fault"] = "300 % of what memory allows".into();
    after["quick"] = false.into();
    write("fault.json", &after);
    let output = tilewise(&folder, &["bench", "--from", "fault.json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stdout).contains("FAULT: softmax") && text(&output.stdout).contains("300 %"),
        "{}",
        text(&output.stdout)
    );

    let markdown = succeed(&folder, &["bench", "--from", "before.json", "--markdown"]);
    assert!(markdown.contains("| workload | variant |") && markdown.contains("| --- | --- | ---: |"), "{markdown}");
    write("old.json", &serde_json::json!({"figures": []}));
    fail(&tilewise(&folder, &["bench", "--from", "old.json"]), &["no saved run"]);
    write("new.json", &serde_json::json!({"schema": 99}));
    fail(&tilewise(&folder, &["bench", "--from", "new.json"]), &["schema 99"]);
}

#[test]
fn profile_shows_where_the_time_goes_and_writes_a_trace() {
    let folder = folder("profile");
    let printed =
        succeed(&folder, &["profile", "graph.json", "--inputs", "in.safetensors", "--runs", "2", "--no-ceilings"]);
    assert!(printed.contains("attention") && printed.contains("Fusion: 2 in place of"), "{printed}");
    let arguments = ["profile", "graph.json", "--runs", "2", "--no-ceilings", "--json", "--trace", "trace.json"];
    let json: serde_json::Value = serde_json::from_str(&succeed(&folder, &arguments)).expect("JSON");
    // The attention, and its look at rows that are not finite.
    assert_eq!(json["profile"]["fusion"]["dispatches"][0], 2);
    let saved = &json["profile"]["fusion"]["bytes"];
    assert!(saved[0].as_u64() < saved[1].as_u64(), "{saved}");
    assert!(json["host"]["record"]["median"].as_f64().expect("seconds") > 0.0);
    let trace = fs::read_to_string(folder.join("trace.json")).expect("written");
    let trace: serde_json::Value = serde_json::from_str(&trace).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let step = events.iter().find(|event| event["cat"] == "attention").expect("the step is there");
    assert!(step["dur"].as_f64().expect("microseconds") > 0.0 && step["ph"] == "X", "{step}");
    let host = events.iter().filter(|event| event["cat"] == "host").map(|event| event["dur"].as_f64().expect("µs"));
    assert!(host.clone().count() >= 4 && host.clone().all(|time| time >= 0.0));
    fail(&tilewise(&folder, &["profile", "--workload", "teapot"]), &["teapot", "softmax"]);
}

#[test]
fn tune_remembers_and_explain_says_so() {
    let folder = folder("tune");
    let _ = fs::remove_file(folder.join("tuned.json"));
    let printed = succeed(&folder, &["tune", "graph.json", "--budget", "60"]);
    assert!(printed.contains("attention") && printed.contains("tuned.json"), "{printed}");
    let table: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("tuned.json")).expect("written")).expect("JSON");
    let choices = table["choices"].as_object().expect("a map");
    assert!(choices.keys().any(|key| key.starts_with("attention ")), "{choices:?}");
    assert!(succeed(&folder, &["tune", "graph.json"]).contains("Nothing new to measure"));
    // What the table says is taken, and a file that is none only warns.
    let variant = |arguments: &[&str]| {
        let json: serde_json::Value = serde_json::from_str(&succeed(&folder, arguments)).expect("JSON");
        (json["steps"][0]["variant"].to_string(), json["steps"][0]["reason"].to_string())
    };
    assert!(variant(&["explain", "graph.json", "--json"]).1.contains("measured to be the fastest here"));
    assert!(!variant(&["explain", "graph.json", "--json", "--untuned"]).1.contains("measured"));
    fs::write(folder.join("tuned.json"), "{").expect("writable");
    let output = tilewise(&folder, &["run", "graph.json", "--inputs", "in.safetensors", "--check"]);
    assert!(output.status.success() && text(&output.stderr).contains("tuned.json is ignored"), "{output:?}");
    // What is no table is not replaced, and that is said before anything is measured.
    fs::write(folder.join("tuned.json"), GRAPH).expect("writable");
    for arguments in [&["tune", "graph.json"][..], &["tune", "graph.json", "--tuned", "graph.json"]] {
        fail(&tilewise(&folder, arguments), &["is no tuning table and is not replaced", "--tuned"]);
    }
    assert_eq!(fs::read_to_string(folder.join("tuned.json")).expect("is there"), GRAPH);
    assert_eq!(fs::read_to_string(folder.join("graph.json")).expect("is there"), GRAPH);
}

/// Two that write one table at the same time.
#[test]
fn two_tuners_at_once_lose_nothing() {
    let folder = folder("tune_twice");
    let _ = fs::remove_file(folder.join("tuned.json"));
    let of = |op: &str, more: &str| {
        format!(
            r#"{{"nodes": [{{"op": "input", "dtype": "f32", "shape": [64, 64], "outputs": ["x"]}},
                {{"op": "{op}", "axis": 1 {more}, "inputs": ["x"], "outputs": ["y"]}}], "outputs": [{{"name": "y", "value": "y"}}]}}"#
        )
    };
    let tuners = [("softmax", ""), ("argmax", ", \"keep\": false")].map(|(op, more)| {
        let file = format!("{op}.json");
        fs::write(folder.join(&file), of(op, more)).expect("writable");
        command(&folder, &["tune", &file, "--budget", "20"]).stdout(Stdio::null()).spawn().expect("the program starts")
    });
    for mut tuner in tuners {
        assert!(tuner.wait().expect("ends").success());
    }
    let table: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("tuned.json")).expect("written")).expect("JSON");
    let keys: Vec<&String> = table["choices"].as_object().expect("a map").keys().collect();
    for family in ["softmax ", "argmax "] {
        assert!(keys.iter().any(|key| key.starts_with(family)), "{family} is not in {keys:?}");
    }
}

#[test]
fn info_lists_adapters_and_variants() {
    let folder = folder("info");
    let printed = succeed(&folder, &["info"]);
    assert!(printed.contains("workgroup memory") && printed.contains("attention"), "{printed}");
    assert!(succeed(&folder, &["info", "--brief"]).starts_with("0: "));
    let json: serde_json::Value = serde_json::from_str(&succeed(&folder, &["info", "--json"])).expect("JSON");
    assert!(json[0]["variants"].as_array().is_some_and(|variants| variants.len() > 10));
}

#[test]
fn what_is_wrong_is_said() {
    let folder = folder("wrong");
    let run = |graph: &str, inputs: &str| tilewise(&folder, &["run", graph, "--inputs", inputs, "--device", "cpu"]);
    fail(&run("none.json", "in.safetensors"), &["none.json"]);
    fs::write(folder.join("cut.json"), &GRAPH[..200]).expect("writable");
    fail(&run("cut.json", "in.safetensors"), &["cut.json"]);
    fs::write(folder.join("wrong.json"), GRAPH.replace("\"axis\": 3", "\"axis\": 9")).expect("writable");
    fail(&run("wrong.json", "in.safetensors"), &["node 4, softmax", "axis 9"]);
    fail(&run("graph.json", "none.safetensors"), &["none.safetensors"]);
    fs::write(folder.join("junk.safetensors"), "junk").expect("writable");
    fail(&run("graph.json", "junk.safetensors"), &["junk.safetensors"]);
    fs::write(folder.join("model.pt"), b"PK\x03\x04 and more").expect("writable");
    fail(
        &run("graph.json", "model.pt"),
        &["model.pt", "this is a zip archive", "safetensors.torch.save_file(torch.load("],
    );
    fail(&run("graph.json", "graph.json"), &["graph.json", "this is JSON text, no safetensors file"]);
    fail(&run("in.safetensors", "in.safetensors"), &["in.safetensors", "this is no text; expected JSON"]);
    // 2^31 - 1 elements, two hundred times.
    let stretched: Vec<String> =
        (0..200).map(|_| r#"{"op": "broadcast", "shape": [2147483647], "inputs": ["c"]}"#.into()).collect();
    let huge = format!(
        r#"{{"nodes": [{{"op": "constant", "value": {{"dtype": "f32", "shape": [1], "data": [1]}}, "outputs": ["c"]}}, {}],
            "outputs": [{{"name": "y", "value": "%1"}}]}}"#,
        stretched.join(", ")
    );
    fs::write(folder.join("huge.json"), huge).expect("writable");
    let arguments = ["run", "huge.json", "--device", "cpu"];
    // 200 times 8 bytes an element and 24 more for the one in work.
    let bytes = 8 + (200 * 8 + 8 + 16) * 2_147_483_647u64;
    fail(
        &tilewise(&folder, &arguments),
        &["bytes of all values of the graph", &bytes.to_string(), "run the graph on a device"],
    );
    let mut few = inputs();
    few.remove("k");
    few.insert("kk".into(), Tensor::scalar(1.0));
    safetensors::save(folder.join("few.safetensors"), &few).expect("writable");
    fail(&run("graph.json", "few.safetensors"), &["`k`", "`kk`"]);
    let adapter = ["run", "graph.json", "--inputs", "in.safetensors", "--adapter", "no such adapter"];
    fail(&tilewise(&folder, &adapter), &["no such adapter", "found"]);
    assert_eq!(tilewise(&folder, &["teapot"]).status.code(), Some(2));
}

/// Vulkan without a driver: the loader is pointed at nothing. On other systems there is always an adapter.
#[cfg(target_os = "linux")]
#[test]
fn without_an_adapter_it_says_how_to_get_one_and_the_reference_still_runs() {
    let folder = folder("without");
    let without = |arguments: &[&str]| {
        let mut command = command(&folder, arguments);
        command.env("VK_DRIVER_FILES", "/dev/null").env("VK_ICD_FILENAMES", "/dev/null");
        command.output().expect("the program starts")
    };
    for arguments in [
        &["info"][..],
        &["verify", "--quick"],
        &["bench"],
        &["run", "graph.json", "--inputs", "in.safetensors"],
        &["explain", "graph.json"],
    ] {
        fail(&without(arguments), &["no adapter", "mesa-vulkan-drivers"]);
    }
    assert!(without(&["explain", "graph.json", "--portable"]).status.success());
    assert!(without(&["run", "graph.json", "--inputs", "in.safetensors", "--device", "cpu"]).status.success());
}
