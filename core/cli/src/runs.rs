//! `motrain runs`: what a run folder keeps, and removing what the user names.

use crate::args::RunsCommand;
use crate::out::say;
use anyhow::Result;
use motrain_core::shown::printable;
use motrain_engine::folder::RunFolder;
use motrain_engine::runs::{HumanBytes, Prune, kept, remove};
use std::path::Path;

pub fn run(command: RunsCommand) -> Result<()> {
    match command {
        RunsCommand::List { run } => list(&run),
        RunsCommand::Prune { run, stage, checkpoints, unused, dry_run } => {
            prune(&run, &Prune { stage, checkpoints, unused }, dry_run)
        }
    }
}

fn list(run: &Path) -> Result<()> {
    for one in kept(run)? {
        let state = if one.finished { "finished" } else { "unfinished" };
        let used = if one.present { "present" } else { "unused" };
        let checkpoints = match one.checkpoints {
            0 => String::new(),
            bytes => format!(" (checkpoints {})", HumanBytes(bytes)),
        };
        let (id, hash) = (printable(&one.id), printable(&one.hash));
        say!("{id:<20} {hash:<16}  {state:<10}  {used:<7}  {}{checkpoints}", HumanBytes(one.bytes));
    }
    Ok(())
}

fn prune(run: &Path, what: &Prune, dry_run: bool) -> Result<()> {
    // A run folder is there already: opening must not make one.
    kept(run)?;
    let _folder = if dry_run { None } else { Some(RunFolder::open(run)?) };
    let (verb, mut sum) = (if dry_run { "would remove" } else { "removed" }, 0);
    for (folder, bytes) in what.of(run)? {
        if !dry_run {
            remove(&folder)?;
        }
        say!("{verb} {} ({})", printable(&folder.to_string_lossy()), HumanBytes(bytes));
        sum += bytes;
    }
    say!("{verb} {} in all", HumanBytes(sum));
    Ok(())
}
