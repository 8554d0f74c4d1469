//! Demonstrations by selection: several completions of each plain prompt, and for each of some drawn weights the best of them by
//! weighted score, under the conditioned prompt. Fine-tuned on them, a policy reads weights before it is trained online.

use super::rows::{Told, load_prompts, plain, widest_drawn};
use super::scored::save_speed;
use super::{Makes, Ref, Work, rewards};
use crate::decode::rollout;
use crate::memory::{Drawing, Footprint, Known, longest_prompt};
use crate::names;
use crate::obey;
use crate::session::Cx;
use crate::steer::Steering;
use crate::{Error, Result};
use motrain_core::data::{DataOptions, Row};
use motrain_core::options::Options;
use motrain_core::plan::{Component, GenerationConfig, ModelRef, StageId};
use motrain_core::registry::Kind;
use motrain_core::{Prompt, Weights};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Instant;
use tch::no_grad;

/// Samples several completions of each plain prompt and keeps, for each of some drawn weights, the best by weighted score, as a
/// demonstration under the conditioned prompt: teaches a policy to read weights before it is trained online. In rounds, with `conditioned`
/// from the second on, it is DPA's training; along a `direction` the best is that of its product with the scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BestOfN {
    pub policy: ModelRef,
    pub prompts: DataOptions,
    /// The id of a `rewards` stage.
    pub rewards: StageId,
    pub sampler: Component,
    pub conditioner: Component,
    /// Completions a prompt.
    #[serde(default = "eight")]
    #[schemars(range(min = 2, max = 10_000))]
    pub completions: usize,
    /// Weight vectors a prompt.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 10_000))]
    pub weights: usize,
    /// Draw completions from the conditioned prompt, `completions` for each of the weights, instead of from the plain one: for a policy that
    /// follows weights already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub conditioned: bool,
    #[serde(default)]
    pub generate: GenerationConfig,
}

fn eight() -> usize {
    8
}

fn two() -> usize {
    2
}

impl Options for BestOfN {}

impl Work for BestOfN {
    const KIND: &'static str = "best_of_n";
    const REVISION: u32 = 1;
    const MAKES: &'static [Makes] = &[Makes::Samples];

    fn refs(&mut self) -> Vec<Ref<'_>> {
        vec![
            Ref::Model(&mut self.policy),
            Ref::Stage(Makes::Rewards, &mut self.rewards),
            Ref::Component(Kind::Sampler, &mut self.sampler),
            Ref::Component(Kind::Conditioner, &mut self.conditioner),
            Ref::Data(&mut self.prompts),
        ]
    }

    fn made_of_rewards(&self) -> Option<&'static str> {
        Some("the best of several answers by the reward models")
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        let (machine, policy) = (known.machine, known.model(&self.policy)?);
        let scorers = rewards::scorers(known, &self.rewards)?;
        let mut out = Footprint::default();
        let told = self.conditioned.then(|| Told::of(known, &self.rewards, &self.conditioner, Some(&self.sampler)));
        let told = told.and_then(|told| told.map_err(|what| out.uncounted.push(what)).ok());
        let seen = |prompt: &Prompt| told.as_ref().map_or_else(|| plain(prompt), |told| told.prompt(prompt));
        let longest = longest_prompt(&self.prompts, &policy, self.generate.max_new_tokens, &seen)?.longest;
        let prompts = (CHUNK * if self.conditioned { self.weights } else { 1 }) as f64;
        let drawing = Drawing { prompts, longest, completions: self.completions as f64, sampling: &self.generate };
        out.rows = Some((longest, self.generate.max_new_tokens as f64));
        out.sampling(&policy, &scorers, &drawing, machine);
        out.uncounted.extend(scorers.uncounted);
        Ok(out)
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }
}

/// Prompts whose completions are drawn at once.
const CHUNK: usize = 16;

/// A prompt whose completions are drawn, and the weights that the best of them is looked for at.
struct Asked<'a> {
    row: &'a Row,
    weights: Vec<Weights>,
}

/// The completion with the largest score along a direction, and its scores; of equal ones the first.
fn best<'a>(scores: &'a [Option<Vec<f64>>], direction: &[f64]) -> Option<(usize, &'a [f64])> {
    let along = |own: &[f64]| own.iter().zip(direction).map(|(s, d)| s * d).sum::<f64>();
    let scored = scores.iter().enumerate().filter_map(|(i, own)| Some((i, own.as_deref()?)));
    scored.reduce(|a, b| if along(b.1) > along(a.1) { b } else { a })
}

impl BestOfN {
    /// What is drawn for rows that begin at `first` of all, at the weights that `draw` gives.
    fn asked<'a>(
        &self,
        rows: &'a [Row],
        first: usize,
        draw: impl Fn(u64) -> motrain_core::Result<Weights>,
    ) -> Result<Vec<Asked<'a>>> {
        let mut asked = Vec::new();
        for (slot, row) in rows.iter().enumerate() {
            let indices = (0..self.weights).map(|w| ((first + slot) * self.weights + w) as u64);
            let weights = indices.map(&draw).collect::<motrain_core::Result<Vec<_>>>()?;
            match self.conditioned {
                true => asked.extend(weights.into_iter().map(|w| Asked { row, weights: vec![w] })),
                false => asked.push(Asked { row, weights }),
            }
        }
        Ok(asked)
    }
}

fn run(stage: Cx, options: &BestOfN) -> Result<()> {
    let session = stage.session;
    let sampler = session.registry.samplers.build(&options.sampler.name, &options.sampler.options)?;
    let set = rewards::load(session, &options.rewards)?;
    let steering = Steering { objectives: set.objectives(), conditioner: session.conditioner(&options.conditioner)? };
    let objectives = &steering.objectives;
    let (policy, tokenizer) = stage.load(&options.policy)?;
    let wide = || widest_drawn(&steering, sampler.as_ref(), session.stages.seed(), &tokenizer);
    let wide = options.conditioned.then(wide).transpose()?;
    let seen = |prompt: &Prompt| wide.as_ref().map_or_else(|| plain(prompt), |w| steering.prompt(w, prompt));
    let rows = load_prompts(
        &options.prompts,
        &tokenizer,
        options.generate.max_new_tokens,
        policy.config.shape.context,
        &seen,
    )?;
    set.check_rows(&options.prompts, &rows)?;
    let net = no_grad(|| policy.net(session.dtype))?;
    let bar = stage.progress(rows.len());
    let (mut lines, mut tokens, clock) = (String::new(), 0, Instant::now());
    for (c, chunk) in rows.chunks(CHUNK).enumerate() {
        let draw = |index: u64| sampler.sample(objectives.len(), index, &mut stage.rng("weights", index));
        let asked = options.asked(chunk, c * CHUNK, draw)?;
        let prompt = |asked: &Asked| match options.conditioned {
            true => tokenizer.encode_prompt(&steering.prompt(&asked.weights[0], &asked.row.prompt)?),
            false => tokenizer.encode_prompt(&asked.row.prompt),
        };
        let prompts = asked.iter().map(prompt).collect::<Result<Vec<_>>>()?;
        let first = c * CHUNK * asked.len() / chunk.len();
        let seed = |slot: usize, i: usize| stage.seed("sample", ((first + slot) * options.completions + i) as u64);
        let drawn = rollout(&net, &tokenizer, &prompts, options.completions, seed, &options.generate)?;
        tokens += drawn.tokens();
        let rows: Vec<&Row> = asked.iter().map(|asked| asked.row).collect();
        let scores = set.score(&rows, &drawn)?.objectives;
        for (slot, Asked { row, weights }) in asked.iter().enumerate() {
            let (answers, scores) = (drawn.of(slot), &scores[drawn.span(slot)]);
            for weights in weights {
                let direction = steering.conditioner.direction(objectives, weights)?;
                let Some((best, own)) = best(scores, &direction) else { continue };
                let line = json!({
                    "prompt": steering.prompt(weights, &row.prompt)?,
                    "completion": answers[best].text,
                    "finished": answers[best].finished,
                    "weights": weights,
                    "scores": own,
                });
                lines += &format!("{line}\n");
            }
        }
        bar.inc(chunk.len() as u64);
        obey()?;
    }
    bar.finish();
    save_speed(stage, tokens, clock)?;
    let path = stage.folder().join(names::SAMPLES);
    std::fs::write(&path, lines).map_err(|e| Error::io(&path, e))
}
