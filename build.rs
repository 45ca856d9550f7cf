//! Gives the library a fingerprint of its shaders, so that measurements of older ones are not taken for theirs.

use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=shaders");
    let mut shaders = BTreeMap::new();
    for file in fs::read_dir("shaders")? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "wgsl") {
            shaders.insert(path.file_name().map(ToOwned::to_owned), fs::read(&path)?);
        }
    }
    let mut hasher = DefaultHasher::new();
    shaders.hash(&mut hasher);
    println!("cargo::rustc-env=TILEWISE_SHADERS={:016x}", hasher.finish());
    Ok(())
}
