//! Demonstrations by selection: several completions of each plain prompt, and for each of some drawn weights the best of them by
//! weighted score, under the conditioned prompt. Fine-tuned on them, a policy reads weights before it is trained online.

use super::rows::{load_prompts, plain};
use super::{Makes, Ref, Work, rewards};
use crate::decode::rollout;
use crate::memory::{Drawing, Footprint, Known, longest_prompt};
use crate::names;
use crate::plan::{Component, GenerationConfig, ModelRef, StageId};
use crate::session::{Cx, obey};
use crate::{Error, Result};
use motrain_core::data::{DataSpec, Row};
use motrain_core::options::Options;
use motrain_core::registry::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tch::no_grad;

/// Samples several completions of each plain prompt and keeps, for each of some drawn weights, the best by weighted score, as a
/// demonstration under the conditioned prompt: teaches a policy to read weights (as DPA and RiC do) before it is trained online.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BestOfN {
    pub policy: ModelRef,
    pub prompts: DataSpec,
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

    fn refs(&mut self) -> Vec<Ref<'_>> {
        vec![
            Ref::Model(&mut self.policy),
            Ref::Stage(Makes::Rewards, &mut self.rewards),
            Ref::Component(Kind::Sampler, &mut self.sampler),
            Ref::Component(Kind::Conditioner, &mut self.conditioner),
            Ref::Data(&mut self.prompts),
        ]
    }

    fn makes(&self) -> &'static [Makes] {
        &[Makes::Samples]
    }

    fn footprint(&self, known: &Known) -> Result<Footprint> {
        let (machine, policy) = (known.machine, known.model(&self.policy)?);
        let scorers = rewards::scorers(known, &self.rewards)?;
        let longest = longest_prompt(&self.prompts, &policy, self.generate.max_new_tokens, &plain)?.longest;
        let drawing =
            Drawing { prompts: CHUNK as f64, longest, completions: self.completions as f64, sampling: &self.generate };
        let mut out = Footprint { rows: Some((longest, self.generate.max_new_tokens as f64)), ..Footprint::default() };
        out.sampling(&policy, &scorers, &drawing, machine);
        out.uncounted = scorers.uncounted;
        Ok(out)
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }
}

/// Prompts whose completions are drawn at once.
const CHUNK: usize = 16;

fn run(stage: Cx, options: &BestOfN) -> Result<()> {
    let session = stage.session;
    let sampler = session.registry.samplers.build(&options.sampler.name, &options.sampler.options)?;
    let conditioner = session.conditioner(&options.conditioner)?;
    let set = rewards::load(session, &options.rewards)?;
    let objectives = set.objectives();
    let (policy, text) = stage.load(&options.policy)?;
    let rows =
        load_prompts(&options.prompts, &text, options.generate.max_new_tokens, policy.config.shape.context, &plain)?;
    set.check_rows(&options.prompts, &rows)?;
    let net = no_grad(|| policy.net(session.dtype))?;
    let bar = stage.progress(rows.len());
    let mut lines = String::new();
    for (c, chunk) in rows.chunks(CHUNK).enumerate() {
        let prompts = chunk.iter().map(|r| text.encode_prompt(&r.prompt)).collect::<Result<Vec<_>>>()?;
        let seed = |slot: usize, i: usize| stage.seed("sample", ((c * CHUNK + slot) * options.completions + i) as u64);
        let drawn = rollout(&net, &text, &prompts, options.completions, seed, &options.generate)?;
        let rows: Vec<&Row> = chunk.iter().collect();
        let scores = set.score(&rows, &drawn)?.objectives;
        for (slot, row) in chunk.iter().enumerate() {
            let (answers, scores) = (drawn.of(slot), &scores[drawn.span(slot)]);
            let scored: Vec<usize> = (0..answers.len()).filter(|&i| scores[i].is_some()).collect();
            let own: Vec<Vec<f64>> = scores.iter().flatten().cloned().collect();
            if own.is_empty() {
                continue;
            }
            for w in 0..options.weights {
                let index = ((c * CHUNK + slot) * options.weights + w) as u64;
                let weights = sampler.sample(objectives.len(), index, &mut stage.rng("weights", index))?;
                let better = |a: usize, b: usize| if weights.dot(&own[b]) > weights.dot(&own[a]) { b } else { a };
                let best = (1..own.len()).fold(0, better);
                let chosen = &answers[scored[best]];
                let line = json!({
                    "prompt": conditioner.render(&objectives, &weights, &row.prompt)?,
                    "completion": chosen.text,
                    "finished": chosen.finished,
                    "weights": weights,
                    "scores": own[best],
                });
                lines += &format!("{line}\n");
            }
        }
        bar.inc(chunk.len() as u64);
        obey()?;
    }
    bar.finish();
    let path = stage.folder().join(names::SAMPLES);
    std::fs::create_dir_all(stage.folder()).map_err(|e| Error::io(&path, e))?;
    std::fs::write(&path, lines).map_err(|e| Error::io(&path, e))
}
