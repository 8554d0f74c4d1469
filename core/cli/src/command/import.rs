//! `motrain import`.

use crate::out::say;
use anyhow::Result;
use motrain_engine::import::import;
use std::path::PathBuf;

/// Turn a GGUF file into a Hugging Face folder
#[derive(clap::Args)]
pub struct Import {
    file: PathBuf,
    folder: PathBuf,
}

impl Import {
    pub fn run(&self) -> Result<()> {
        import(&self.file, &self.folder)?;
        say!("{}", self.folder.display());
        Ok(())
    }
}
