//! `motrain completions`.

use super::Args;
use crate::out::say;
use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

/// Print what a shell needs to complete motrain's command line
#[derive(clap::Args)]
pub struct Completions {
    shell: Shell,
}

impl Completions {
    pub fn run(&self) -> Result<()> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Args::command(), "motrain", &mut text);
        say!("{}", String::from_utf8(text)?.trim_end());
        Ok(())
    }
}
