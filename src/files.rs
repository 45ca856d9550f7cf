//! Files that are whole or not there: what is written goes beside the file and takes its place when it is complete.
//!
//! ```
//! # let folder = std::env::temp_dir().join(format!("tilewise-files-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder).unwrap();
//! let file = folder.join("figures.txt");
//! tilewise::files::check(&file)?; // before hours of work
//! tilewise::files::write(&file, "42\n")?;
//! assert_eq!(std::fs::read_to_string(&file).unwrap(), "42\n");
//! # std::fs::remove_dir_all(folder).unwrap();
//! # Ok::<(), tilewise::Error>(())
//! ```

use std::{
    fs::{self, File, Metadata, OpenOptions},
    hash::{BuildHasher as _, RandomState},
    io::{self, BufWriter, Write},
    path::{Component, Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use crate::{Error, Result};

/// After so long, whoever holds a lock has died: it is held for as long as a small file takes to write.
const STALE: Duration = Duration::from_secs(10);

fn fault(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::format(path.display().to_string(), format!("can't be written: {what}"))
}

/// Writes a file: all of it or nothing. If anything fails, a full disk or the power, a file of this name stays as it was.
///
/// What is no regular file (`/dev/stdout`, a pipe) is written to as it is; of a link, the file that it leads to is replaced.
///
/// ```
/// # let file = std::env::temp_dir().join(format!("tilewise-write-{}", std::process::id()));
/// tilewise::files::write(&file, "a line\n")?;
/// assert_eq!(std::fs::read_to_string(&file).unwrap(), "a line\n");
/// # std::fs::remove_file(file).unwrap();
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Format`], which names the file, if it can't be written.
pub fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> Result<()> {
    write_with(path, |out| out.write_all(content.as_ref()))
}

/// [`write()`], piece by piece.
///
/// ```
/// # use std::io;
/// # let file = std::env::temp_dir().join(format!("tilewise-write-with-{}", std::process::id()));
/// tilewise::files::write(&file, "old")?;
/// let full = tilewise::files::write_with(&file, |out| {
///     out.write_all(b"half of the n")?;
///     Err(io::ErrorKind::StorageFull.into())
/// });
/// assert!(full.is_err());
/// assert_eq!(std::fs::read(&file).unwrap(), b"old");
/// # std::fs::remove_file(file).unwrap();
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Format`], which names the file, if it can't be written or `write` fails.
pub fn write_with(path: impl AsRef<Path>, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let path = path.as_ref();
    let place = Place::of(path)?;
    let Place::Beside { target, old } = place else {
        let file = OpenOptions::new().write(true).open(path).map_err(|e| fault(path, e))?;
        let mut out = BufWriter::new(file);
        return write(&mut out).and_then(|()| out.flush()).map_err(|e| fault(path, e));
    };
    let (part, file) = create_beside(&target).map_err(|e| fault(path, e))?;
    let written = || -> io::Result<()> {
        if let Some(old) = &old {
            file.set_permissions(old.permissions())?;
        }
        let mut out = BufWriter::new(&file);
        write(&mut out)?;
        out.flush()?;
        drop(out);
        // On the disk before the name is: a rename may be there first, after the power fails.
        file.sync_all()?;
        fs::rename(&part, &target)
    };
    if let Err(why) = written() {
        // The reason is what matters; a file that is left behind is not.
        let _ = fs::remove_file(&part);
        return Err(fault(path, why));
    }
    #[cfg(unix)]
    if let Ok(folder) = File::open(folder_of(&target)) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// Whether [`write()`] could write there now: to be asked before the work whose results go there.
///
/// ```
/// let error = tilewise::files::check("no/such/folder/figures.json").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "no/such/folder/figures.json: can't be written: there is no folder no/such/folder; make it first"
/// );
/// ```
///
/// # Errors
/// [`Error::Format`], which names the file and says what is in the way: a folder that is missing or full or not the
/// user's, a folder in the place of the file, a file that is read-only.
pub fn check(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    match Place::of(path)? {
        Place::Itself => OpenOptions::new().write(true).open(path).map(|_| ()).map_err(|e| fault(path, e)),
        Place::Beside { target, .. } => {
            let (part, _) = create_beside(&target).map_err(|e| fault(path, e))?;
            fs::remove_file(part).map_err(|e| fault(path, e))
        }
    }
}

/// A path in a folder that a file names: it must not lead out of it.
///
/// ```
/// use std::path::Path;
/// assert_eq!(tilewise::files::within(Path::new("model"), "shards/1.safetensors")?, Path::new("model/shards/1.safetensors"));
/// let error = tilewise::files::within(Path::new("model"), "../../etc/passwd").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "model: a file in it names `../../etc/passwd`, which leads out of the folder; expected a path inside it"
/// );
/// # Ok::<(), tilewise::Error>(())
/// ```
///
/// # Errors
/// [`Error::Format`] if the path is absolute or goes up.
pub fn within(folder: &Path, name: &str) -> Result<PathBuf> {
    // A backslash is a separator elsewhere: what is inside here is to be inside there.
    let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        && !name.split(['/', '\\']).any(|part| part == "..")
        && !name.starts_with('\\')
        && !name.contains(':');
    if inside {
        return Ok(folder.join(name));
    }
    Err(Error::format(
        folder.display().to_string(),
        format!("a file in it names `{name}`, which leads out of the folder; expected a path inside it"),
    ))
}

/// Makes the folder of a file, with those above it.
///
/// # Errors
/// [`Error::Format`], which names the folder, if it can't be made.
pub(crate) fn make_folder_of(path: &Path) -> Result<()> {
    let folder = folder_of(path);
    fs::create_dir_all(folder)
        .map_err(|why| Error::format(folder.display().to_string(), format!("the folder can't be made: {why}")))
}

/// How a path is written to.
enum Place {
    /// It is a device or a pipe.
    Itself,
    /// A file beside the target takes its place.
    Beside { target: PathBuf, old: Option<Metadata> },
}

impl Place {
    fn of(path: &Path) -> Result<Self> {
        let old = match fs::metadata(path) {
            Ok(old) if old.is_dir() => return Err(fault(path, "it is a folder; name a file in it")),
            Ok(old) if !old.is_file() => return Ok(Place::Itself),
            Ok(old) if old.permissions().readonly() => {
                return Err(fault(path, "it is read-only; name another file, or make it writable"));
            }
            Ok(old) => Some(old),
            Err(why) if why.kind() == io::ErrorKind::NotFound => None,
            Err(why) => return Err(fault(path, why)),
        };
        let target = match old {
            Some(_) => fs::canonicalize(path).map_err(|e| fault(path, e))?,
            None => path.to_path_buf(),
        };
        if target.file_name().is_none() {
            return Err(fault(path, "expected the name of a file"));
        }
        let folder = folder_of(&target);
        if !folder.is_dir() {
            return Err(fault(path, format!("there is no folder {}; make it first", folder.display())));
        }
        Ok(Place::Beside { target, old })
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A new file in the folder of the target, under a name that nobody else has.
fn create_beside(target: &Path) -> io::Result<(PathBuf, File)> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    // A name may have 255 bytes.
    let short: String = name.chars().take(40).collect();
    for attempt in 0..16u32 {
        let part = folder_of(target).join(format!(".{short}.{:016x}.part", RandomState::new().hash_one(attempt)));
        match OpenOptions::new().write(true).create_new(true).open(&part) {
            Ok(file) => return Ok((part, file)),
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
            Err(why) => return Err(why),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A file that is there while someone reads and rewrites another one.
pub(crate) struct Lock(PathBuf);

impl Lock {
    /// Waits until nobody else has the lock of this file.
    ///
    /// # Errors
    /// If the lock's file can't be made.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".lock");
        let file = path.with_file_name(name);
        let begun = Instant::now();
        loop {
            match OpenOptions::new().write(true).create_new(true).open(&file) {
                Ok(_) => return Ok(Lock(file)),
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {
                    let made = fs::metadata(&file).and_then(|found| found.modified()).unwrap_or(SystemTime::now());
                    if made.elapsed().unwrap_or_default() > STALE || begun.elapsed() > 2 * STALE {
                        let _ = fs::remove_file(&file);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(why) => return Err(fault(path, why)),
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // One that stays is stale soon.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("readable").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = folder();
        let file = folder.path().join("x");
        write(&file, "old").expect("writes");
        let error = write_with(&file, |out| {
            out.write_all(b"new")?;
            assert_eq!(fs::read(&file)?, b"old", "not yet");
            Err(io::ErrorKind::StorageFull.into())
        });
        let message = error.expect_err("the disk is full").to_string();
        assert!(message.starts_with(&format!("{}: can't be written: ", file.display())), "{message}");
        assert_eq!(fs::read(&file).expect("is there"), b"old");
        assert_eq!(names(folder.path()), ["x"], "nothing is left behind");
        write(&file, "new").expect("writes");
        assert_eq!(fs::read(&file).expect("is there"), b"new");
    }

    #[test]
    fn what_is_in_the_way_is_said_before_the_work() {
        let folder = folder();
        let inside = |name: &str| folder.path().join(name);
        check(inside("new")).expect("could be written");
        assert!(names(folder.path()).is_empty(), "asking leaves nothing");
        for (path, expected) in [
            (folder.path().to_path_buf(), "it is a folder; name a file in it"),
            (inside("none/x"), "there is no folder "),
        ] {
            let message = check(&path).expect_err(expected).to_string();
            assert!(message.contains(expected) && message.contains("can't be written"), "{message}");
            assert_eq!(write_with(&path, |_| panic!("is not asked for")).expect_err(expected).to_string(), message);
        }
        let fixed = inside("fixed");
        fs::write(&fixed, "x").expect("writes");
        let mut permissions = fs::metadata(&fixed).expect("is there").permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&fixed, permissions).expect("its owner");
        let message = check(&fixed).expect_err("read-only").to_string();
        assert!(message.ends_with("it is read-only; name another file, or make it writable"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn devices_links_and_permissions_stay_what_they_are() {
        use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
        write("/dev/null", "x").expect("takes anything");
        assert!(fs::metadata("/dev/null").expect("is there").file_type().is_char_device());
        let folder = folder();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "old").expect("writes");
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).expect("its owner");
        symlink("real", &link).expect("links");
        write(&link, "new").expect("writes");
        assert_eq!(fs::read(&real).expect("is there"), b"new");
        assert!(fs::symlink_metadata(&link).expect("is there").is_symlink());
        assert_eq!(fs::metadata(&real).expect("is there").permissions().mode() & 0o777, 0o640);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_device_is_an_error() {
        let message = write("/dev/full", "x").expect_err("full").to_string();
        assert!(message.starts_with("/dev/full: can't be written: No space left on device"), "{message}");
    }

    #[test]
    fn paths_stay_in_their_folder() {
        let folder = Path::new("model");
        for inside in ["a", "a/b.safetensors", "./a", "a..b/c", "..."] {
            assert_eq!(within(folder, inside).expect(inside), folder.join(inside));
        }
        for outside in ["..", "../a", "a/../../b", "/etc/passwd", "..\\a", "a\\..\\b", "\\\\host\\a", "C:\\a", "c:a"] {
            within(folder, outside).expect_err(outside);
        }
    }

    #[test]
    fn a_lock_is_held_by_one_and_a_dead_ones_is_taken() {
        let folder = folder();
        let file = folder.path().join("x");
        let held = Lock::of(&file).expect("free");
        assert_eq!(names(folder.path()), ["x.lock"]);
        let other = std::thread::spawn({
            let file = file.clone();
            move || Lock::of(&file).map(|_| Instant::now())
        });
        std::thread::sleep(Duration::from_millis(50));
        let freed = Instant::now();
        drop(held);
        assert!(other.join().expect("ends").expect("free") >= freed, "the other one waited");
        assert!(names(folder.path()).is_empty());
        let dead = File::create(folder.path().join("x.lock")).expect("writes");
        dead.set_modified(SystemTime::now() - 2 * STALE).expect("its owner");
        drop(Lock::of(&file).expect("is taken over"));
    }
}
