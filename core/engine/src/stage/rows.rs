//! Prompts and rows that stages read: which fit, in what order they come, and what a finished stage kept.

use crate::memory::Known;
use crate::names;
use crate::obey;
use crate::others::stage_refs;
use crate::session::{Cx, Session};
use crate::steer::Steering;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, decode};
use motrain_core::data::{self, DataOptions, Part, Place, Row};
use motrain_core::plan::Component;
use motrain_core::rng::{permutation, rng};
use motrain_core::sampler::WeightSampler;
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
            order = permutation(rows, stage.session.stages.seed(), "order", epoch);
            loaded = Some(epoch);
        }
        out.push(order[(i % rows as u64) as usize]);
    }
    out
}

/// Reads prompts, leaving out (and saying so) those longer than `max_prompt_tokens`, and refusing what cannot fit the context as a policy has
/// `seen` it.
pub fn load_prompts(
    options: &DataOptions,
    tokenizer: &Tokenizer,
    new_tokens: usize,
    context: i64,
    seen: &dyn Fn(&Prompt) -> Result<Prompt>,
) -> Result<Vec<Row>> {
    let (mut rows, mut long) = (Vec::new(), Vec::new());
    for row in data::prompts(&unlimited(options))? {
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
    Ok(limited(rows, options))
}

/// The rows that `load_prompts` keeps where no prompt is too long.
pub fn all_prompts(options: &DataOptions) -> Result<Vec<Row>> {
    Ok(limited(data::prompts(&unlimited(options))?, options))
}

/// A limit counts what is left of the rows once long prompts are out.
fn unlimited(options: &DataOptions) -> DataOptions {
    DataOptions { limit: if options.max_prompt_tokens.is_some() { None } else { options.limit }, ..options.clone() }
}

fn limited(rows: Vec<Row>, options: &DataOptions) -> Vec<Row> {
    match (options.limit, options.max_prompt_tokens) {
        (Some(limit), Some(_)) => spread(rows, limit),
        _ => rows,
    }
}

pub fn prompt_limit(options: &DataOptions) -> String {
    format!("whose prompts are longer than max_prompt_tokens = {}", options.max_prompt_tokens.unwrap_or(0))
}

/// Says how many rows were left out; fails where none is left.
pub fn say_left_out(options: &DataOptions, kept: usize, left_out: &[Place], why: &str) -> Result<()> {
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
fn usual_weights(objectives: usize) -> Vec<Weights> {
    Weights::grid(objectives, if objectives <= 4 { 10 } else { 1 })
}

/// How weights enter the prompts of a stage that has not begun, at those weights that take most room.
pub struct Told {
    steering: Steering,
    wide: Weights,
}

impl Told {
    /// What the error names is not known before earlier stages have run.
    pub fn of(
        known: &Known,
        rewards: &str,
        conditioner: &Component,
        sampler: Option<&Component>,
    ) -> std::result::Result<Self, String> {
        let not_known = |e: String| format!("what the conditioner \"{}\" writes into prompts: {e}", conditioner.name);
        if !stage_refs(&conditioner.options).is_empty() {
            return Err(not_known("an earlier stage decides it".into()));
        }
        let make = || -> Result<Self> {
            let objectives = known.others.objectives(rewards).unwrap_or_default();
            let count = objectives.len();
            let conditioner = known.registry.conditioners.build(&conditioner.name, &conditioner.options)?;
            let mut tried = usual_weights(count);
            if let Some(sampler) = sampler {
                let sampler = known.registry.samplers.build(&sampler.name, &sampler.options)?;
                tried.extend(drawn_weights(sampler.as_ref(), count, known.others.seed())?);
            }
            let steering = Steering { objectives, conditioner };
            let letters = |w: &Weights| {
                Ok(steering
                    .prompt(w, &Prompt::user("How long is this?"))?
                    .messages
                    .iter()
                    .map(|m| m.content.len())
                    .sum::<usize>())
            };
            let wide = longest_by(tried, letters)?;
            Ok(Self { steering, wide })
        };
        make().map_err(|e| not_known(e.to_string()))
    }

    /// x'.
    pub fn prompt(&self, prompt: &Prompt) -> Result<Prompt> {
        self.steering.prompt(&self.wide, prompt)
    }
}

/// Weights that a sampler draws.
fn drawn_weights(sampler: &dyn WeightSampler, objectives: usize, seed: u64) -> Result<Vec<Weights>> {
    let draw = |i| sampler.sample(objectives, i, &mut rng(seed, "weights", i));
    Ok((0..TRIED).map(draw).collect::<motrain_core::Result<_>>()?)
}

/// Draws of a sampler among which the weights that take most room are looked for.
const TRIED: u64 = 64;

/// Of the weights that a sampler draws, and of the usual ones, those that a prompt is longest with.
pub fn widest_drawn(
    steering: &Steering,
    sampler: &dyn WeightSampler,
    seed: u64,
    tokenizer: &Tokenizer,
) -> Result<Weights> {
    let objectives = steering.objectives.len();
    let mut tried = usual_weights(objectives);
    tried.extend(drawn_weights(sampler, objectives, seed)?);
    widest(steering, tried, tokenizer)
}

/// Those of some weights that a prompt is longest with.
pub fn widest(steering: &Steering, weights: Vec<Weights>, tokenizer: &Tokenizer) -> Result<Weights> {
    let prompt = Prompt::user("How long is this?");
    longest_by(weights, |weights| Ok(tokenizer.encode_prompt(&steering.prompt(weights, &prompt)?)?.len()))
}

fn longest_by(weights: Vec<Weights>, length: impl Fn(&Weights) -> Result<usize>) -> Result<Weights> {
    let mut widest = None;
    for weights in weights {
        let length = length(&weights)?;
        if widest.as_ref().is_none_or(|(most, _)| length > *most) {
            widest = Some((length, weights));
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
pub fn samples(session: &Session, id: &str) -> DataOptions {
    let path = session.stage_folder(id).join(names::SAMPLES).to_string_lossy().into_owned();
    DataOptions { paths: vec![path], part: Part::All, test_share: 0.0, limit: None, max_prompt_tokens: None }
}
