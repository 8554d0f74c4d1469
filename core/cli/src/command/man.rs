//! `motrain man`.

use super::Args;
use crate::out::say;
use anyhow::{Context, Result};
use clap::CommandFactory;
use std::path::PathBuf;

/// Write the manual pages of motrain and its commands into a folder
#[derive(clap::Args)]
pub struct Man {
    folder: PathBuf,
}

impl Man {
    pub fn run(&self) -> Result<()> {
        let shown = self.folder.display();
        std::fs::create_dir_all(&self.folder).with_context(|| shown.to_string())?;
        clap_mangen::generate_to(Args::command(), &self.folder).with_context(|| shown.to_string())?;
        say!("{shown}");
        Ok(())
    }
}
