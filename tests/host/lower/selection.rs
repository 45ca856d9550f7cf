//! Which variant runs, and what is said when none can.

use tilewise::{
    DType, Error, Graph,
    graph::AttentionArgs,
    kernel::{FAMILIES, Profile, Verdict},
    lower::{Options, lower},
    verify::cases::{self, Level},
};

use super::{graph, input, lowered, program};

fn matmul() -> Graph {
    graph(|g| {
        let (a, b) = (input(g, "a", &[64, 64])?, input(g, "b", &[64, 64])?);
        g.matmul(a, b)
    })
}

fn error(graph: &Graph, options: &Options) -> Error {
    lower(graph, &Profile::portable(), options).expect_err("can't be lowered")
}

#[test]
fn a_forced_variant_runs_and_says_so() {
    let usable = lowered(&matmul(), &Options::default()).steps[0].candidates.clone();
    for candidate in usable.iter().filter(|candidate| candidate.is_usable()) {
        let program = lowered(&matmul(), &Options::default().force("matmul", candidate.variant));
        assert_eq!(program.steps[0].variant, candidate.variant);
        assert!(program.steps[0].reason.starts_with("forced; "));
    }
}

#[test]
fn unknown_families_and_variants_are_named() {
    let family = error(&matmul(), &Options::default().force("matmull", "plain"));
    assert_eq!(
        family.to_string(),
        format!(
            "lower: a variant of `matmull` is forced, but no kernel family has that name; there are {}",
            FAMILIES.join(", ")
        )
    );
    let variant = error(&matmul(), &Options::default().force("matmul", "magic")).to_string();
    assert!(variant.starts_with("matmul: there is no variant `magic`; there are "), "{variant}");
    assert!(variant.contains("plain"), "{variant}");
}

#[test]
fn a_forced_variant_that_cannot_run_says_why() {
    let g = graph(|g| {
        let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, DType::F32, [1, 2, 300, 64]));
        g.attention(q?, k?, v?, AttentionArgs::default())
    });
    let mut profile = Profile::portable();
    profile.limits.workgroup_bytes = 64;
    let candidates = lower(&g, &profile, &Options::default()).expect("something runs").steps[0].candidates.clone();
    let refused = candidates.iter().find(|c| !c.is_usable()).expect("tiles need workgroup memory");
    let Verdict::Refused(reason) = &refused.verdict else { unreachable!("it is refused") };
    let error =
        lower(&g, &profile, &Options::default().force("attention", refused.variant)).expect_err("it is refused");
    let text = error.to_string();
    assert!(
        text.contains(&format!("the variant `{}` is forced, but can't run q[1, 2, 300, 64]", refused.variant)),
        "{text}"
    );
    assert!(text.contains(reason) && text.contains("those that can: "), "{text}");
}

#[test]
fn no_variant_at_all_is_an_error_with_reasons() {
    let g = graph(|g| {
        let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, DType::F32, [1, 2, 5, 30]));
        g.attention(q?, k?, v?, AttentionArgs::default())
    });
    let mut profile = Profile::portable();
    profile.limits.storage_buffers = 3;
    let error = lower(&g, &profile, &Options::default()).expect_err("q, k, v and out are four");
    assert!(matches!(error, Error::NoVariant { family: "attention", .. }), "{error}");
}

#[test]
fn an_output_needs_a_name_of_its_own() {
    let mut g = Graph::new();
    let x = input(&mut g, "x", &[2]).expect("valid");
    g.output("x", x).expect("valid");
    let expected = "graph: the output `x` has the name of an input, state or parameter; a program tells them by name, so give \
                    it another";
    assert_eq!(error(&g, &Options::default()).to_string(), expected);
}

#[test]
fn the_cases_of_a_family_lead_to_it_and_to_families_that_are_listed() {
    for family in FAMILIES {
        let cases = cases::of_family(family, Level::Quick, 1).expect("valid");
        let programs = cases.iter().map(|case| lower(&case.graph, &Profile::portable(), &Options::default()));
        let families: Vec<&str> = programs.flat_map(|program| super::families(&program.expect("lowers"))).collect();
        assert!(families.contains(&family), "{family} in {families:?}");
        assert!(families.iter().all(|family| FAMILIES.contains(family)), "{families:?}");
    }
}

#[test]
fn the_printed_program_has_it_all() {
    let program = program(|g| {
        let (x, w, b) = (input(g, "x", &[4, 8])?, g.parameter("w", DType::F32, [16, 8])?, input(g, "b", &[16])?);
        let y = g.linear(x, w, Some(b))?;
        let y = g.gelu(y)?;
        let e = g.exp(y)?;
        let sum = g.reduce(tilewise::graph::Reduce::Sum, e, &[-1], true)?;
        g.div(e, sum)
    });
    let text = program.to_string();
    for expected in [
        "4 steps, ",
        "\nSteps\n",
        "M=4 N=16 K=8 +bias +gelu",
        "x w b → %5",
        "computes %3, %4, %5",
        "\nApplied\n  fuse into matmul, `%5`: bias `b`, gelu",
        "\nNot applied\n",
        "\nMemory\n  2 inputs: 192 B\n  1 parameter: 512 B\n  0 constants: 0 B\n  1 output: 256 B\n",
    ] {
        assert!(text.contains(expected), "`{expected}` is missing in\n{text}");
    }
    let wgsl = program.wgsl(0).expect("step 0");
    assert!(wgsl.starts_with("// matmul ") && wgsl.contains("// binding 1: f32 [4, 8] `x`, Read"), "{wgsl}");
    assert!(wgsl.contains("fn main("));
    assert_eq!(program.wgsl(9), None);
}

/// What keeps several variants, or all, from a problem is said once, and then what to do.
#[test]
fn a_reason_that_variants_share_is_said_once() {
    let attention = graph(|g| {
        let [q, k, v] = ["q", "k", "v"].map(|name| g.input(name, DType::F32, [1, 2, 300, 64]));
        g.attention(q?, k?, v?, AttentionArgs::default())
    });
    let softmax = graph(|g| {
        let x = input(g, "x", &[7, 9])?;
        g.softmax(x, -1)
    });
    let norm = graph(|g| {
        let x = input(g, "x", &[7, 9])?;
        g.rms_norm(x, None, 1e-5)
    });
    let mut profile = Profile::portable();
    (profile.limits.workgroup_invocations, profile.limits.storage_buffers) = (1, 1);
    for g in [&matmul(), &attention, &softmax, &norm] {
        let error = lower(g, &profile, &Options::default()).expect_err("nothing can run");
        let Error::NoVariant { reasons, .. } = &error else { panic!("{error}") };
        let why = |reason: &String| reason.rsplit(": ").next().unwrap_or_default().to_string();
        let mut each: Vec<String> = reasons.iter().map(why).collect();
        each.sort_unstable();
        each.dedup();
        assert_eq!(each.len(), reasons.len(), "{error}");
        let text = error.to_string();
        assert!(text.contains("the limit is 1") && text.contains("`tilewise run --device cpu`"), "{text}");
    }
}
