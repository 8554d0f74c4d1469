//! `motrain make-data`: what the embedded policies and reward models are made from.

use crate::out::say;
use anyhow::{Context, Result};
use motrain_core::conditioner::Conditioner;
use motrain_core::registry::Registry;
use motrain_core::{Prompt, Weights};
use motrain_tasks::TASKS;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Write an embedded task's prompts, demonstrations and preference pairs
#[derive(clap::Args)]
pub struct MakeData {
    #[arg(value_parser = ["hh", "tldr"])]
    task: String,
    folder: PathBuf,
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl MakeData {
    pub fn run(&self) -> Result<()> {
        let task = TASKS.iter().find(|t| t.name == self.task).context("unknown task")?;
        std::fs::create_dir_all(&self.folder)?;
        self.write("prompts.jsonl", &task.prompt_rows(1000, self.seed))?;
        let conditioner = Registry::builtin().conditioners.build("weight_prefix", &Value::Null)?;
        let prefix = |names: &[&str], weight: f64, prompt: &str| prefix(conditioner.as_ref(), names, weight, prompt);
        self.write("sft.jsonl", &task.sft_rows(16_000, self.seed, prefix))?;
        // So that the tokenizer knows the objectives' names as words.
        let named: Vec<Value> = (0..500).map(|_| json!({ "text": prefix(&task.objectives, 0.5, "") })).collect();
        self.write("names.jsonl", &named)?;
        for (objective, rows) in task.pair_rows(10_000, self.seed) {
            self.write(&format!("pairs_{objective}.jsonl"), &rows)?;
        }
        say!("{}", self.folder.display());
        Ok(())
    }

    fn write(&self, name: &str, rows: &[Value]) -> Result<()> {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        Ok(std::fs::write(self.folder.join(name), text)?)
    }
}

/// A prompt under two weights.
fn prefix(conditioner: &dyn Conditioner, names: &[&str], weight: f64, prompt: &str) -> String {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let weights = Weights::quantised(&[weight, 1.0 - weight], 10);
    let rendered = weights.and_then(|w| conditioner.render(&names, &w, &Prompt::user(prompt)));
    rendered.map(|p| p.last_user().to_owned()).unwrap_or_default()
}
