use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::json;
use tilewise::{
    gpu::{self, Adapter, wgpu},
    kernel::{CooperativeMatrix, Profile, QUIRKS, Verdict},
    lower,
    verify::cases::{self, Level},
    workloads::{self, Size},
};

use crate::{
    args::{DeviceArgs, InfoArgs},
    output::{self, say},
};

/// Lists the adapters, or the one that was asked for. There being none is an error that says how to get one.
pub(crate) fn run(args: &InfoArgs, device: &DeviceArgs) -> Result<bool> {
    let mut adapters = gpu::adapters();
    if device.is_chosen() || adapters.is_empty() {
        // The error of an attempt to open one says what is there, or what to install.
        let open = device.open()?;
        adapters.retain(|adapter| adapter.name == open.info().name && adapter.backend == open.info().backend);
    }
    if args.brief {
        for adapter in &adapters {
            say!("{adapter}");
        }
    } else if args.json {
        say!("{}", serde_json::to_string_pretty(&adapters.iter().map(as_json).collect::<Result<Vec<_>>>()?)?);
    } else {
        for adapter in &adapters {
            print(adapter)?;
        }
    }
    Ok(true)
}

fn print(adapter: &Adapter) -> Result<()> {
    let limits = &adapter.profile.limits;
    say!("{adapter}\n");
    let mut table = output::table(&["limit", ">value", "portable minimum"]);
    let portable = Profile::portable().limits;
    let rows: [(&str, String, String); 8] = [
        ("one binding", output::bytes(limits.binding_bytes), output::bytes(portable.binding_bytes)),
        ("one buffer", output::bytes(limits.buffer_bytes), output::bytes(portable.buffer_bytes)),
        (
            "workgroup memory",
            output::bytes(limits.workgroup_bytes.into()),
            output::bytes(portable.workgroup_bytes.into()),
        ),
        (
            "invocations of a workgroup",
            limits.workgroup_invocations.to_string(),
            portable.workgroup_invocations.to_string(),
        ),
        (
            "workgroups in a dimension",
            limits.workgroups_per_dimension.to_string(),
            portable.workgroups_per_dimension.to_string(),
        ),
        ("storage buffers of a shader", limits.storage_buffers.to_string(), portable.storage_buffers.to_string()),
        ("subgroup size", subgroup(&adapter.profile), "none".into()),
        ("cooperative matrices", cooperative(&adapter.profile), "none".into()),
    ];
    for (limit, value, minimum) in rows {
        table.add_row([limit.into(), value, minimum]);
    }
    say!("{table}\n");
    say!("features: {}\n", features(adapter).join(", "));
    for quirk in QUIRKS.iter().filter(|quirk| quirk.applies(&adapter.profile)) {
        say!("{}: {}", quirk.name, quirk.what);
    }
    say!("");

    let mut table = output::table(&["kernel", "variant", "here", "why"]);
    for ((family, variant), verdict) in variants(&adapter.profile)? {
        let (here, why) = match verdict {
            Verdict::Usable(why) => ("yes", why),
            Verdict::Refused(why) => ("no", why),
        };
        table.add_row([family, variant, here, &why]);
    }
    say!("{table}\n");
    Ok(())
}

fn subgroup(profile: &Profile) -> String {
    match profile.subgroup {
        None => "none".into(),
        Some((least, most)) if least == most => least.to_string(),
        Some((least, most)) => format!("{least} to {most}"),
    }
}

/// `8×8×8 f16 → f32`, …
fn cooperative(profile: &Profile) -> String {
    let one = |matrix: &CooperativeMatrix| {
        let CooperativeMatrix { m, n, k, ab, c } = matrix;
        format!("{m}×{n}×{k} {ab} → {c}")
    };
    let all: Vec<String> = profile.cooperative_matrices.iter().map(one).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

/// The features that a kernel may use, and whether the adapter has them.
fn features(adapter: &Adapter) -> Vec<String> {
    [
        ("f16 in shaders", wgpu::Features::SHADER_F16),
        ("u64 in shaders", wgpu::Features::SHADER_INT64),
        ("subgroups", wgpu::Features::SUBGROUP),
        ("timestamps", wgpu::Features::TIMESTAMP_QUERY),
        ("timestamps in passes", wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES),
        ("pipeline cache", wgpu::Features::PIPELINE_CACHE),
        ("cooperative matrices", wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX),
    ]
    .into_iter()
    .map(|(name, feature)| format!("{} {name}", if adapter.features.contains(feature) { "✓" } else { "✗" }))
    .collect()
}

/// Every variant that the workloads and cases know of, with the best verdict that it gets on any of them.
fn variants(profile: &Profile) -> Result<BTreeMap<(&'static str, &'static str), Verdict>> {
    let mut found: BTreeMap<_, Verdict> = BTreeMap::new();
    let workloads = workloads::all(Size::Full)?.into_iter().map(|workload| workload.graph);
    let cases = cases::all(Level::Quick, 1)?.into_iter().map(|case| case.graph);
    for graph in workloads.chain(cases) {
        let program = lower::lower(&graph, profile, &lower::Options::default())?;
        for step in &program.steps {
            for candidate in &step.candidates {
                let known = found.entry((step.family, candidate.variant)).or_insert_with(|| candidate.verdict.clone());
                if matches!(known, Verdict::Refused(_)) && candidate.is_usable() {
                    *known = candidate.verdict.clone();
                }
            }
        }
    }
    Ok(found)
}

fn as_json(adapter: &Adapter) -> Result<serde_json::Value> {
    let variants: Vec<_> = variants(&adapter.profile)?
        .into_iter()
        .map(|((family, variant), verdict)| match verdict {
            Verdict::Usable(reason) => json!({"family": family, "variant": variant, "usable": true, "reason": reason}),
            Verdict::Refused(reason) => {
                json!({"family": family, "variant": variant, "usable": false, "reason": reason})
            }
        })
        .collect();
    Ok(json!({
        "index": adapter.index,
        "name": adapter.name,
        "backend": adapter.backend.to_string(),
        "driver": adapter.driver,
        "type": format!("{:?}", adapter.device_type),
        "profile": adapter.profile,
        "features": features(adapter),
        "variants": variants,
    }))
}
