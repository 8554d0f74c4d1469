//! Preference pairs of a policy's own answers, labelled by rewards: what offline methods train on where nobody has compared answers.

use super::labelled::{Counts, choose};
use super::rows::{load_prompts, plain};
use super::scored::save_speed;
use super::{Makes, Ref, Work, rewards};
use crate::decode::rollout;
use crate::memory::{Drawing, Footprint, Known, longest_prompt};
use crate::names;
use crate::obey;
use crate::session::Cx;
use crate::{Error, Result};
use motrain_core::data::{DataOptions, Row};
use motrain_core::options::Options;
use motrain_core::plan::{Component, GenerationConfig, ModelRef, StageId};
use motrain_core::registry::Kind;
use rand::Rng as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Instant;
use tch::no_grad;

/// Preference pairs made from rewards: several completions of each plain prompt, and of them the pair that the label rule is surest of at the
/// sampler's weights. With all weight on one objective they are that objective's pairs, as MODPO wants them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PreferenceData {
    pub policy: ModelRef,
    pub prompts: DataOptions,
    /// The id of a `rewards` stage.
    pub rewards: StageId,
    pub sampler: Component,
    pub label: Component,
    /// Completions a prompt.
    #[serde(default = "two")]
    #[schemars(range(min = 2, max = 10_000))]
    pub completions: usize,
    #[serde(default)]
    pub generate: GenerationConfig,
}

fn two() -> usize {
    2
}

impl Options for PreferenceData {}

impl Work for PreferenceData {
    const KIND: &'static str = "preference_data";
    const REVISION: u32 = 1;
    const MAKES: &'static [Makes] = &[Makes::Pairs];

    fn refs(&mut self) -> Vec<Ref<'_>> {
        vec![
            Ref::Model(&mut self.policy),
            Ref::Stage(Makes::Rewards, &mut self.rewards),
            Ref::Component(Kind::Sampler, &mut self.sampler),
            Ref::Component(Kind::Label, &mut self.label),
            Ref::Data(&mut self.prompts),
        ]
    }

    fn made_of_rewards(&self) -> Option<&'static str> {
        Some("pairs labelled by the reward models")
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
const CHUNK: usize = 32;

fn run(stage: Cx, options: &PreferenceData) -> Result<()> {
    let session = stage.session;
    let sampler = session.registry.samplers.build(&options.sampler.name, &options.sampler.options)?;
    let rule = session.registry.labels.build(&options.label.name, &options.label.options)?;
    let set = rewards::load(session, &options.rewards)?;
    let objectives = set.objectives().len();
    let (policy, tokenizer) = stage.load(&options.policy)?;
    let rows = load_prompts(
        &options.prompts,
        &tokenizer,
        options.generate.max_new_tokens,
        policy.config.shape.context,
        &plain,
    )?;
    set.check_rows(&options.prompts, &rows)?;
    let net = no_grad(|| policy.net(session.dtype))?;
    let bar = stage.progress(rows.len());
    let (mut lines, mut pairs, mut counts) = (String::new(), 0, Counts::default());
    let (mut tokens, clock) = (0, Instant::now());
    for (c, chunk) in rows.chunks(CHUNK).enumerate() {
        obey()?;
        let prompts = chunk.iter().map(|r| tokenizer.encode_prompt(&r.prompt)).collect::<Result<Vec<_>>>()?;
        let seed = |slot: usize, i: usize| stage.seed("sample", ((c * CHUNK + slot) * options.completions + i) as u64);
        let drawn = rollout(&net, &tokenizer, &prompts, options.completions, seed, &options.generate)?;
        tokens += drawn.tokens();
        let scores = set.score(&chunk.iter().collect::<Vec<&Row>>(), &drawn)?.objectives;
        for (slot, row) in chunk.iter().enumerate() {
            let index = (c * CHUNK + slot) as u64;
            let weights = sampler.sample(objectives, index, &mut stage.rng("weights", index))?;
            let (answers, scores) = (drawn.of(slot), &scores[drawn.span(slot)]);
            let Some(pair) = counts.add(choose(rule.as_ref(), &weights, answers, scores)?) else { continue };
            // A soft label says how often the first wins.
            let first_wins = stage.rng("label", index).random::<f64>() < pair.label;
            let [first, second] = pair.which;
            let [chosen, rejected] = if first_wins { [first, second] } else { [second, first] };
            let line = json!({
                "prompt": row.prompt,
                "chosen": answers[chosen].text,
                "rejected": answers[rejected].text,
                "chosen_finished": answers[chosen].finished,
                "rejected_finished": answers[rejected].finished,
                "weights": weights,
                "chosen_scores": scores[chosen],
                "rejected_scores": scores[rejected],
            });
            lines += &format!("{line}\n");
            pairs += 1;
        }
        bar.inc(chunk.len() as u64);
    }
    bar.finish();
    let Counts { ties, identical, unscored } = counts;
    tracing::info!("{}: {pairs} pairs; {ties} ties, {identical} identical, {unscored} without scores", stage.id);
    if pairs == 0 {
        return Err(Error::invalid(format!(
            "no prompt of {} gave a pair: {ties} were ties, {identical} had identical answers, {unscored} had no scores; draw more completions",
            rows.len()
        )));
    }
    let path = stage.folder().join(names::SAMPLES);
    save_speed(stage, tokens, clock)?;
    std::fs::write(&path, lines).map_err(|e| Error::io(&path, e))
}
