//! What the binary brings along: scripts, configurations and the embedded tasks' files, which build.rs lists. The engine needs paths, so they
//! are unpacked into the user's cache, under a hash of what they hold, once one of them is wanted.

use crate::locate;
use anyhow::{Context, Result};
use motrain_core::durable;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// Where a file or folder of this name lies, if one is shipped.
pub fn find(path: &Path) -> Result<Option<PathBuf>> {
    let name: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
    let known = name.components().next().is_some() && FILES.iter().any(|(file, _)| Path::new(file).starts_with(&name));
    if known { Ok(Some(unpacked()?.join(name))) } else { Ok(None) }
}

/// Brings back what a saved plan names and the user's cache has lost.
pub fn restore(path: &Path) -> Result<()> {
    match locate::cache() {
        Some(cache) if !path.exists() && path.starts_with(place(&cache)) => unpacked().map(|_| ()),
        _ => Ok(()),
    }
}

fn place(cache: &Path) -> PathBuf {
    let cache = std::path::absolute(cache).unwrap_or_else(|_| cache.to_owned());
    cache.join(format!("shipped-{HASH}"))
}

fn unpacked() -> Result<PathBuf> {
    let cache = locate::cache().context(
        "scripts and models that motrain brings along need a folder to be unpacked into; set MOTRAIN_CACHE to one, or HOME",
    )?;
    let folder = place(&cache);
    if !is_whole(&folder) {
        unpack(&cache, &folder).with_context(|| {
            let megabytes = FILES.iter().map(|(_, bytes)| bytes.len()).sum::<usize>().div_ceil(1_000_000);
            format!(
                "{} cannot be made, where motrain unpacks the scripts and models that it brings along; make {megabytes} MB of room there, or \
                 set MOTRAIN_CACHE to a folder that can be written to",
                folder.display()
            )
        })?;
    }
    Ok(folder)
}

/// Whether nothing was removed or cut.
fn is_whole(folder: &Path) -> bool {
    let length = |name: &str| folder.join(name).metadata().ok().map(|m| m.len());
    FILES.iter().all(|(name, bytes)| length(name) == Some(bytes.len() as u64))
}

fn unpack(cache: &Path, folder: &Path) -> Result<()> {
    durable::create_folder(cache)?;
    // Another process may be about it. Where files cannot be locked, each does it for itself, and the same bytes.
    let lock = File::create(durable::beside(folder, "lock"))?;
    let _ = lock.lock();
    if is_whole(folder) {
        return Ok(());
    }
    let partial = durable::beside(folder, "partial");
    durable::remove(&partial)?;
    for (name, bytes) in FILES {
        let path = partial.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&partial))?;
        fs::write(path, bytes)?;
    }
    Ok(durable::publish(&partial, folder)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_unpacked_again() {
        let cache = tempfile::tempdir().unwrap();
        let folder = place(cache.path());
        let model = folder.join("assets/hh/policy/model.safetensors");
        unpack(cache.path(), &folder).unwrap();
        assert!(is_whole(&folder));
        let first = fs::read(&model).unwrap();
        fs::write(&model, &first[..100]).unwrap();
        assert!(!is_whole(&folder));
        unpack(cache.path(), &folder).unwrap();
        assert!(is_whole(&folder) && fs::read(&model).unwrap() == first);
    }

    #[test]
    fn only_what_is_shipped_is_found() {
        for name in ["", ".", "..", "/", "assets/..", "assets/hh/polic", "Cargo.toml", "scripts/../scripts/paper.rhai"]
        {
            assert_eq!(find(Path::new(name)).unwrap(), None, "{name}");
        }
    }
}
