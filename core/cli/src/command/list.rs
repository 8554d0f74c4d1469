//! `motrain list`: components and stages with their options, from their schemas.

use crate::components::{self, Plugins};
use crate::config::{self, ConfigArgs};
use crate::out::say;
use crate::plans;
use anyhow::Result;
use clap::builder::PossibleValuesParser;
use motrain_core::options::describe;
use motrain_core::registry::{Kind, Registry};
use motrain_engine::stage::STAGES;
use serde_json::Value;
use std::path::PathBuf;

/// List components and stages with their options
#[derive(clap::Args)]
pub struct List {
    /// A kind of component, or "stage"
    #[arg(value_parser = kinds())]
    kind: Option<String>,
    /// With the components that this script brings
    #[arg(long)]
    script: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

impl List {
    pub fn run(&self) -> Result<()> {
        let registry = match &self.script {
            Some(script) => plans::make(script, &self.config)?.1,
            None => configured(&self.config)?,
        };
        for kind in Kind::ALL.into_iter().filter(|kind| self.wants(kind.name())) {
            say!("{}", kind.name());
            registry.list(kind).into_iter().for_each(|(name, summary, schema)| say_entry(name, summary, schema));
        }
        if self.wants("stage") {
            say!("stage");
            for kind in STAGES {
                let schema = (kind.schema)();
                let summary = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
                say_entry(kind.name, &summary, &schema);
            }
        }
        Ok(())
    }

    fn wants(&self, name: &str) -> bool {
        self.kind.as_deref().is_none_or(|kind| kind == name)
    }
}

fn kinds() -> PossibleValuesParser {
    Kind::ALL.map(Kind::name).into_iter().chain(["stage"]).collect::<Vec<_>>().into()
}

/// The components of the configuration and the command line.
fn configured(args: &ConfigArgs) -> Result<Registry> {
    let config = config::load(args)?;
    components::from_config(&config, &Plugins::read(&config, args)?)
}

fn say_entry(name: &str, summary: &str, schema: &Value) {
    say!("  {name:<14} {summary}");
    describe(schema).iter().for_each(|line| say!("      {line}"));
}
