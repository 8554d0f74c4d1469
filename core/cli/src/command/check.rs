//! `motrain check`.

use crate::config::ConfigArgs;
use crate::out::say;
use crate::plans;
use anyhow::Result;
use std::path::PathBuf;

/// Check a script and its plan without loading models
#[derive(clap::Args)]
pub struct Check {
    script: PathBuf,
    #[command(flatten)]
    config: ConfigArgs,
}

impl Check {
    pub fn run(&self) -> Result<()> {
        let (plan, _) = plans::make(&self.script, &self.config)?;
        plans::check_inputs(&plan)?;
        say!("{}: {} stages, all well", plan.name, plan.stages.len());
        Ok(())
    }
}
