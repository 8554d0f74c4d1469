//! Finds scripts, configurations and shipped models: in the working directory first, then where motrain lives.

use std::path::{Path, PathBuf};

/// The folder with scripts/, configs/ and assets/: `MOTRAIN_HOME`, or the source tree that this binary was built from.
pub fn home() -> PathBuf {
    if let Some(home) = std::env::var_os("MOTRAIN_HOME") {
        return home.into();
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    built.ancestors().nth(2).unwrap_or(built).to_owned()
}

/// `path` in the working directory, or else under motrain's home; unchanged if it is in neither.
pub fn find(path: &Path) -> PathBuf {
    first_existing(path, &[home().join(path)])
}

/// A script: working directory, its scripts/, then motrain's scripts/.
pub fn script(path: &Path) -> PathBuf {
    first_existing(path, &[Path::new("scripts").join(path), home().join("scripts").join(path), home().join(path)])
}

/// A model folder, or a run's policy/.
pub fn policy(path: &Path) -> PathBuf {
    let inside = path.join("policy");
    let is_one = ["config.json", "steering.json"].iter().any(|file| inside.join(file).is_file());
    if is_one { inside } else { path.to_owned() }
}

/// An empty path stays empty: joined to a folder it would be the folder.
fn first_existing(path: &Path, others: &[PathBuf]) -> PathBuf {
    if path.exists() || path.as_os_str().is_empty() {
        return path.to_owned();
    }
    others.iter().find(|p| p.exists()).cloned().unwrap_or_else(|| path.to_owned())
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
