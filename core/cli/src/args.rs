//! The command line.

use clap::{Args as ClapArgs, Parser, Subcommand};
use std::path::PathBuf;

/// Train one language model that follows objective weights given at inference.
#[derive(Parser)]
#[command(name = "motrain", version, about, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
}

#[derive(ClapArgs)]
pub struct RunArgs {
    /// The experiment's script, looked up in the working directory, then in scripts/
    #[arg(long, required_unless_present = "resume")]
    pub script: Option<PathBuf>,
    #[command(flatten)]
    pub config: ConfigArgs,
    /// The run folder [default: runs/ and the script's name]
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Go on with an interrupted run
    #[arg(long, conflicts_with_all = ["script", "out"])]
    pub resume: Option<PathBuf>,
    /// Check everything and say what would run, without running it
    #[arg(long)]
    pub dry_run: bool,
    /// Print the plan as JSON and stop
    #[arg(long)]
    pub print_plan: bool,
}

#[derive(ClapArgs)]
pub struct ConfigArgs {
    /// A TOML file over the defaults; may be given several times
    #[arg(long)]
    pub config: Vec<PathBuf>,
    /// One value over everything else: tasks.hh.train.epochs=2
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// A plugin, or a folder of plugins, to load; may be given several times
    #[arg(long, value_name = "LIBRARY")]
    pub plugin: Vec<PathBuf>,
}

#[derive(Subcommand)]
pub enum Command {
    /// Check a script and its plan without loading models
    Check {
        script: PathBuf,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List components and stages with their options
    List {
        /// sampler, conditioner, reward, label, loss, judge or stage
        #[arg(value_parser = ["sampler", "conditioner", "reward", "label", "loss", "judge", "stage"])]
        kind: Option<String>,
        /// With the components that this script brings
        #[arg(long)]
        script: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Look into plugins
    Plugin {
        #[command(subcommand)]
        command: PluginCommand,
    },
    /// Answer a prompt with a policy, at given weights
    Generate {
        /// A model folder, or a run folder with policy/ in it
        policy: PathBuf,
        #[arg(long)]
        prompt: String,
        /// One weight per objective, for example 0.8,0.2; without them the prompt goes in as it is
        #[arg(long, value_delimiter = ',')]
        weights: Vec<f64>,
        /// Number of answers
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        n: u64,
        /// [default: of the policy's generation_config.json, else 128]
        #[arg(long)]
        max_new_tokens: Option<usize>,
        /// [default: of the policy's generation_config.json, else 1]
        #[arg(long)]
        temperature: Option<f64>,
        /// [default: of the policy's generation_config.json, else 0, all]
        #[arg(long)]
        top_k: Option<usize>,
        /// [default: of the policy's generation_config.json, else 1, all]
        #[arg(long)]
        top_p: Option<f64>,
        #[arg(long, default_value_t = 0)]
        seed: u64,
        #[arg(long, default_value = "cpu")]
        device: String,
        #[command(flatten)]
        plugins: ConfigArgs,
    },
    /// Evaluate a policy over a weight grid with a run's rewards
    Evaluate {
        /// The run folder whose rewards, scales and prompts are used
        run: PathBuf,
        /// The policy [default: the run's own]
        #[arg(long)]
        policy: Option<PathBuf>,
        /// Prompts instead of the run's
        #[arg(long)]
        prompts: Option<PathBuf>,
        #[arg(long)]
        limit: Option<usize>,
        /// Distance between neighbouring weights
        #[arg(long)]
        step: Option<f64>,
        /// The method's name in the table
        #[arg(long, default_value = "policy")]
        name: String,
        /// Where front.json and the report go
        #[arg(long)]
        out: PathBuf,
        #[command(flatten)]
        plugins: ConfigArgs,
    },
    /// See what a run folder keeps, and remove what you name
    Runs {
        #[command(subcommand)]
        command: RunsCommand,
    },
    /// Draw the paper's figures and tables from finished runs of paper.rhai, one run folder a seed
    Paper { folder: PathBuf },
    /// Turn a GGUF file into a Hugging Face folder
    Import { file: PathBuf, folder: PathBuf },
    /// Write an embedded task's prompts, demonstrations and preference pairs
    MakeData {
        #[arg(value_parser = ["hh", "tldr"])]
        task: String,
        folder: PathBuf,
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Print what a shell needs to complete motrain's command line
    Completions { shell: clap_complete::Shell },
    /// Write the manual pages of motrain and its commands into a folder
    Man { folder: PathBuf },
    /// Measure decoding, training and a whole online step
    #[command(hide = true)]
    Bench {
        model: PathBuf,
        #[arg(long, default_value = "auto")]
        dtype: String,
    },
    /// Measure components across the plugin interface
    #[command(hide = true)]
    BenchPlugins { loss: PathBuf, reward: PathBuf },
}

#[derive(Subcommand)]
pub enum PluginCommand {
    /// Try every component of a plugin with ordinary and hostile input, in a process of its own
    Check {
        library: PathBuf,
        /// Only this component
        #[arg(long)]
        component: Option<String>,
        /// Its options, as JSON
        #[arg(long, default_value = "{}")]
        options: String,
        /// Seconds that one trial may take
        #[arg(long, default_value_t = 60.0)]
        seconds: f64,
    },
    /// The process that `check` tries a component in, or lists them
    #[command(hide = true)]
    Trial {
        library: PathBuf,
        /// What happened, as JSON lines
        #[arg(long)]
        report: PathBuf,
        #[arg(long)]
        component: Option<String>,
        #[arg(long, default_value = "{}")]
        options: String,
    },
}

#[derive(Subcommand)]
pub enum RunsCommand {
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
