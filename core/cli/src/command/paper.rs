//! `motrain paper`.

use anyhow::Result;
use std::path::PathBuf;

/// Draw the paper's figures and tables from finished runs of paper.rhai, one run folder a seed
#[derive(clap::Args)]
pub struct Paper {
    folder: PathBuf,
}

impl Paper {
    pub fn run(&self) -> Result<()> {
        crate::paper::run(&self.folder)
    }
}
