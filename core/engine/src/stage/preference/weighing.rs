//! Pairs as a step's policy sees them: under weights or without, as tokens, with scores and a label.

use super::Preference;
use crate::decode::{Completion, Completions};
use crate::obey;
use crate::reward::RewardSet;
use crate::session::Cx;
use crate::stage::labelled::Counts;
use crate::stage::rewards;
use crate::stage::rows::{prompt_limit, say_left_out, widest_drawn};
use crate::steer::Steering;
use crate::tokenizer::Tokenizer;
use crate::train::log::Metrics;
use crate::train::{Drawn, TokenPair};
use crate::{Error, Result};
use motrain_core::Prompt;
use motrain_core::data::{self, DataOptions, Pair, Row};
use motrain_core::label::{Label, LabelRule};
use motrain_core::plan::{Component, StageId};
use motrain_core::sampler::WeightSampler;
use std::collections::HashMap;

/// What gives pairs weights, and what comes of them.
pub struct Weighing {
    pub set: RewardSet,
    sampler: Box<dyn WeightSampler>,
    pub steering: Steering,
    rule: Option<Box<dyn LabelRule>>,
    /// Scaled scores of both answers, by pair: they do not depend on weights, so each pair is scored once.
    scores: HashMap<usize, Both>,
}

/// Scaled scores of a pair's answers, one per objective.
type Both = [Option<Vec<f64>>; 2];

/// A pair as the policy sees it in a step.
pub struct Slot {
    conditioned: Vec<u32>,
    plain: Vec<u32>,
    answers: [Vec<u32>; 2],
    label: f64,
    weights: Vec<f64>,
    margins: Vec<f64>,
}

impl Weighing {
    pub fn build(stage: Cx, options: &Preference, rewards: &StageId) -> Result<Self> {
        let session = stage.session;
        let set = rewards::load(session, rewards)?;
        let Some(Component { name, options: own }) = &options.sampler else {
            return Err(Error::invalid("preference: \"rewards\" need a \"sampler\""));
        };
        let rule = options.label.as_ref().map(|c| session.registry.labels.build(&c.name, &c.options)).transpose()?;
        let steering =
            Steering { objectives: set.objectives(), conditioner: session.conditioner(&options.weights_by())? };
        let sampler = session.registry.samplers.build(name, own)?;
        Ok(Self { set, sampler, steering, rule, scores: HashMap::new() })
    }

    /// Pairs under sampled weights, scored and labelled. What teaches nothing is left out and counted.
    pub fn slots(
        &mut self,
        stage: Cx,
        tokenizer: &Tokenizer,
        batch: &[(usize, &Pair)],
        step: usize,
        metrics: &mut Metrics,
    ) -> Result<Vec<Slot>> {
        self.score(batch)?;
        let (mut slots, mut counts) = (Vec::new(), Counts::default());
        for (slot, (which, pair)) in batch.iter().enumerate() {
            let index = (step * batch.len() + slot) as u64;
            let objectives = self.steering.objectives.len();
            let weights = self.sampler.sample(objectives, index, &mut stage.session.rng("weights", index))?;
            let Some([Some(first), Some(second)]) = self.scores.get(which) else {
                counts.unscored += 1;
                continue;
            };
            let label = match &self.rule {
                Some(rule) => rule.label(&weights, first, second)?,
                None => Label::First(1.0),
            };
            let Label::First(label) = label else {
                counts.ties += 1;
                continue;
            };
            slots.push(Slot {
                label,
                margins: first.iter().zip(second).map(|(a, b)| a - b).collect(),
                weights: weights.values().to_vec(),
                ..Slot::of(tokenizer, pair, &self.steering.prompt(&weights, &pair.prompt)?)?
            });
        }
        counts.report(metrics);
        Ok(slots)
    }

    /// Scores those pairs that have not been scored.
    fn score(&mut self, batch: &[(usize, &Pair)]) -> Result<()> {
        let new: Vec<&(usize, &Pair)> = batch.iter().filter(|(which, _)| !self.scores.contains_key(which)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let rows: Vec<Row> = new.iter().map(|(_, pair)| row(pair)).collect();
        let answers = new.iter().flat_map(|(_, pair)| {
            let texts = [&pair.chosen, &pair.rejected].into_iter().zip(pair.finished);
            texts.map(|(text, finished)| Completion::written(text, finished))
        });
        let answers = Completions::new(2, answers.collect());
        let scores = self.set.score(&rows.iter().collect::<Vec<_>>(), &answers)?.objectives;
        let both = new.iter().enumerate().map(|(i, (which, _))| {
            let first = answers.span(i).start;
            (*which, [scores[first].clone(), scores[first + 1].clone()])
        });
        self.scores.extend(both);
        Ok(())
    }
}

/// The pair as rewards see the row of a prompt.
pub fn row(pair: &Pair) -> Row {
    Row { prompt: pair.prompt.clone(), columns: pair.columns.clone(), place: pair.place }
}

impl Slot {
    fn of(tokenizer: &Tokenizer, pair: &Pair, conditioned: &Prompt) -> Result<Self> {
        let (prompt, chosen) = tokenizer.encode_answer(conditioned, &pair.chosen, pair.finished[0])?;
        let (_, rejected) = tokenizer.encode_answer(conditioned, &pair.rejected, pair.finished[1])?;
        let plain = tokenizer.encode_prompt(&pair.prompt)?;
        let answers = [chosen, rejected];
        Ok(Self { conditioned: prompt, plain, answers, label: 1.0, weights: vec![], margins: vec![] })
    }

    /// Without weights.
    pub fn plain(tokenizer: &Tokenizer, pair: &Pair) -> Result<Self> {
        Self::of(tokenizer, pair, &pair.prompt)
    }

    pub fn pair(&self, gained: bool, room: usize) -> TokenPair<'_> {
        let gains = if gained { self.weights.as_slice() } else { &[] };
        let completions = self.answers.iter().map(Vec::as_slice).collect();
        TokenPair {
            drawn: Drawn {
                gains,
                room,
                conditioned: &self.conditioned,
                plain: &self.plain,
                completions,
                log_probs: vec![],
            },
            label: self.label,
            weights: &self.weights,
            margins: self.margins.clone(),
            other: None,
        }
    }
}

/// The pairs that the model's context holds at all weights that come, and whose answers are there.
pub fn fitting(
    options: &DataOptions,
    tokenizer: &Tokenizer,
    context: i64,
    weighing: Option<&Weighing>,
    seed: u64,
) -> Result<Vec<Pair>> {
    let wide = weighing.map(|w| widest_drawn(&w.steering, w.sampler.as_ref(), seed, tokenizer));
    let wide = wide.transpose()?;
    let (mut kept, mut long_prompts, mut long, mut empty) = (vec![], vec![], vec![], vec![]);
    for pair in data::pairs(options)? {
        obey()?;
        let at = |e: Error| e.at(pair.place.of(options));
        let seen = match weighing.zip(wide.as_ref()) {
            Some((weighing, wide)) => weighing.steering.prompt(wide, &pair.prompt).map_err(at)?,
            None => pair.prompt.clone(),
        };
        let Slot { conditioned, plain, answers, .. } = Slot::of(tokenizer, &pair, &seen).map_err(at)?;
        let longest = answers.iter().map(Vec::len).max().unwrap_or(0);
        if options.max_prompt_tokens.is_some_and(|max| plain.len() > max) {
            long_prompts.push(pair.place);
        } else if conditioned.len() + longest > context as usize {
            long.push(pair.place);
        } else if answers.iter().any(Vec::is_empty) {
            empty.push(pair.place);
        } else {
            kept.push(pair);
        }
    }
    let all = kept.len() + long.len() + empty.len();
    say_left_out(options, all, &long_prompts, &prompt_limit(options))?;
    say_left_out(options, all - long.len(), &long, &format!("longer than the model's context of {context} tokens"))?;
    say_left_out(options, kept.len(), &empty, "with an answer that has no tokens")?;
    Ok(kept)
}
