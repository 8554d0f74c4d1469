//! Running tools and finding folders.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// The root of this clone.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}

/// The folder shared by all clones of this user.
pub fn cache() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("MOTRAIN_CACHE") {
        return Ok(dir.into());
    }
    if let Some(dir) = std::env::var_os("XDG_CACHE_HOME") {
        return Ok(PathBuf::from(dir).join("motrain"));
    }
    let home = std::env::var_os("HOME").context("HOME is not set; set MOTRAIN_CACHE to a folder for downloads")?;
    Ok(PathBuf::from(home).join(".cache/motrain"))
}

pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or(root().join("target"), PathBuf::from)
}

pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root());
    command
}

pub fn python() -> Command {
    Command::new("python3")
}

/// Runs a command that shares this terminal; a failure names what ran.
pub fn checked(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}
