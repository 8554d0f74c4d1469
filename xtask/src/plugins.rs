//! Building the first-party plugins, and the header that C authors include.

use crate::run::{cargo, checked, root, target};
use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const RUST: [&str; 6] = [
    "conditioner-words",
    "loss-robust",
    "reward-encoder",
    "reward-readability",
    "reward-toxicity",
    "sampler-hypervolume",
];
const C: [(&str, &str); 1] = [("reward-repetition", "repetition.c")];

/// Builds every plugin into target/plugins/ and returns that folder. Needs no libtorch.
pub fn build() -> Result<PathBuf> {
    let folder = target().join("plugins");
    fs::create_dir_all(&folder)?;
    let mut command = cargo();
    command.args(["build", "--release", "--lib"]);
    for name in RUST {
        command.args(["--package", name]);
    }
    checked(&mut command)?;
    for name in RUST {
        let file = library(name);
        let from = target().join("release").join(&file);
        fs::copy(&from, folder.join(&file)).with_context(|| format!("{} was not built", from.display()))?;
    }
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    for (name, source) in C {
        let flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-I"];
        let mut command = Command::new(&compiler);
        command.args(flags).arg(root().join("plugins/abi/include"));
        checked(command.arg(root().join("plugins").join(name).join(source)).arg("-o").arg(folder.join(library(name))))?;
    }
    println!("{}", folder.display());
    Ok(folder)
}

pub fn library(package: &str) -> String {
    format!("{}{}{}", std::env::consts::DLL_PREFIX, package.replace('-', "_"), std::env::consts::DLL_SUFFIX)
}

/// Builds the template as its users do, outside the workspace, and returns the library.
pub fn template() -> Result<PathBuf> {
    let folder = target().join("template");
    let manifest = root().join("plugins/template/Cargo.toml");
    checked(cargo().args(["build", "--release", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&folder))?;
    Ok(folder.join("release").join(library("my-reward")))
}

/// Remakes plugins/abi/include/motrain.h.
pub fn codegen() -> Result<()> {
    checked(
        cargo().args(["test", "--quiet", "--package", "motrain-abi", "--test", "header"]).env("MOTRAIN_CODEGEN", "1"),
    )
}
