//! Shader files as they stand, and every specialisation that the case tables and workloads call for, through the compilers
//! of other platforms. No device.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    process::Command,
    sync::OnceLock,
};

use naga::{
    back::{hlsl, msl, spv},
    front::wgsl,
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};
use tilewise::{
    DType, Graph,
    kernel::{
        AdapterKind, Arithmetic, Backend, CeilingProblem, CooperativeMatrix, Kernel, Module, Problem, Profile,
        Specialization,
    },
    lower::{self, Options},
    verify::cases::{self, Level},
    workloads::{self, Size},
};

/// The kernels of `shaders/`, each with all that it imports, and with the defaults of its slots.
fn kernels() -> Vec<(&'static str, String)> {
    let kernels = Module::all().iter().filter(|module| module.is_kernel());
    let expanded = kernels.map(|module| (module.path, Specialization::defaults(module.path).expect("it links")));
    let expanded: Vec<_> = expanded.collect();
    assert!(expanded.len() > 8, "the shaders are gone: {expanded:?}");
    expanded
}

fn validate(name: &str, source: &str) -> (naga::Module, ModuleInfo) {
    let module = match wgsl::parse_str(source) {
        Ok(module) => module,
        Err(error) => panic!("{name}: {}", error.emit_to_string(source)),
    };
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    match validator.validate(&module) {
        Ok(info) => (module, info),
        Err(error) => panic!("{name}: {}", error.emit_to_string(source)),
    }
}

/// Native backends want no `enable subgroups;`, browsers do: the specialiser drops the line.
fn for_naga(source: &str) -> String {
    source.lines().filter(|line| line.trim() != "enable subgroups;").collect::<Vec<_>>().join("\n")
}

#[test]
fn every_kernel_is_valid_with_its_defaults() {
    for (path, source) in kernels() {
        validate(path, &for_naga(&source));
    }
}

/// A dispatch that takes long is cut if its parameters say where it begins; then it has to begin there.
#[test]
fn kernels_begin_with_the_workgroup_that_their_parameters_name() {
    for (path, source) in kernels().into_iter().filter(|(path, _)| !path.starts_with("ceiling")) {
        let numbers: Vec<&str> = source.lines().filter(|line| line.contains("group.y * ")).collect();
        assert!(numbers.iter().all(|line| line.contains("p.first_group + ")), "{path}: {numbers:?}");
        assert_eq!(numbers.len(), usize::from(source.contains("first_group: u32")), "{path}: {numbers:?}");
    }
}

/// Names at the top level that a module uses are its own, or imported: an editor resolves them as the specialiser does.
#[test]
fn modules_import_what_they_use_and_use_what_they_import() {
    let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut faults = Vec::new();
    for module in Module::all() {
        // What a slot's comment names is what the host fills in.
        let code =
            module.text.lines().filter(|line| !line.starts_with("import ")).map(|line| {
                if line.contains("// @slot ") { line } else { line.split("//").next().unwrap_or_default() }
            });
        let code: Vec<&str> = code.collect();
        let own: BTreeSet<&str> = module.declares().into_iter().collect();
        let imports = module.imports().expect("they can be read");
        let imported: BTreeSet<&str> = imports.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let words: BTreeSet<&str> = code.iter().flat_map(|line| line.split(|c| !is_in_name(c))).collect();
        for name in imported.iter().filter(|name| !words.contains(**name)) {
            faults.push(format!("{}: imports `{name}` and doesn't use it", module.file));
        }
        // Calls of functions that only other modules of the family declare.
        let others =
            Module::all().iter().filter(|other| other.family() == module.family() || other.family() == "shared");
        let others: BTreeSet<&str> = others.filter(|other| !other.is_kernel()).flat_map(Module::declares).collect();
        for name in others.iter().filter(|name| !own.contains(**name) && !imported.contains(**name)) {
            let call = format!("{name}(");
            let calls = |line: &str| {
                line.match_indices(&call).any(|(at, _)| !line[..at].ends_with(|c: char| is_in_name(c) || c == '.'))
            };
            if code.iter().any(|line| calls(line)) {
                faults.push(format!("{}: calls `{name}` and doesn't import it", module.file));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The day this fails, the specialiser no longer needs to drop the line.
#[test]
fn naga_still_rejects_enable_subgroups() {
    assert!(wgsl::parse_str("enable subgroups;\n").is_err());
}

/// Statements that declare a variable of a function, or a private one, without a value. Chromium's compiler gave such a variable in a
/// loop its zero once, where the function begins.
fn without_value(source: &str) -> Vec<String> {
    let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let code: String =
        source.lines().map(|line| line.split("//").next().unwrap_or_default().to_string() + "\n").collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("var") {
        let rest = &code[at + "var".len()..];
        let shared = ["<storage", "<uniform", "<workgroup"].iter().any(|space| rest.starts_with(space));
        if code[..at].ends_with(is_in_name) || rest.starts_with(is_in_name) || shared {
            continue;
        }
        let statement = rest.split(';').next().unwrap_or_default();
        if !statement.contains('=') {
            found.push(format!("var{statement};"));
        }
    }
    found
}

#[test]
fn every_variable_of_a_function_has_a_value() {
    let forms = "var<private> a: bool; fn f() { var b: u32; for (var c = 0u; c < 2u; c++) { var<function> d: array<f32, 2>; } }";
    assert_eq!(without_value(forms), ["var<private> a: bool;", "var b: u32;", "var<function> d: array<f32, 2>;"]);
    assert!(
        without_value("var<workgroup> a: u32; fn variance() { var b: f32 = 0.0; var c = vec2<f32>(); }").is_empty()
    );

    let mut faults = Vec::new();
    let defaults = kernels().into_iter().map(|(path, source)| (path.to_string(), source));
    let modules = Module::all().iter().map(|module| (module.file.to_string(), module.text.to_string()));
    let specialised = specialisations().iter().map(|s| (format!("{} ({})", s.kernel, s.variant), s.wgsl.clone()));
    for (name, source) in defaults.chain(modules).chain(specialised) {
        faults.extend(without_value(&source).into_iter().map(|fault| format!("{name}: {fault}")));
    }
    faults.sort();
    faults.dedup();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A browser wants `enable subgroups;` where subgroups are used, and takes it nowhere else without the feature; naga never takes it.
#[test]
fn subgroups_are_enabled_for_browsers_and_for_them_alone() {
    const LINE: &str = "enable subgroups;";
    let uses = |source: &str| {
        let code: String =
            source.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
        code.replace(LINE, "").contains("subgroup")
    };
    let mut with = 0;
    for Specialised { kernel, variant, adapter, browser, wgsl, .. } in specialisations() {
        let (has, wanted) = (wgsl.contains(LINE), *browser && uses(wgsl));
        assert_eq!(has, wanted, "{kernel} ({variant}) on {adapter}");
        with += usize::from(has);
    }
    assert!(with > 20, "only {with} texts use subgroups in a browser");
}

/// An extension that only naga has, for kernels that run natively alone. A browser never gets them: it offers no feature for
/// which they would be chosen.
const NATIVE_EXTENSION: &str = "wgpu_cooperative_matrix";

fn is_native(source: &str) -> bool {
    source.lines().any(|line| line == format!("enable {NATIVE_EXTENSION};"))
}

#[test]
fn only_kernels_on_cooperative_matrices_are_native() {
    let kernels = kernels();
    let native: Vec<&str> = kernels.iter().filter(|(_, source)| is_native(source)).map(|&(path, _)| path).collect();
    assert_eq!(native, ["attention::coop", "ceiling::coop", "matmul::coop"]);
}

/// Tint is what Chromium compiles WGSL with. Where it isn't installed this test has nothing to ask; `REQUIRE_TINT=1`, as in
/// CI, makes that a failure.
#[test]
fn tint_accepts_every_kernel_untouched_but_native_ones() {
    if Command::new("tint").arg("--help").output().is_err() {
        assert!(env::var_os("REQUIRE_TINT").is_none(), "REQUIRE_TINT is set, but there is no `tint` on the PATH");
        eprintln!("no `tint` on the PATH: the browser's compiler was not asked");
        return;
    }
    let folder = tempfile::tempdir().expect("there is room for some files");
    let mut rejected = Vec::new();
    // As they stand, and as browsers get them: with the line that enables subgroups.
    let in_browsers = specialisations().iter().filter(|s| s.browser && s.wgsl.contains("enable subgroups;"));
    let in_browsers = in_browsers.enumerate().map(|(n, s)| (format!("{}-{n}", s.kernel), s.wgsl.clone()));
    for (path, source) in kernels().into_iter().map(|(path, source)| (path.to_string(), source)).chain(in_browsers) {
        let file = folder.path().join(format!("{}.wgsl", path.replace("::", "-")));
        fs::write(&file, &source).expect("there is room for it");
        let output = Command::new("tint").args(["--format", "wgsl"]).arg(&file).output().expect("tint runs");
        let message = String::from_utf8_lossy(&output.stderr);
        if is_native(&source) {
            assert!(
                message.contains(NATIVE_EXTENSION),
                "{path}: Tint knows {NATIVE_EXTENSION} by now: let it check the kernel"
            );
        } else if !output.status.success() {
            rejected.push(format!("{path}:\n{message}"));
        }
    }
    assert!(rejected.is_empty(), "{}", rejected.join("\n"));
}

/// Devices that differ in what kernels may use: nothing optional, a software adapter, a large GPU, a software adapter below a
/// browser.
fn profiles() -> [Profile; 4] {
    let portable = Profile::portable();
    let browser = Profile {
        adapter: "a software adapter in a browser".into(),
        kind: AdapterKind::Cpu,
        backend: Backend::Browser,
        subgroup: Some((4, 4)),
        shader_f16: true,
        ..portable.clone()
    };
    let software = Profile {
        adapter: "a software adapter".into(),
        kind: AdapterKind::Cpu,
        subgroup: Some((8, 8)),
        shader_f16: true,
        shader_int64: true,
        ..portable.clone()
    };
    let matrices = |size: u32| vec![CooperativeMatrix::square(size, [DType::F16, DType::F32])];
    let software = Profile { cooperative_matrices: matrices(8), ..software };
    let mut gpu = Profile {
        cooperative_matrices: matrices(16),
        adapter: "a large GPU".into(),
        subgroup: Some((32, 32)),
        shader_f16: true,
        shader_int64: true,
        ..portable.clone()
    };
    gpu.limits.workgroup_bytes = 48 << 10;
    gpu.limits.workgroup_invocations = 1024;
    gpu.limits.workgroup_size_x = 1024;
    gpu.limits.binding_bytes = 2 << 30;
    gpu.limits.buffer_bytes = 2 << 30;
    [portable, software, gpu, browser]
}

/// A module that a kernel's launch runs.
pub(crate) struct Specialised {
    /// The kernel's module in `shaders/`.
    pub(crate) kernel: &'static str,
    /// The first variant that runs it, and on what.
    pub(crate) variant: &'static str,
    adapter: String,
    /// Whether the device has subgroups.
    subgroups: bool,
    /// Whether a browser compiles it.
    browser: bool,
    pub(crate) wgsl: String,
}

/// Every module that the case tables and the workloads call for, on each of the profiles, with each variant: each text once.
pub(crate) fn specialisations() -> &'static [Specialised] {
    static ALL: OnceLock<Vec<Specialised>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = BTreeMap::new();
        let mut add = |profile: &Profile, variant: &'static str, kernel: &Kernel| {
            for launch in &kernel.launches {
                let source = &launch.source;
                all.entry(source.wgsl.clone()).or_insert_with(|| Specialised {
                    kernel: source.name,
                    variant,
                    adapter: profile.adapter.clone(),
                    subgroups: profile.subgroup.is_some(),
                    browser: profile.backend == Backend::Browser,
                    wgsl: source.wgsl.clone(),
                });
            }
        };
        of_graphs(&mut add);
        of_ceilings(&mut add);
        all.into_values().collect()
    })
}

fn of_graphs(add: &mut impl FnMut(&Profile, &'static str, &Kernel)) {
    let graphs_of = |size| {
        let cases = cases::all(Level::Quick, 1).expect("the cases are valid").into_iter().map(|case| case.graph);
        let workloads = workloads::all(size).expect("the workloads are valid").into_iter().map(|w| w.graph);
        cases.chain(workloads).collect::<Vec<Graph>>()
    };
    let (full, large) = (graphs_of(Size::Full), graphs_of(Size::Large));
    for profile in profiles() {
        let is_large = profile.limits.binding_bytes > Profile::portable().limits.binding_bytes;
        for graph in if is_large { full.iter().chain(&large) } else { full.iter().chain(&[]) } {
            let program = lower::lower(graph, &profile, &Options::default())
                .unwrap_or_else(|error| panic!("on {}: {error}\n{graph}", profile.adapter));
            let mut programs = Vec::new();
            for step in &program.steps {
                for candidate in step.candidates.iter().filter(|candidate| candidate.is_usable()) {
                    let options = Options::default().force(step.family, candidate.variant);
                    programs.extend(lower::lower(graph, &profile, &options));
                }
            }
            for step in programs.iter().flat_map(|program| &program.steps) {
                add(&profile, step.variant, &step.kernel);
            }
        }
    }
}

fn of_ceilings(add: &mut impl FnMut(&Profile, &'static str, &Kernel)) {
    let bytes = CeilingProblem::whole(1 << 20);
    for profile in profiles() {
        for problem in [
            CeilingProblem::Copy { bytes },
            CeilingProblem::Read { bytes },
            CeilingProblem::Multiply(Arithmetic::F32),
            CeilingProblem::Multiply(Arithmetic::F16),
            CeilingProblem::Multiply(Arithmetic::Cooperative),
            CeilingProblem::Exponential,
            CeilingProblem::Dispatch,
        ] {
            for candidate in problem.candidates(&profile).iter().filter(|candidate| candidate.is_usable()) {
                let kernel = problem.kernel(candidate.variant, &profile).expect("usable");
                add(&profile, candidate.variant, &kernel);
            }
        }
    }
}

#[test]
fn every_specialisation_translates_for_vulkan_metal_and_dx12() {
    let modules = specialisations();
    assert!(modules.len() > 200, "only {} specialisations", modules.len());
    for Specialised { kernel, variant, adapter, subgroups, wgsl: source, .. } in modules.iter().filter(|s| !s.browser) {
        let name = format!("{kernel} ({variant}) on {adapter}");
        let (module, info) = validate(&name, source);
        let version = if *subgroups { (1, 3) } else { (1, 0) };
        let options = spv::Options { lang_version: version, ..spv::Options::default() };
        if let Err(error) = spv::write_vec(&module, &info, &options, None) {
            panic!("{name}: SPIR-V: {error}\n{source}");
        }
        let options = msl::Options { lang_version: (3, 1), fake_missing_bindings: true, ..msl::Options::default() };
        if let Err(error) = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default()) {
            panic!("{name}: MSL: {error}\n{source}");
        }
        // HLSL has no such matrices.
        if source.contains(NATIVE_EXTENSION) {
            continue;
        }
        let mut text = String::new();
        let options = hlsl::Options {
            shader_model: hlsl::ShaderModel::V6_2,
            fake_missing_bindings: true,
            ..hlsl::Options::default()
        };
        let pipeline = hlsl::PipelineOptions::default();
        if let Err(error) = hlsl::Writer::new(&mut text, &options, &pipeline).write(&module, &info, None) {
            panic!("{name}: HLSL: {error}\n{source}");
        }
    }
    println!("{} specialisations", modules.len());
}
