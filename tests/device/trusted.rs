//! Every family's kernels with the checks that their sources do without (indices, loops without bounds): the bits must not
//! change. If an index could leave its buffer or a loop not end, clamping and ending them would.

use std::collections::{BTreeMap, BTreeSet};

use tilewise::{
    gpu::Gpu,
    lower::{self, Options, Program},
    verify::{
        self,
        cases::{self, Case, Level},
    },
};

use crate::{
    common::{checked_gpu, gpu},
    families::of_each_family,
};

/// Sources of a variant that are compiled once more with checks: compiling is what takes the time.
const SOURCES: usize = 2;

fn run(gpu: &Gpu, case: &Case, program: &Program) -> Vec<(String, Vec<u8>)> {
    let given = |names: BTreeSet<&str>| -> Vec<_> {
        let named = case.inputs.iter().filter(|(name, _)| names.contains(name.as_str()));
        named.map(|(name, tensor)| (name.as_str(), tensor)).collect()
    };
    let parameters = given(case.graph.parameters().map(|(name, _)| name).collect());
    let inputs = given(case.graph.inputs().map(|(name, _)| name).collect());
    let mut executable = gpu.load(program, &parameters[..]).unwrap_or_else(|error| panic!("{case}: {error}"));
    let outputs = executable.run(&inputs).unwrap_or_else(|error| panic!("{case}: {error}"));
    outputs.into_iter().map(|(name, tensor)| (name, tensor.as_bytes().to_vec())).collect()
}

/// Every variant of a family, on as many sources of it.
fn check(family: &str) {
    let mut seen: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for case in cases::of_family(family, Level::Quick, 1).expect("valid") {
        for candidate in verify::variants(gpu(), &case).expect("lowers").iter().filter(|c| c.is_usable()) {
            let options = Options::default().force(family, candidate.variant);
            let Ok(program) = lower::lower(&case.graph, gpu().profile(), &options) else { continue };
            let launches = program.steps.iter().flat_map(|step| &step.kernel.launches);
            let text: String = launches.map(|launch| launch.source.wgsl.as_str()).collect();
            let sources = seen.entry(candidate.variant).or_default();
            if sources.len() >= SOURCES || !sources.insert(text) {
                continue;
            }
            let (with, without) = (run(checked_gpu(), &case, &program), run(gpu(), &case, &program));
            assert!(with == without, "{family} {}: {case}: checks change bits", candidate.variant);
        }
    }
    assert!(!seen.is_empty(), "no kernel of {family} ran");
    println!("{} variants, {} programs", seen.len(), seen.values().map(BTreeSet::len).sum::<usize>());
}

of_each_family!(check);
