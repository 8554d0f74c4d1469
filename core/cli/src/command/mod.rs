//! The command line: a command is a file, with its options and what it does, and a line in `Command`.

mod check;
mod completions;
mod evaluate;
mod generate;
mod import;
mod list;
mod make_data;
mod man;
mod paper;
mod plugin;
mod runs;
mod train;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};

/// Train one language model that follows objective weights given at inference.
#[derive(Parser)]
#[command(name = "motrain", version, about, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    train: train::Train,
}

#[derive(Subcommand)]
enum Command {
    Check(check::Check),
    List(list::List),
    Plugin(plugin::Plugin),
    Generate(generate::Generate),
    Evaluate(evaluate::Evaluate),
    Runs(runs::Runs),
    Paper(paper::Paper),
    Import(import::Import),
    MakeData(make_data::MakeData),
    Completions(completions::Completions),
    Man(man::Man),
}

/// Of the commands that take long.
#[derive(clap::Args)]
struct Profile {
    /// Write where the time goes to this file, as chrome://tracing and ui.perfetto.dev show it
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
}

impl Args {
    /// Where the time that parts of the work take is written, if it is.
    pub fn profile(&self) -> Option<&Path> {
        let of = match &self.command {
            None => &self.train.profile,
            Some(Command::Generate(generate)) => &generate.profile,
            Some(Command::Evaluate(evaluate)) => &evaluate.profile,
            Some(_) => return None,
        };
        of.profile.as_deref()
    }

    pub fn run(self) -> Result<()> {
        match self.command {
            None => self.train.run(),
            Some(Command::Check(check)) => check.run(),
            Some(Command::List(list)) => list.run(),
            Some(Command::Plugin(plugin)) => plugin.run(),
            Some(Command::Generate(generate)) => generate.run(),
            Some(Command::Evaluate(evaluate)) => evaluate.run(),
            Some(Command::Runs(runs)) => runs.run(),
            Some(Command::Paper(paper)) => paper.run(),
            Some(Command::Import(import)) => import.run(),
            Some(Command::MakeData(make_data)) => make_data.run(),
            Some(Command::Completions(completions)) => completions.run(),
            Some(Command::Man(man)) => man.run(),
        }
    }

    /// Whether libtorch has work to do.
    pub fn computes(&self) -> bool {
        match &self.command {
            None => self.train.computes(),
            Some(
                Command::Check(_)
                | Command::List(_)
                | Command::Plugin(_)
                | Command::Runs(_)
                | Command::Paper(_)
                | Command::MakeData(_)
                | Command::Completions(_)
                | Command::Man(_),
            ) => false,
            Some(Command::Generate(_) | Command::Evaluate(_) | Command::Import(_)) => true,
        }
    }

    /// Whether standard output is what a plugin prints.
    pub fn is_trial(&self) -> bool {
        matches!(&self.command, Some(Command::Plugin(plugin)) if plugin.is_trial())
    }
}
