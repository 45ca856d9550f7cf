use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use etcetera::{BaseStrategy, choose_base_strategy};
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result, fields, files,
    gpu::Gpu,
    kernel::{FAMILIES, fingerprint},
    lower::Choices,
};

/// What was measured on one device, and the file that keeps it.
///
/// A file that can't be read, or that is of another device, driver or version of this crate, counts as empty; what it says
/// of kernel families whose shaders have changed since counts as not said. [`Table::warning`] says why, and the next
/// [`Table::save`] replaces the file, but not one that is no table at all.
#[derive(Clone, Debug)]
pub struct Table {
    /// The variants. Give them to [`Gpu::with_choices`].
    pub choices: Choices,
    /// What the file said when it was read.
    read: Choices,
    path: PathBuf,
    device: Device,
    warning: Option<String>,
}

/// What a measurement is good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Device {
    adapter: String,
    driver: String,
    backend: String,
    tilewise: String,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct File {
    device: Device,
    /// By kernel family, the fingerprint of the shaders that were measured.
    shaders: BTreeMap<String, String>,
    choices: Choices,
}

impl Device {
    fn of(gpu: &Gpu) -> Self {
        Device {
            adapter: gpu.profile().adapter.clone(),
            driver: gpu.driver(),
            backend: gpu.info().backend.to_string(),
            tilewise: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// The first thing in which two devices differ.
    fn difference(&self, other: &Device) -> Option<String> {
        let parts = [
            ("adapter", &self.adapter, &other.adapter),
            ("driver", &self.driver, &other.driver),
            ("backend", &self.backend, &other.backend),
            ("version", &self.tilewise, &other.tilewise),
        ];
        let differs = parts.into_iter().find(|(_, a, b)| a != b);
        differs.map(|(what, theirs, ours)| format!("its {what} is `{theirs}`, here it is `{ours}`"))
    }
}

impl Table {
    /// The usual place of a device's table: the environment variable `TILEWISE_TUNED`, or a file in the folder
    /// `tilewise` of the user's cache folder, as the system's convention has it.
    ///
    /// # Errors
    /// [`Error::Format`] if the system names no home folder.
    pub fn default_path(gpu: &Gpu) -> Result<PathBuf> {
        if let Some(path) = std::env::var_os("TILEWISE_TUNED") {
            return Ok(path.into());
        }
        let strategy = choose_base_strategy().map_err(|error| {
            Error::format("the user's cache folder", format!("{error}; name a file by TILEWISE_TUNED"))
        })?;
        let device = Device::of(gpu);
        let name: String = format!("{} {} {}", device.adapter, device.driver, device.backend)
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' })
            .collect();
        let parts: Vec<&str> = name.split('-').filter(|part| !part.is_empty()).collect();
        Ok(strategy.cache_dir().join("tilewise").join(format!("{}.json", parts.join("-"))))
    }

    /// The table in a file, or an empty one.
    pub fn open(path: impl Into<PathBuf>, gpu: &Gpu) -> Self {
        let (path, device) = (path.into(), Device::of(gpu));
        let (choices, warning) = match read(&path, &device) {
            Ok((choices, outdated)) if outdated.is_empty() => (choices, None),
            Ok((choices, outdated)) => {
                let families = outdated.join(", ");
                let why =
                    format!("{}: the shaders of {families} have changed since, measure them again", path.display());
                (choices, Some(why))
            }
            Err(why) => (Choices::default(), Some(format!("{} is ignored: {why}", path.display()))),
        };
        Table { read: choices.clone(), choices, path, device, warning }
    }

    /// Why the file was ignored, if it was. A file that isn't there is no reason to warn.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the table can be saved: to be asked before minutes of measuring. Makes the folder.
    ///
    /// # Errors
    /// [`Error::Format`], which names the file, if it can't be written, or is there and no tuning table.
    pub fn check(&self) -> Result<()> {
        files::make_folder_of(&self.path)?;
        self.check_replaceable()?;
        files::check(&self.path)
    }

    /// Writes the file: all of it or nothing. What someone else has measured and saved since this table was read stays in the
    /// file, and is taken over here.
    ///
    /// # Errors
    /// As [`Table::check`].
    pub fn save(&mut self) -> Result<()> {
        self.check()?;
        let lock = files::Lock::of(&self.path)?;
        self.check_replaceable()?;
        let choices = match read(&self.path, &self.device) {
            Ok((there, _)) if self.path.exists() => self.merged(there),
            // What isn't of this device counts as nothing, and gives way.
            _ => self.choices.clone(),
        };
        let file = File { device: self.device.clone(), shaders: fingerprints(), choices };
        let text =
            serde_json::to_string_pretty(&file).map_err(|error| Error::format("tuning table", error.to_string()))?;
        files::write(&self.path, text + "\n")?;
        drop(lock);
        self.read.clone_from(&file.choices);
        self.choices = file.choices;
        Ok(())
    }

    /// What the file says now, with what has changed here since it was read.
    fn merged(&self, mut there: Choices) -> Choices {
        for (key, variant) in self.choices.iter().filter(|(key, variant)| self.read.get(key) != Some(variant)) {
            there.insert(key, variant);
        }
        for (key, _) in self.read.iter().filter(|(key, _)| self.choices.get(key).is_none()) {
            there.remove(key);
        }
        there
    }

    /// An error if there is a file in the way that is no tuning table: a graph, perhaps, whose name was given by mistake.
    fn check_replaceable(&self) -> Result<()> {
        // Whether it can't be read or isn't there is said by whoever reads or writes it.
        let Ok(there) = fs::read(&self.path) else { return Ok(()) };
        if there.is_empty() || serde_json::from_slice::<File>(&there).is_ok() {
            return Ok(());
        }
        Err(Error::format(
            self.path.display().to_string(),
            "is no tuning table and is not replaced: name another file (--tuned, TILEWISE_TUNED), or delete this one",
        ))
    }
}

fn fingerprints() -> BTreeMap<String, String> {
    FAMILIES.iter().map(|&family| (family.into(), fingerprint(family).into())).collect()
}

/// What a file says, and the families of which it says something that is outdated.
fn read(path: &Path, device: &Device) -> Result<(Choices, Vec<String>), String> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Choices::default(), Vec::new())),
        text => text.map_err(|error| format!("it can't be read: {error}"))?,
    };
    let file: File = fields::parse(&text).map_err(|why| format!("it is no tuning table: {why}"))?;
    if let Some(why) = file.device.difference(device) {
        return Err(format!("it is of another device: {why}"));
    }
    let mut choices = file.choices;
    let now = fingerprints();
    let measured: Vec<String> = choices.iter().map(|(key, _)| key.to_string()).collect();
    let mut outdated: Vec<String> = Vec::new();
    for key in measured {
        let family = key.split(' ').next().unwrap_or_default();
        if file.shaders.get(family) != now.get(family) {
            choices.remove(&key);
            outdated.push(family.into());
        }
    }
    outdated.dedup();
    Ok((choices, outdated))
}
