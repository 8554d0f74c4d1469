//! The stages' work. One algorithm a file, its whole loop readable top-down.

pub mod best_of_n;
pub mod compare;
pub mod evaluate;
pub mod experience;
pub mod init_model;
pub mod online_preference;
pub mod reinforce;
pub mod reward_model;
pub mod rewards;
pub mod ric_data;
pub mod sft;
pub mod soup;
mod step_report;

use crate::session::{Session, Stage};
use crate::text::Text;
use crate::{Result, rollout};
use motrain_core::data::{self, DataSpec, Part, Row};
use motrain_core::rng::permutation;

/// Rows of one batch: whole epochs in shuffled order, so that a step's rows depend on the seed and the step only.
pub fn batch_rows(stage: Stage, rows: usize, batch: usize, step: usize) -> Vec<usize> {
    let first = (step * batch) as u64;
    let mut out = Vec::with_capacity(batch);
    let mut order = Vec::new();
    let mut loaded = None;
    for i in first..first + batch as u64 {
        let epoch = i / rows as u64;
        if loaded != Some(epoch) {
            let purpose = format!("{}/order", stage.id);
            order = permutation(rows, stage.session.plan.seed, &purpose, epoch);
            loaded = Some(epoch);
        }
        out.push(order[(i % rows as u64) as usize]);
    }
    out
}

/// Reads prompts, leaving out (and saying so) those longer than `max_prompt_tokens`, and refusing what cannot fit the context.
pub fn load_prompts(spec: &DataSpec, text: &Text, new_tokens: usize, context: i64) -> Result<Vec<Row>> {
    let unlimited =
        DataSpec { limit: if spec.max_prompt_tokens.is_some() { None } else { spec.limit }, ..spec.clone() };
    let mut rows = Vec::new();
    let (mut long, mut read) = (0usize, 0usize);
    for row in data::prompts(&unlimited)? {
        read += 1;
        let tokens = text.encode_prompt(&row.prompt)?.len();
        if spec.max_prompt_tokens.is_some_and(|max| tokens > max) {
            long += 1;
            continue;
        }
        rollout::fits_context(tokens, new_tokens, context)
            .map_err(|e| crate::Error::invalid(format!("{}:{}: {e}", spec.paths[row.file], row.line)))?;
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(crate::Error::invalid(format!(
            "all {read} prompts of {} are longer than max_prompt_tokens = {}",
            spec.paths.join(", "),
            spec.max_prompt_tokens.unwrap_or(0)
        )));
    }
    if long > 0 {
        tracing::info!("left out {long} of {read} prompts longer than {} tokens", spec.max_prompt_tokens.unwrap_or(0));
    }
    if let (Some(limit), Some(_)) = (spec.limit, spec.max_prompt_tokens) {
        rows = spread(rows, limit);
    }
    Ok(rows)
}

/// Keeps `limit` rows, evenly spread over the files.
fn spread(rows: Vec<Row>, limit: usize) -> Vec<Row> {
    let total = rows.len();
    if total <= limit {
        return rows;
    }
    let keep = |i: usize| (i + 1) * limit / total > i * limit / total;
    rows.into_iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, row)| row).collect()
}

/// Demonstrations that a sampling stage keeps, in its folder.
pub const SAMPLES: &str = "samples.jsonl";

/// Tokens and seconds of a stage that only samples, in its folder; like timings.jsonl, not repeatable.
pub const SPEED: &str = "speed.json";

/// What a finished sampling stage kept, as data.
pub fn samples(session: &Session, id: &str) -> DataSpec {
    let path = session.stage_folder(id).join(SAMPLES).to_string_lossy().into_owned();
    DataSpec { paths: vec![path], part: Part::All, test_share: 0.0, limit: None, max_prompt_tokens: None }
}

/// Plain text of a number for progress messages.
pub fn short(value: f64) -> String {
    format!("{value:.3}")
}
