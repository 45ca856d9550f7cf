//! Bits of every attention case with every variant.
use std::{collections::BTreeSet, io::Write};
use tilewise::{
    gpu::Gpu,
    lower::{self, Options},
    verify::{
        self,
        cases::{self, Level},
    },
};
#[test]
fn dump() {
    let gpu = Gpu::new().expect("an adapter");
    let mut out = std::fs::File::create(std::env::var("DUMP").unwrap()).unwrap();
    let only = std::env::var("VARIANT").ok();
    for family in ["attention", "attention_merge"] {
        for (n, case) in cases::of_family(family, Level::Quick, 1).expect("valid").iter().enumerate() {
            for candidate in verify::variants(&gpu, case).expect("lowers").iter().filter(|c| c.is_usable()) {
                if only.as_ref().is_some_and(|v| !v.split(',').any(|v| v == candidate.variant)) {
                    continue;
                }
                let options = Options::default().force(family, candidate.variant);
                let Ok(program) = lower::lower(&case.graph, gpu.profile(), &options) else { continue };
                let given = |names: BTreeSet<&str>| -> Vec<_> {
                    case.inputs
                        .iter()
                        .filter(|(name, _)| names.contains(name.as_str()))
                        .map(|(name, t)| (name.as_str(), t))
                        .collect()
                };
                let parameters = given(case.graph.parameters().map(|(name, _)| name).collect());
                let inputs = given(case.graph.inputs().map(|(name, _)| name).collect());
                let outputs = gpu.load(&program, &parameters[..]).and_then(|mut e| e.run(&inputs));
                match outputs {
                    Ok(outputs) => {
                        for (name, t) in outputs {
                            let h = t.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325u64, |h, &b| {
                                (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
                            });
                            writeln!(out, "{family} {n} {} {name} {h:016x}", candidate.variant).unwrap();
                        }
                    }
                    Err(e) => writeln!(out, "{family} {n} {} {e}", candidate.variant).unwrap(),
                }
            }
        }
    }
}
