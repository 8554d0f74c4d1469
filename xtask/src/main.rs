//! `cargo xtask`: everything a clone needs beyond `cargo build`. Spawns tools; never links libtorch.

mod at_once;
mod bootstrap;
mod campaign;
mod commands;
mod contributing;
mod fuzz;
mod libtorch;
mod models;
mod paper;
mod peers;
mod plugins;
mod run;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, demo, tests and benchmarks of motrain")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch libtorch into the user's cache and point this clone at it
    Setup {
        /// Install the CUDA parts too (about 5 GB)
        #[arg(long)]
        cuda: bool,
    },
    /// Say what is wrong with this clone and the command that mends it
    Doctor,
    /// Train the embedded default and draw its front (5 minutes on 2 cores)
    Demo {
        /// Run folder
        #[arg(long, default_value = "runs/demo")]
        out: String,
    },
    /// Set up what is missing and run every test
    Test {
        /// Check format, lints, documentation and packages too, and fuzz for a moment, as .ci/run does
        #[arg(long)]
        ci: bool,
        /// Passed on to the test runner
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Look for inputs at which a reader of foreign files panics, hangs or floods the memory
    Fuzz {
        /// How long each target runs
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Only these targets
        targets: Vec<String>,
    },
    /// Measure decoding, training and a whole online step
    Bench {
        /// Beside TRL, transformers and llama.cpp, all sides in turn; writes docs/performance.md
        #[arg(long)]
        peers: bool,
        /// How often each side runs with --peers
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// A Python that has docs/peers/requirements.txt and llama_cpp.txt [default: an environment made in the cache, 5 GB]
        #[arg(long)]
        python: Option<PathBuf>,
        /// Passed on to the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Kill runs and damage files at random, and see that nothing is lost (docs/reliability.md)
    Campaign(campaign::Campaign),
    /// Remake the paper's figures and tables
    ReproducePaper {
        /// tiny (the embedded tasks), smollm2, or paper (your models and data, at the paths of configs/paper.toml)
        #[arg(long, default_value = "tiny", value_parser = ["tiny", "smollm2", "paper"])]
        scale: String,
        /// How often all is trained; three decide the claims
        #[arg(long, default_value_t = 1)]
        seeds: u64,
        /// Seeds that train side by side, sharing the cores; fewer threads round otherwise [default: at scale tiny up to twice the cores,
        /// else 1]
        #[arg(long, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
        jobs: Option<usize>,
        /// Only these: fig2 to fig7, table1, table2
        #[arg(long, value_delimiter = ',', value_parser = ["fig2", "fig3", "fig4", "fig5", "fig6", "fig7", "table1", "table2"])]
        only: Vec<String>,
        /// Run folder [default: runs/paper-SCALE]
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Build the first-party plugins into target/plugins/
    Plugins,
    /// Remake plugins/abi/include/motrain.h
    Codegen,
    /// Remake the embedded tokenizer, policies, reward models and prompts in assets/
    Bootstrap {
        /// Only this task: hh or tldr
        #[arg(long)]
        task: Option<String>,
    },
    /// Fetch a model as a Hugging Face folder: SmolLM2-135M-Instruct, or the encoder all-MiniLM-L6-v2
    FetchModel {
        /// The model's name
        #[arg(value_parser = models::NAMES)]
        name: String,
    },
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Setup { cuda } => libtorch::setup(cuda),
        Command::Doctor => commands::doctor(),
        Command::Demo { out } => commands::demo(&out),
        Command::Test { ci, args } => commands::test(ci, &args),
        Command::Fuzz { seconds, targets } => fuzz::run(seconds, &targets),
        Command::Bench { peers: true, rounds, python, .. } => peers::run(rounds, python),
        Command::Bench { args, .. } => commands::bench(&args),
        Command::Campaign(wanted) => campaign::run(&wanted),
        Command::ReproducePaper { scale, seeds, jobs, only, out } => paper::reproduce(&scale, seeds, jobs, &only, out),
        Command::Plugins => plugins::build().map(|_| ()),
        Command::Codegen => plugins::codegen(),
        Command::Bootstrap { task } => bootstrap::bootstrap(task.as_deref()),
        Command::FetchModel { name } => {
            let motrain = || libtorch::setup(false).and_then(|_| commands::release_binary());
            models::fetch(&name, motrain).map(|_| ())
        }
    }
}
