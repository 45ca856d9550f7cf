//! Every family's kernels with the checks that their sources do without (indices, loops without bounds): the bits must not
//! change. If an index could leave its buffer or a loop not end, clamping and ending them would.

use std::collections::{BTreeMap, BTreeSet};

use tilewise::{
    gpu::Gpu,
    kernel::FAMILIES,
    lower::{self, Options, Program},
    verify::{
        self,
        cases::{self, Case, Level},
    },
};

use crate::common::gpu;

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

#[test]
fn checked_and_trusted_shaders_of_every_family_give_the_same_bits() {
    let checked = Gpu::builder().checked_shaders(true).build().expect("as the other one");
    let mut seen: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    for family in FAMILIES {
        for case in cases::of_family(family, Level::Quick, 1).expect("valid") {
            for candidate in verify::variants(gpu(), &case).expect("lowers").iter().filter(|c| c.is_usable()) {
                let options = Options::default().force(family, candidate.variant);
                let Ok(program) = lower::lower(&case.graph, gpu().profile(), &options) else { continue };
                let launches = program.steps.iter().flat_map(|step| &step.kernel.launches);
                let text: String = launches.map(|launch| launch.source.wgsl.as_str()).collect();
                let sources = seen.entry((family, candidate.variant)).or_default();
                if sources.len() >= SOURCES || !sources.insert(text) {
                    continue;
                }
                let (with, without) = (run(&checked, &case, &program), run(gpu(), &case, &program));
                assert!(with == without, "{family} {}: {case}: checks change bits", candidate.variant);
            }
        }
        assert!(seen.keys().any(|(known, _)| *known == family), "no kernel of {family} ran");
    }
    println!("{} variants, {} programs", seen.len(), seen.values().map(BTreeSet::len).sum::<usize>());
}
