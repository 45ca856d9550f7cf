use std::{fs, path::Path};

use anyhow::{Context, Result};
use comfy_table::ContentArrangement;
use tilewise::{
    files,
    kernel::{Module, Specialization, fingerprint},
};

use crate::{
    args::ShadersArgs,
    output::{self, say},
};

/// Columns of the list of modules.
const WIDTH: u16 = 120;

/// Lists the shader modules, or writes the kernels among them. No adapter is asked.
pub(crate) fn run(args: &ShadersArgs) -> Result<bool> {
    match &args.expand {
        Some(folder) => expand(folder)?,
        None => list()?,
    }
    Ok(true)
}

fn list() -> Result<()> {
    for (family, modules) in families() {
        match fingerprint(family) {
            "" => say!("{family}"),
            fingerprint => say!("{family}, fingerprint {fingerprint}"),
        }
        let mut table = output::table(&["module", "", ">lines", "imports", "slots", "regions"]);
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
        for module in modules {
            let imports: Vec<&str> = module.imports()?.into_iter().map(|(path, _)| path).collect();
            let kind = if module.is_kernel() { "kernel" } else { "part" };
            let lines = module.text.lines().count().to_string();
            let name = module.path.trim_start_matches(family).trim_start_matches("::");
            let [imports, slots, regions] = [imports, module.slots(), module.regions()].map(|names| names.join(" "));
            table.add_row([name.into(), kind.into(), lines, imports, slots, regions]);
        }
        say!("{table}\n");
    }
    Ok(())
}

/// Each family and its modules, in the order of their names.
fn families() -> Vec<(&'static str, Vec<&'static Module>)> {
    let mut families: Vec<(&str, Vec<&Module>)> = Vec::new();
    for module in Module::all() {
        match families.last_mut() {
            Some((family, modules)) if *family == module.family() => modules.push(module),
            _ => families.push((module.family(), vec![module])),
        }
    }
    families
}

fn expand(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("the folder {} can't be made", folder.display()))?;
    let kernels = Module::all().iter().filter(|module| module.is_kernel());
    let mut count = 0;
    for kernel in kernels {
        let file = folder.join(format!("{}.wgsl", kernel.path.replace("::", "-")));
        let text = Specialization::defaults(kernel.path)?;
        files::write(&file, text)?;
        count += 1;
    }
    say!("{count} kernels in {}", folder.display());
    Ok(())
}
