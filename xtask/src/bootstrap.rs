//! `cargo xtask bootstrap`: remakes the embedded tasks' models from their grammars.

use crate::at_once::{at_once, cores};
use crate::commands::release_binary;
use crate::libtorch;
use crate::run::{checked, root};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// One embedded task, and its reward models.
struct Embedded {
    task: &'static str,
    rewards: [&'static str; 2],
}

const EMBEDDED: [Embedded; 2] = [
    Embedded { task: "hh", rewards: ["helpful", "harmless"] },
    Embedded { task: "tldr", rewards: ["quality", "entailment"] },
];

/// Remakes assets/: some 80 minutes for both tasks side by side on 2 cores, by the times of their stages. What was finished before is reused.
pub fn bootstrap(only: Option<&str>) -> Result<()> {
    libtorch::setup(false)?;
    let binary = release_binary()?;
    let wanted: Vec<&Embedded> = EMBEDDED.iter().filter(|e| only.is_none_or(|t| t == e.task)).collect();
    let mut trainings = Vec::new();
    for e in &wanted {
        checked(Command::new(&binary).args(["make-data", e.task]).arg(data(e)))?;
        let mut training = Command::new(&binary);
        training.args(["--script", "bootstrap.rhai", "--set"]).arg(format!("bootstrap.data={}", data(e).display()));
        training.args(["--set", &format!("bootstrap.rewards={:?}", e.rewards), "--out"]).arg(run(e));
        trainings.push((e.task.to_owned(), training));
    }
    at_once(trainings, wanted.len().min(cores()))?;
    wanted.iter().try_for_each(|e| install(e))
}

fn data(e: &Embedded) -> PathBuf {
    root().join("runs/bootstrap-data").join(e.task)
}

fn run(e: &Embedded) -> PathBuf {
    root().join("runs").join(format!("bootstrap-{}", e.task))
}

fn install(e: &Embedded) -> Result<()> {
    let assets = root().join("assets").join(e.task);
    let _ = fs::remove_dir_all(&assets);
    fs::create_dir_all(&assets)?;
    for name in ["prompts.jsonl", "validation.jsonl", "answers.jsonl.gz", "contrasts.jsonl"] {
        fs::copy(data(e).join(name), assets.join(name))?;
    }
    let policies = [("undirected", "policy"), ("undirected_small", "policy_small")];
    for (stage, name) in policies.into_iter().chain(e.rewards.map(|name| (name, name))) {
        let from = run(e).join("stages").join(stage).join("model");
        let to = assets.join(name);
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(&from).with_context(|| format!("{} is missing", from.display()))? {
            let entry = entry?;
            if entry.metadata()?.len() > 4_000_000 {
                bail!("{} is above 4 MB", entry.path().display());
            }
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    println!("{}", assets.display());
    Ok(())
}
