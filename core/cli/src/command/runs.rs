//! `motrain runs`: what a run folder keeps, and removing what the user names.

use crate::out::say;
use anyhow::Result;
use clap::Subcommand;
use motrain_core::shown::printable;
use motrain_engine::folder::RunFolder;
use motrain_engine::runs::{HumanBytes, Prune, kept, remove};
use std::path::{Path, PathBuf};

/// See what a run folder keeps, and remove what you name
#[derive(clap::Args)]
pub struct Runs {
    #[command(subcommand)]
    command: RunsCommand,
}

#[derive(Subcommand)]
enum RunsCommand {
    /// List what each stage made, with every set of options that it was run with
    List { run: PathBuf },
    /// Remove what the options name; nothing else, and nothing while a process works there
    Prune {
        run: PathBuf,
        /// Only of this stage: ID, or ID.HASH as `runs list` shows it; alone, all that it made
        #[arg(long, value_name = "ID[.HASH]")]
        stage: Option<String>,
        /// The checkpoints of finished stages
        #[arg(long)]
        checkpoints: bool,
        /// What the run's present plan does not use
        #[arg(long)]
        unused: bool,
        /// Say what would be removed, and remove nothing
        #[arg(long)]
        dry_run: bool,
    },
}

impl Runs {
    pub fn run(self) -> Result<()> {
        match self.command {
            RunsCommand::List { run } => list(&run),
            RunsCommand::Prune { run, stage, checkpoints, unused, dry_run } => {
                prune(&run, &Prune { stage, checkpoints, unused }, dry_run)
            }
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
