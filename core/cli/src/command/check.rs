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
        let stages = format!("{}: {} stages", plan.name, plan.stages.len());
        if !self.memory {
            plans::check_models(&plan)?;
            say!("{stages}, all well");
            return Ok(());
        }
        // What models take is known before they are fetched.
        let estimates = plan.memory(&registry)?;
        match plans::check_models(&plan) {
            Ok(()) => say!("{stages}, all well"),
            Err(e) => {
                tracing::warn!("{e:#}");
                say!("{stages}; there are warnings");
            }
        }
        say!("\n{}", report::memory::table(&estimates, plan.machine()?.gpu).trim_end());
        Ok(())
    }
}
