//! Prompts and rows that stages read: which fit, in what order they come, and what a finished stage kept.

use crate::names;
use crate::session::{Cx, Session, obey};
use crate::steer::Steering;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, decode};
use motrain_core::data::{self, DataSpec, Part, Place, Row};
use motrain_core::rng::permutation;
use motrain_core::{Prompt, Weights};

/// Rows of one batch: whole epochs in shuffled order, so that a step's rows depend on the seed and the step only, not on the method.
pub fn batch_rows(stage: Cx, rows: usize, batch: usize, step: usize) -> Vec<usize> {
    let first = (step * batch) as u64;
    let mut out = Vec::with_capacity(batch);
    let mut order = Vec::new();
    let mut loaded = None;
    for i in first..first + batch as u64 {
        let epoch = i / rows as u64;
        if loaded != Some(epoch) {
            order = permutation(rows, stage.session.plan.seed, "order", epoch);
            loaded = Some(epoch);
        }
        out.push(order[(i % rows as u64) as usize]);
    }
    out
}

/// Reads prompts, leaving out (and saying so) those longer than `max_prompt_tokens`, and refusing what cannot fit the context as a policy has
/// `seen` it.
pub fn load_prompts(
    options: &DataSpec,
    tokenizer: &Tokenizer,
    new_tokens: usize,
    context: i64,
    seen: &dyn Fn(&Prompt) -> Result<Prompt>,
) -> Result<Vec<Row>> {
    let unlimited =
        DataSpec { limit: if options.max_prompt_tokens.is_some() { None } else { options.limit }, ..options.clone() };
    let (mut rows, mut long) = (Vec::new(), Vec::new());
    for row in data::prompts(&unlimited)? {
        obey()?;
        let at = |e: Error| e.at(row.place.of(options));
        let tokens = tokenizer.encode_prompt(&row.prompt).map_err(at)?.len();
        if options.max_prompt_tokens.is_some_and(|max| tokens > max) {
            long.push(row.place);
            continue;
        }
        let whole = tokenizer.encode_prompt(&seen(&row.prompt).map_err(at)?).map_err(at)?.len();
        let written = if whole == tokens { "" } else { "with what the conditioner writes into it, " };
        let fits = decode::fits_context(whole, new_tokens, context);
        fits.map_err(|e| at(Error::invalid(format!("{written}{e}"))))?;
        rows.push(row);
    }
    say_left_out(options, rows.len(), &long, &prompt_limit(options))?;
    if let (Some(limit), Some(_)) = (options.limit, options.max_prompt_tokens) {
        rows = spread(rows, limit);
    }
    Ok(rows)
}

pub fn prompt_limit(options: &DataSpec) -> String {
    format!("whose prompts are longer than max_prompt_tokens = {}", options.max_prompt_tokens.unwrap_or(0))
}

/// Says how many rows were left out; fails where none is left.
pub fn say_left_out(options: &DataSpec, kept: usize, left_out: &[Place], why: &str) -> Result<()> {
    let Some(first) = left_out.first() else { return Ok(()) };
    let (count, first) = (left_out.len(), first.of(options));
    if kept == 0 {
        return Err(Error::invalid(format!(
            "no row is left: all {count} are rows {why} (the first is {first}); shorten them, or raise the limit"
        )));
    }
    tracing::warn!("left out {count} of {} rows {why} (the first is {first})", kept + count);
    Ok(())
}

/// For prompts that nothing is written into.
pub fn plain(prompt: &Prompt) -> Result<Prompt> {
    Ok(prompt.clone())
}

/// The paper's grid; for many objectives, whose grid is vast, the corners.
pub fn usual_weights(objectives: usize) -> Vec<Weights> {
    Weights::grid(objectives, if objectives <= 4 { 10 } else { 1 })
}

/// Those of some weights that a prompt is longest with.
pub fn widest(steering: &Steering, weights: Vec<Weights>, tokenizer: &Tokenizer) -> Result<Weights> {
    let prompt = Prompt::user("How long is this?");
    let mut widest = None;
    for weights in weights {
        let tokens = tokenizer.encode_prompt(&steering.prompt(&weights, &prompt)?)?.len();
        if widest.as_ref().is_none_or(|(most, _)| tokens > *most) {
            widest = Some((tokens, weights));
        }
    }
    widest.map(|(_, weights)| weights).ok_or_else(|| Error::invalid("there are no weights to write into prompts"))
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

/// What a finished sampling stage kept, as data.
pub fn samples(session: &Session, id: &str) -> DataSpec {
    let path = session.stage_folder(id).join(names::SAMPLES).to_string_lossy().into_owned();
    DataSpec { paths: vec![path], part: Part::All, test_share: 0.0, limit: None, max_prompt_tokens: None }
}
