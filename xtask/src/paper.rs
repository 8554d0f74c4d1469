//! `cargo xtask reproduce-paper`: trains what the paper's figures need, a run folder a seed, and draws them.

use crate::at_once::{at_once, cores};
use crate::commands::release_binary;
use crate::libtorch;
use crate::models;
use crate::run::{checked, root};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Finished stages are reused, so an interrupted reproduction goes on where it was.
pub fn reproduce(scale: &str, seeds: u64, jobs: Option<usize>, only: &[String], out: Option<PathBuf>) -> Result<()> {
    libtorch::setup(false)?;
    let binary = release_binary()?;
    if scale == "smollm2" {
        models::fetch("smollm2", release_binary)?;
    }
    let out = out.unwrap_or_else(|| root().join("runs").join(format!("paper-{scale}")));
    let experiment = experiment(scale, only);
    let motrain = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.current_dir(root()).args(arguments).args(&experiment);
        command
    };
    // All that is missing is listed before anything is trained.
    checked(&mut motrain(&["check", "paper.rhai"]))
        .with_context(|| format!("what --scale {scale} needs is not there; see {}", configs(scale).join(" and ")))?;
    let seed_run = |seed: u64| {
        let mut command = motrain(&["--script", "paper.rhai"]);
        command.arg("--set").arg(format!("seed={seed}")).arg("--out").arg(run(&out, seed));
        command
    };
    match jobs.unwrap_or_else(|| usual_jobs(scale, seeds)) {
        1 => (0..seeds).try_for_each(|seed| {
            println!("seed {seed} ({} of {seeds})", seed + 1);
            checked(&mut seed_run(seed))
        })?,
        jobs => at_once((0..seeds).map(|seed| (format!("seed {seed}"), seed_run(seed))).collect(), jobs)?,
    }
    checked(Command::new(&binary).arg("paper").arg(&out))
}

/// A second thread makes models as small as the embedded ones 1.4 times as fast, a second process twice.
fn usual_jobs(scale: &str, seeds: u64) -> usize {
    if scale == "tiny" { seeds.clamp(1, 2 * cores() as u64) as usize } else { 1 }
}

fn run(out: &Path, seed: u64) -> PathBuf {
    out.join(format!("seed-{seed}"))
}

fn configs(scale: &str) -> Vec<String> {
    match scale {
        "tiny" => vec!["configs/paper-tiny.toml".into()],
        "smollm2" => vec!["configs/smollm2.toml".into(), "configs/paper-smollm2.toml".into()],
        _ => vec!["configs/paper.toml".into()],
    }
}

/// The layers of configuration as arguments.
fn experiment(scale: &str, only: &[String]) -> Vec<String> {
    let mut arguments: Vec<String> = configs(scale).into_iter().flat_map(|c| ["--config".into(), c]).collect();
    if !only.is_empty() {
        arguments.extend(["--set".into(), format!("paper.only={only:?}")]);
    }
    arguments
}
