//! `motrain make-data`: what the embedded policies and reward models are made from.

use crate::out::say;
use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use motrain_core::conditioner::Conditioner;
use motrain_core::data::Part;
use motrain_core::registry::Registry;
use motrain_core::{Prompt, Weights};
use motrain_tasks::{Style, TASKS, TEST_SHARE};
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

/// Write an embedded task's prompts, demonstrations, rated answers and contrasts
#[derive(clap::Args)]
pub struct MakeData {
    #[arg(value_parser = ["hh", "tldr"])]
    task: String,
    folder: PathBuf,
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// The conditioners whose formats demonstrations teach, so that no method's policy begins with another reading than the others': each
/// with its options, and what stands for an objective's name where the format has no names.
fn formats() -> [(&'static str, Value, Option<[&'static str; 2]>); 5] {
    let scores = json!({ "mean": [0, 0], "std": [1, 1], "low": [-2, -2], "high": [2, 2] });
    [
        ("weight_prefix", Value::Null, None),
        ("levels", Value::Null, None),
        ("attributes", Value::Null, None),
        ("direction", Value::Null, None),
        ("rewards_in_context", json!({ "statistics": scores }), Some(["rm1", "rm2"])),
    ]
}

impl MakeData {
    pub fn run(&self) -> Result<()> {
        let task = TASKS.iter().find(|t| t.name == self.task).context("unknown task")?;
        std::fs::create_dir_all(&self.folder)?;
        let prompts = task.prompt_rows(1000, self.seed);
        self.write("prompts.jsonl", &prompts)?;
        self.write("validation.jsonl", &task.validation_rows(100, self.seed, &prompts, kept))?;
        let answered = prompts.iter().filter_map(|row| row["prompt"].as_str()).filter(|prompt| kept(prompt));
        let answered = answered.map(|prompt| json!({ "prompt": prompt, "answers": (task.answers)(prompt) }));
        let mut answers = GzEncoder::new(File::create(self.folder.join("answers.jsonl.gz"))?, Compression::best());
        answers.write_all(lines(&answered.collect::<Vec<_>>()).as_bytes())?;
        answers.finish()?;
        let registry = Registry::builtin();
        let build = |(name, options, marks): (&str, Value, Option<[&'static str; 2]>)| {
            Ok((registry.conditioners.build(name, &options)?, marks))
        };
        let formats = formats().into_iter().map(build).collect::<Result<Vec<_>>>()?;
        let styles: Vec<_> = formats
            .iter()
            .map(|(format, marks)| {
                move |names: [&str; 2], weight: f64, prompt: &str| asked(format.as_ref(), *marks, names, weight, prompt)
            })
            .collect();
        let styles: Vec<Style> = styles.iter().map(|style| style as Style).collect();
        self.write("sft.jsonl", &task.sft_rows(24_000, self.seed, &styles, kept))?;
        self.write("undirected.jsonl", &task.undirected_rows(12_000, self.seed, &styles, kept))?;
        self.write("echo.jsonl", &task.echo_rows(16_000, self.seed))?;
        // So that the tokenizer knows the objectives' names, and the marks of formats, as words.
        let named = |_| formats.iter().map(|(format, _)| asked(format.as_ref(), None, task.objectives, 0.5, ""));
        let named: Vec<Value> = (0..100).flat_map(named).map(|text| json!({ "text": text })).collect();
        self.write("names.jsonl", &named)?;
        self.write("reader.jsonl", &task.reader_rows(120_000, self.seed))?;
        self.write("rated.jsonl", &task.rated_rows(90_000, self.seed))?;
        self.write("contrasts.jsonl", &task.contrast_rows(100, self.seed, kept))?;
        say!("{}", self.folder.display());
        Ok(())
    }

    fn write(&self, name: &str, rows: &[Value]) -> Result<()> {
        Ok(std::fs::write(self.folder.join(name), lines(rows))?)
    }
}

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

/// Whether evaluations alone may have the prompt.
fn kept(prompt: &str) -> bool {
    Part::Test.holds(&Prompt::user(prompt), TEST_SHARE)
}

/// A prompt under two weights, as a dialogue.
fn asked(format: &dyn Conditioner, marks: Option<[&str; 2]>, names: [&str; 2], weight: f64, prompt: &str) -> Value {
    let weights = Weights::quantised(&[weight, 1.0 - weight], 10);
    let rendered = weights.and_then(|w| format.render(&names.map(str::to_owned), &w, &Prompt::user(prompt)));
    let text = rendered.map(|p| p.to_dialogue()).unwrap_or_default();
    let named = marks.iter().flatten().zip(names);
    json!(named.fold(text, |text, (mark, name)| text.replace(mark, &name.to_lowercase())))
}
