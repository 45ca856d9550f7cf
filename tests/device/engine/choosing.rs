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

#[track_caller]
fn none(opened: Result<Gpu>) -> [String; 2] {
    match opened {
        Err(Error::NoAdapter { message, hint }) => [message, hint],
        other => panic!("expected Error::NoAdapter, got {other:?}"),
    }
}

#[test]
fn an_unknown_adapter_is_an_error_that_lists_the_known() {
    for (builder, what, way) in [
        (
            Gpu::builder().adapter("Voodoo 2"),
            "an adapter named `Voodoo 2` was asked for; found: 0: ",
            "a part of its name",
        ),
        (Gpu::builder().adapter_index(99), "adapter 99 was asked for; found: 0: ", "its number"),
    ] {
        let [message, hint] = none(builder.build());
        assert!(message.starts_with(what), "{message}");
        assert!(message.contains(&adapters()[0].name), "{message}");
        assert_eq!(hint, format!("Choose one of these by {way}, or leave the choice to tilewise."));
    }
}

#[test]
fn backends_that_leave_nothing_are_named() {
    // No system has both, and a build for one has not the other.
    let other = if cfg!(windows) { wgpu::Backends::METAL } else { wgpu::Backends::DX12 };
    let [message, hint] = none(Gpu::builder().backends(other).build());
    let name = if cfg!(windows) { "metal" } else { "dx12" };
    let expected =
        format!("a GPU adapter was asked for; the program, which asks for the backends {name}, leaves none of: 0: ");
    assert!(message.starts_with(&expected), "{message}");
    assert!(hint.starts_with("Ask for others, or for none in particular: there is "), "{hint}");
    let there = wgpu::Backends::from(adapters()[0].backend);
    let gpu = Gpu::builder().backends(there).power(wgpu::PowerPreference::LowPower).build().expect("opens");
    assert_eq!(wgpu::Backends::from(gpu.info().backend), there);
}

/// What another test says on a system that is set up so.
fn told(environment: &[(&str, &str)]) -> String {
    let output = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "engine::guarded::a_good_kernel_passes", "--nocapture"])
        .envs(environment.iter().copied())
        .output()
        .expect("starts");
    assert!(!output.status.success(), "{environment:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Tests fail without an adapter, and say how to get one; drivers are to be installed only if none is there.
#[test]
fn a_test_without_its_adapter_fails_with_a_hint() {
    let install = "apt-get install mesa-vulkan-drivers";
    let text = told(&[("WGPU_ADAPTER_NAME", "Voodoo 2")]);
    assert!(text.contains("an adapter named `Voodoo 2` (WGPU_ADAPTER_NAME) was asked for; found: 0: "), "{text}");
    assert!(text.contains("Unset WGPU_ADAPTER_NAME, or set it to a part of one of these names."), "{text}");
    assert!(!text.contains(install), "{text}");

    let there = adapters()[0].backend;
    for backend in ["noop", "vulcan"] {
        let text = told(&[("WGPU_BACKEND", backend)]);
        assert!(text.contains(&format!("; WGPU_BACKEND={backend} leaves none of: 0: ")), "{text}");
        assert!(text.contains("Unset WGPU_BACKEND, or set it to another: there is "), "{text}");
        assert!(!text.contains(install), "{text}");
    }
    let text = told(&[("WGPU_BACKEND", there.to_str()), ("WGPU_ADAPTER_NAME", "Voodoo 2")]);
    assert!(text.contains(&format!("found (by WGPU_BACKEND={}): 0: ", there.to_str())), "{text}");

    if cfg!(target_os = "linux") {
        let text = told(&[("VK_DRIVER_FILES", "/no/such/driver.json"), ("WGPU_BACKEND", "vulkan")]);
        assert!(text.contains("a GPU adapter was asked for; no adapter was found (backends of this build: "), "{text}");
        assert!(text.contains("VK_DRIVER_FILES=/no/such/driver.json decides which drivers are looked at. "), "{text}");
        assert!(text.contains(install), "{text}");
    }
}

#[test]
fn a_missing_feature_is_an_error() {
    // Pipelines for ray tracing, which no software adapter has, or else a feature that no GPU has all of.
    let adapter = &adapters()[0];
    let missing = wgpu::Features::all() - adapter.features;
    let first = missing.iter().next().expect("no adapter has every feature");
    let [name] = first.iter_names().map(|(name, _)| name).collect::<Vec<_>>()[..] else { panic!("one feature") };
    let [text, hint] = none(Gpu::builder().adapter_index(0).features(first).build());
    assert_eq!(text, format!("adapter `{}` lacks {name}, asked for by the program", adapter.name));
    assert_eq!(hint, "Choose another, or do without.");
}

#[test]
fn a_limit_that_is_not_reached_is_an_error() {
    let adapter = &adapters()[0];
    let has = adapter.limits.max_compute_workgroups_per_dimension;
    let wanted = wgpu::Limits { max_compute_workgroups_per_dimension: has + 1, ..Default::default() };
    let text = format!("max_compute_workgroups_per_dimension of {} (it has {has}), asked for by the program", has + 1);
    let [found, _] = none(Gpu::builder().adapter_index(0).limits(wanted.clone()).build());
    assert_eq!(found, format!("adapter `{}` lacks {text}", adapter.name));
    let gpu = Gpu::builder().adapter_index(0).build().expect("opens");
    let [found, _] = none(Gpu::builder().limits(wanted).adopt(gpu.device().clone(), gpu.queue().clone()));
    assert_eq!(found, format!("the device lacks {text}"));
    // What is reached is there, also where nothing more is wanted than on the weakest device.
    let more = wgpu::Limits { max_storage_buffers_per_shader_stage: 9, ..Default::default() };
    let gpu = Gpu::builder().portable(true).limits(more).build().expect("opens");
    let expected = tilewise::kernel::Limits { storage_buffers: 9, ..tilewise::kernel::Profile::portable().limits };
    assert_eq!(gpu.profile().limits, expected);
}

/// Neither says anything of results, and where a driver grants no budget there is nothing to refuse.
#[test]
fn memory_may_be_bounded() {
    let builder = Gpu::builder().memory_hints(wgpu::MemoryHints::MemoryUsage).memory_percent(100);
    let gpu = builder.build().expect("opens");
    let w = ramp(10, 1.0);
    check_sample(&mut gpu.load(&sample(10), [("w", &w)]).expect("loads"), 10, &w);
}

/// The same options mean the same for a device that is open.
#[test]
fn a_device_is_adopted_with_the_options_of_one_that_is_opened() {
    let opened = Gpu::new().expect("an adapter");
    let (device, queue) = (opened.device().clone(), opened.queue().clone());
    let adopted = Gpu::builder().portable(true).adopt(device.clone(), queue.clone()).expect("is there");
    let portable = Gpu::builder().portable(true).build().expect("opens");
    assert_eq!(adopted.profile(), portable.profile());
    assert_eq!(adopted.has_timestamps(), portable.has_timestamps());
    let w = ramp(10, 1.0);
    check_sample(&mut adopted.load(&sample(10), [("w", &w)]).expect("loads"), 10, &w);
    let missing = wgpu::Features::all() - device.features();
    let first = missing.iter().next().expect("no adapter has every feature");
    let [text, _] = none(Gpu::builder().features(first).adopt(device.clone(), queue.clone()));
    assert!(text.starts_with("the device lacks "), "{text}");
    // Pipelines are kept where the device was opened for it.
    let folder = tempfile::tempdir().expect("a folder");
    let adopted = Gpu::builder().pipeline_cache(folder.path()).adopt(device, queue).expect("is there");
    assert!(!adopted.save_pipelines().expect("nothing to do"), "the device has no PIPELINE_CACHE");
    let opened = Gpu::builder().pipeline_cache(folder.path()).build().expect("opens");
    let (device, queue) = (opened.device().clone(), opened.queue().clone());
    let adopted = Gpu::builder().pipeline_cache(folder.path()).adopt(device.clone(), queue).expect("is there");
    adopted.load(&sample(10), [("w", &w)]).expect("loads");
    assert_eq!(adopted.save_pipelines().expect("writes"), device.features().contains(wgpu::Features::PIPELINE_CACHE));
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
