//! The text of the shaders.

use std::collections::BTreeMap;

use naga::{
    back::{hlsl, msl, spv},
    valid::{Capabilities, ValidationFlags, Validator},
};

use tilewise::{
    graph::{Align, AttentionOperand as A},
    kernel::{AdapterKind, Problem, Profile},
};

use crate::common::attention::{Case, Draw, Kind, VARIANTS, i32s};

/// Every specialisation that the options lead to, on lean and rich devices, translates for each backend.
#[test]
fn every_specialisation_translates() {
    let mut draw = Draw::new(51);
    let mut cases = Vec::new();
    let sizes =
        [(1, 2, 1, 5, 7, 8, 8), (1, 2, 1, 5, 7, 64, 64), (1, 2, 1, 70, 7, 100, 100), (1, 2, 1, 70, 7, 256, 256)];
    for a in Kind::ALL {
        for b in Kind::ALL.into_iter().filter(|&b| a == b || a.goes_with(b)) {
            let case = a.apply(Case::new("", sizes[0], &mut draw), &mut draw);
            cases.push(if a == b { case } else { b.apply(case, &mut draw) });
        }
    }
    cases.extend(sizes.map(|sizes| Case::new("", sizes, &mut draw)));
    cases.push(Case::packed("", (&[0, 4], &[0, 5]), (4, 2, 1, 5, 8, 8), &mut draw));
    let every = Case::packed("", (&[0, 4], &[0, 5]), (4, 2, 1, 5, 8, 8), &mut draw)
        .with(A::KeyLengths, i32s(&[1]))
        .with(A::QueryLengths, i32s(&[1]))
        .with(A::Offsets, i32s(&[1]))
        .with(A::Slopes, draw.floats([2], 1.0))
        .causal(Align::PerItem);
    cases.push(Case { status: true, ..every });

    let mut rich = Profile { subgroup: Some((32, 32)), ..Profile::portable() };
    rich.limits.workgroup_bytes = 48 << 10;
    let software = Profile { kind: AdapterKind::Cpu, subgroup: Some((8, 8)), ..Profile::portable() };
    let mut sources = BTreeMap::new();
    for profile in [Profile::portable(), rich, software] {
        for variant in VARIANTS {
            for (n, case) in cases.iter_mut().enumerate().filter(|(_, case)| case.takes(variant, &profile)) {
                case.lse = n % 2 == 0;
                let kernel = case.problem().0.kernel(variant, &profile).expect("every variant fits both devices");
                for launch in kernel.launches {
                    assert!(launch.bindings.len() as u32 <= profile.limits.storage_buffers);
                    sources.insert(launch.source.wgsl.clone(), launch.label);
                }
            }
        }
    }
    eprintln!("{} specialisations", sources.len());
    for (wgsl, label) in sources {
        translate(&label, &wgsl);
    }
}

fn translate(label: &str, wgsl: &str) {
    let module = naga::front::wgsl::parse_str(wgsl)
        .unwrap_or_else(|error| panic!("{label}: {}\n{wgsl}", error.emit_to_string(wgsl)));
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    let info =
        validator.validate(&module).unwrap_or_else(|error| panic!("{label}: {}\n{wgsl}", error.emit_to_string(wgsl)));
    spv::write_vec(&module, &info, &spv::Options { lang_version: (1, 3), ..Default::default() }, None)
        .unwrap_or_else(|error| panic!("{label}: SPIR-V: {error}\n{wgsl}"));
    let options = msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
    msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
        .unwrap_or_else(|error| panic!("{label}: MSL: {error}\n{wgsl}"));
    let options = hlsl::Options { fake_missing_bindings: true, ..Default::default() };
    hlsl::Writer::new(&mut String::new(), &options, &hlsl::PipelineOptions::default())
        .write(&module, &info, None)
        .unwrap_or_else(|error| panic!("{label}: HLSL: {error}\n{wgsl}"));
}
