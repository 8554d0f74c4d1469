//! Finds scripts, configurations and shipped models: in the working directory first, then in motrain's home, then in the binary.

use crate::shipped;
use anyhow::Result;
use motrain_engine::names;
use std::path::{Path, PathBuf};

/// A folder with scripts/, configs/ and assets/ that goes before what the binary brings along, if the user names one.
pub fn home() -> Option<PathBuf> {
    std::env::var_os("MOTRAIN_HOME").map(PathBuf::from)
}

/// The user's cache.
pub fn cache() -> Option<PathBuf> {
    let named = std::env::var_os("MOTRAIN_CACHE").filter(|c| !c.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/motrain")))
}

/// `path` in the working directory, under motrain's home, or as the binary brings it along; unchanged if it is in none.
pub fn find(path: &Path) -> Result<PathBuf> {
    first_existing(path, &[path.to_owned()])
}

/// A script: working directory, its scripts/, then motrain's scripts/.
pub fn script(path: &Path) -> Result<PathBuf> {
    first_existing(path, &[Path::new("scripts").join(path), path.to_owned()])
}

/// A model folder, or a run's policy/.
pub fn policy(path: &Path) -> PathBuf {
    let inside = path.join(names::POLICY);
    let is_one = ["config.json", names::STEERING].iter().any(|file| inside.join(file).is_file());
    if is_one { inside } else { path.to_owned() }
}

/// By any of its names. An empty path stays empty: joined to a folder it would be the folder.
fn first_existing(path: &Path, names: &[PathBuf]) -> Result<PathBuf> {
    if path.exists() || path.as_os_str().is_empty() {
        return Ok(path.to_owned());
    }
    let at_home = home().into_iter().flat_map(|home| names.iter().map(move |name| home.join(name)));
    if let Some(found) = names.iter().cloned().chain(at_home).find(|p| p.exists()) {
        return Ok(found);
    }
    let shipped = names.iter().find_map(|name| shipped::find(name).transpose());
    Ok(shipped.transpose()?.unwrap_or_else(|| path.to_owned()))
}

/// Bytes of a script.
const MAX_SCRIPT: u64 = 4 << 20;

/// The text of a script, without the byte-order mark that editors on Windows write.
pub fn text(path: &Path) -> std::io::Result<String> {
    let bytes = std::fs::metadata(path)?.len();
    if bytes > MAX_SCRIPT {
        return Err(std::io::Error::other(format!("it has {bytes} bytes; a script may have {MAX_SCRIPT}")));
    }
    let text = std::fs::read_to_string(path)?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
