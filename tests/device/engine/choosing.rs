use super::*;

#[test]
fn adapters_are_listed_and_chosen() {
    let all = adapters();
    assert!(!all.is_empty());
    for (i, adapter) in all.iter().enumerate() {
        assert_eq!(adapter.index, i);
        assert!(adapter.to_string().contains(&adapter.name));
        assert_eq!(adapter.kind() == AdapterKind::Cpu, adapter.device_type == wgpu::DeviceType::Cpu);
    }
    let last = &all[all.len() - 1];
    let gpu = Gpu::builder().adapter_index(last.index).build().expect("opens");
    assert_eq!(gpu.info().name, last.name);
    let gpu = Gpu::builder().adapter(last.name.to_uppercase()).build().expect("opens");
    assert_eq!(gpu.info().name, last.name);
    assert_eq!(gpu.profile(), &last.profile, "the device offers what the adapter promised");
}

#[test]
fn an_unknown_adapter_is_an_error_that_lists_the_known() {
    for (builder, what) in [
        (Gpu::builder().adapter("Voodoo 2"), "an adapter named `Voodoo 2` was asked for; found: 0: "),
        (Gpu::builder().adapter_index(99), "adapter 99 was asked for; found: 0: "),
    ] {
        match builder.build() {
            Err(Error::NoAdapter { message, hint }) => {
                assert!(message.starts_with(what), "{message}");
                assert!(message.contains(&adapters()[0].name), "{message}");
                assert!(!hint.is_empty());
            }
            other => panic!("expected Error::NoAdapter, got {other:?}"),
        }
    }
}

#[test]
fn a_test_without_its_adapter_fails_with_a_hint() {
    let output = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "engine::guarded::a_good_kernel_passes", "--nocapture"])
        .env("WGPU_ADAPTER_NAME", "Voodoo 2")
        .output()
        .expect("starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(text.contains("an adapter named `Voodoo 2` (WGPU_ADAPTER_NAME) was asked for; found: "), "{text}");
    if cfg!(target_os = "linux") {
        assert!(text.contains("apt-get install mesa-vulkan-drivers"), "{text}");
    }
}

#[test]
fn a_missing_feature_is_an_error() {
    // Pipelines for ray tracing, which no software adapter has, or else a feature that no GPU has all of.
    let adapter = &adapters()[0];
    let missing = wgpu::Features::all() - adapter.features;
    let first = missing.iter().next().expect("no adapter has every feature");
    let error = Gpu::builder().adapter_index(0).features(first).build();
    assert!(message(error).contains("lacks"));
}

/// The backend that runs nothing: good for no more than to see that everything can be built on limits of its own.
#[test]
fn a_device_without_an_adapter_builds_programs() {
    let (device, queue) = wgpu::Device::noop(&Default::default());
    let gpu = Gpu::from_wgpu(device, queue);
    let w = ramp(10, 1.0);
    let mut executable = gpu.load(&sample(10), [("w", &w)]).expect("loads");
    assert_eq!(executable.run(&[("x", &w)]).expect("runs").len(), 2);
}
