//! `motrain check`.

use crate::config::ConfigArgs;
use crate::out::say;
use crate::{plans, report};
use anyhow::Result;
use std::path::PathBuf;

/// Check a script and its plan without loading models
#[derive(clap::Args)]
pub struct Check {
    script: PathBuf,
    /// Estimate the memory that each stage takes at its fullest, from config.json files and options alone
    #[arg(long)]
    memory: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

impl Check {
    pub fn run(&self) -> Result<()> {
        let (plan, registry) = plans::make(&self.script, &self.config)?;
        plans::check_inputs(&plan)?;
        say!("{}: {} stages, all well", plan.name, plan.stages.len());
        if self.memory {
            let estimates = plan.memory(&registry)?;
            say!("\n{}", report::memory::table(&estimates, plan.machine()?.gpu).trim_end());
        }
        Ok(())
    }
}
