//! A batch of experience, the part that all online methods share: prompts under sampled weights, the current policy's completions, and
//! their scores.

use super::asked::Asked;
use super::drift::recent;
use super::online::Online;
use super::rows::{batch_rows, load_prompts, widest_drawn};
use super::step_report::{log_completions, mean_weighted, score_metrics};
use super::{rewards, short};
use crate::Result;
use crate::decode::{Completions, rollout};
use crate::publish;
use crate::reward::{RewardSet, Scores};
use crate::session::Cx;
use crate::steer::{Steerable, Steering};
use crate::train::log::Metrics;
use crate::train::{Drawn, Elsewhere, LogProbs, Trainer};
use motrain_core::data::Row;
use motrain_core::metrics::stats::mean;
use motrain_core::normaliser::Normaliser;
use motrain_core::sampler::{FrontPoint, WeightSampler};
use motrain_core::{Prompt, Weights};
use std::time::Instant;
use tch::no_grad;

/// Prompts whose completions are written to completions.jsonl, and how often.
const LOGGED_PROMPTS: usize = 4;
const LOG_EVERY: usize = 10;
/// Steps of the grid on which a sampler is told the front: 5 points for two objectives.
const FEEDBACK_GRID: u32 = 4;

/// What draws batches.
pub struct Experience<'a> {
    stage: Cx<'a>,
    options: &'a Online,
    steering: Steering,
    rows: Vec<Row>,
    sampler: Box<dyn WeightSampler>,
    rewards: RewardSet,
    normaliser: Box<dyn Normaliser>,
}

/// A batch: everything by prompt, scores by completion in the same order.
pub struct Batch<'a> {
    pub rows: Vec<&'a Row>,
    pub weights: Vec<Weights>,
    /// x', as messages and as tokens.
    pub conditioned: Vec<Prompt>,
    pub tokens: Vec<Vec<u32>>,
    /// x as tokens.
    pub plain: Vec<Vec<u32>>,
    /// Whether weights are gains of the policy, and its soft tokens.
    gained: bool,
    room: usize,
    pub completions: Completions,
    /// As they are trained on: what is in doubt has lost `drift.penalty`, cut completions `missing_eos_penalty`, and objectives are normalised if wanted.
    pub scores: Scores,
}

impl Batch<'_> {
    /// Some completions of one prompt, as policies see them.
    pub fn drawn(&self, slot: usize, which: impl IntoIterator<Item = usize>) -> Drawn<'_> {
        let own = self.completions.of(slot);
        let (completions, log_probs) =
            which.into_iter().map(|i| (own[i].tokens.as_slice(), own[i].log_probs.as_slice())).unzip();
        let gains = if self.gained { self.weights[slot].values() } else { &[] };
        let (conditioned, plain) = (&self.tokens[slot], &self.plain[slot]);
        Drawn { gains, room: self.room, conditioned, plain, completions, log_probs }
    }

    /// Scaled scores of the completions of one prompt.
    pub fn scores_of(&self, slot: usize) -> &[Option<Vec<f64>>] {
        &self.scores.objectives[self.completions.span(slot)]
    }
}

impl<'a> Experience<'a> {
    /// What draws batches, log-probs against the frozen initial policy, and the trainer, which stands where the stage was interrupted.
    pub fn start(stage: Cx<'a>, options: &'a Online) -> Result<(Self, LogProbs, Trainer<'a>)> {
        let session = stage.session;
        let rewards = rewards::load(session, &options.rewards)?;
        let (policy, tokenizer) =
            stage.load_trained(&options.policy, options.lora.as_ref(), rewards.objectives().len(), Ok)?;
        let objectives = rewards.objectives();
        let sampler = session.registry.samplers.build(&options.sampler.name, &options.sampler.options)?;
        let steering = Steering { objectives, conditioner: session.conditioner(&options.conditioner)? };
        let wide = widest_drawn(&steering, sampler.as_ref(), session.stages.seed(), &tokenizer)?;
        let seen = |prompt: &Prompt| steering.prompt(&wide, prompt);
        let rows =
            load_prompts(&options.prompts, &tokenizer, options.generate.max_new_tokens, policy.context(), &seen)?;
        rewards.check_rows(&options.prompts, &rows)?;
        let normaliser = options.normaliser(session.registry)?;
        let experience = Self { stage, options, steering, rows, sampler, rewards, normaliser };
        let reference = no_grad(|| policy.reference(session.dtype))?;
        let log_probs = LogProbs {
            reference,
            temperature: options.generate.temperature,
            reference_sees_weights: options.reference_sees_weights,
            train: options.train.clone(),
            pad: tokenizer.pad,
        };
        let total = options.train.total_steps(experience.rows.len());
        let t = Trainer::start(stage, policy, tokenizer, &options.optimizer, total, &options.train)?;
        experience.sampler.feedback(&t.state.front)?;
        Ok((experience, log_probs, t))
    }

    /// Names of the objectives, in the order of the weights.
    pub fn objectives(&self) -> &[String] {
        &self.steering.objectives
    }

    /// Tells the sampler the front so far, if it wants to know and it is time.
    pub fn feedback(&self, t: &mut Trainer, timings: &mut Metrics) -> Result<()> {
        let (step, every) = (t.state.step, self.options.feedback_every);
        if !self.sampler.wants_feedback() || every == 0 || step == 0 || !step.is_multiple_of(every) {
            return Ok(());
        }
        let clock = Instant::now();
        t.state.front = self.front_so_far(t)?;
        self.sampler.feedback(&t.state.front)?;
        timings.insert("feedback_seconds".into(), clock.elapsed().as_secs_f64());
        Ok(())
    }

    /// The current policy over a coarse grid on a few training prompts.
    fn front_so_far(&self, t: &Trainer) -> Result<Vec<FrontPoint>> {
        let net = no_grad(|| t.model.net(self.stage.session.dtype))?;
        let rows = &self.rows[..self.options.feedback_prompts.min(self.rows.len())];
        let asked = Asked { policy: &net, tokenizer: &t.tokenizer, steering: &self.steering, rows, set: &self.rewards };
        let grid = Weights::grid(self.steering.objectives.len(), FEEDBACK_GRID);
        let points = grid.len();
        let point = |(at, weights): (usize, Weights)| {
            let first = (t.state.step * points + at) * rows.len();
            let seed = |i: usize, _| self.stage.seed("feedback", (first + i) as u64);
            let (_, scores) = asked.answer(&weights, (1, &self.options.generate), seed)?;
            let column = |k: usize| scores.objectives.iter().flatten().map(|s| s[k]).collect::<Vec<f64>>();
            let rewards = (0..weights.len()).map(|k| mean(&column(k))).collect();
            Ok(FrontPoint { weights, rewards })
        };
        grid.into_iter().enumerate().map(point).collect()
    }

    /// Draws the batch of the trainer's step from the current policy, and scores it.
    pub fn draw(&self, t: &mut Trainer, metrics: &mut Metrics, timings: &mut Metrics) -> Result<Batch<'_>> {
        let (step, batch, n) = (t.state.step, self.options.train.batch_size, self.options.completions);

        // Sample weights and write them into the prompts.
        let rows: Vec<&Row> =
            batch_rows(self.stage, self.rows.len(), batch, step).into_iter().map(|i| &self.rows[i]).collect();
        let clock = Instant::now();
        let weights = (0..batch)
            .map(|slot| {
                let index = if self.options.one_weight_per_batch { step } else { step * batch + slot } as u64;
                self.sampler.sample(
                    self.steering.objectives.len(),
                    index,
                    &mut self.stage.session.rng("weights", index),
                )
            })
            .collect::<motrain_core::Result<Vec<Weights>>>()?;
        timings.insert("components/sampler/seconds".into(), clock.elapsed().as_secs_f64());
        let clock = Instant::now();
        let conditioned = rows
            .iter()
            .zip(&weights)
            .map(|(row, w)| self.steering.prompt(w, &row.prompt))
            .collect::<Result<Vec<_>>>()?;
        timings.insert("components/conditioner/seconds".into(), clock.elapsed().as_secs_f64());
        let tokens = conditioned.iter().map(|p| t.tokenizer.encode_prompt(p)).collect::<Result<Vec<_>>>()?;
        let plain = rows.iter().map(|row| t.tokenizer.encode_prompt(&row.prompt)).collect::<Result<Vec<_>>>()?;

        // Draw completions from the current policy.
        let clock = Instant::now();
        let seed = |slot: usize, i: usize| self.stage.seed("rollout", ((step * batch + slot) * n + i) as u64);
        let net = no_grad(|| t.model.net(self.stage.session.dtype))?;
        let (gained, room) = (net.blocks() > 0, net.soft_tokens());
        let routes = weights.iter().map(|w| net.route(w)).collect::<Result<Vec<_>>>()?;
        let decoder = net.decoder(&routes)?;
        let completions = rollout(decoder.as_ref(), &t.tokenizer, &tokens, n, seed, &self.options.generate)?;
        drop(decoder);
        drop(net);
        timings.insert("rollout_seconds".into(), clock.elapsed().as_secs_f64());

        // Score them on the plain prompts.
        let clock = Instant::now();
        let mut scores = self.rewards.score(&rows, &completions)?;
        timings.insert("reward_seconds".into(), clock.elapsed().as_secs_f64());
        timings.extend(self.rewards.take_seconds());
        score_metrics(metrics, &self.steering.objectives, &weights, &completions, &scores);
        scores.doubt(self.options.drift.penalty);
        scores.penalise_cut(&completions, self.options.missing_eos_penalty);
        let groups: Vec<_> = (0..rows.len()).map(|slot| completions.span(slot)).collect();
        self.normaliser.scores(&mut scores.objectives, &groups, &mut t.state.moments);
        metrics.insert("objective/scores".into(), mean_weighted(&scores, &weights, &completions));
        metrics.insert("tokens/generated".into(), completions.tokens() as f64);
        Ok(Batch { rows, weights, conditioned, tokens, plain, gained, room, completions, scores })
    }

    /// Normalises the weighted sums of all completions of a step, if wanted.
    pub fn normalise_sums<'s>(&self, sums: impl Iterator<Item = &'s mut f64>) {
        let sums: Vec<&mut f64> = sums.collect();
        let mut changed: Vec<f64> = sums.iter().map(|sum| **sum).collect();
        self.normaliser.sums(&mut changed);
        sums.into_iter().zip(changed).for_each(|(sum, to)| *sum = to);
    }

    /// Each prompt under the weights of another prompt of the batch: the next one (the first follows the last) whose weights are others.
    /// Nothing where all have the same.
    pub fn elsewhere(&self, t: &Trainer, batch: &Batch) -> Result<Option<Vec<Elsewhere>>> {
        let slots = batch.rows.len();
        let mut out = Vec::with_capacity(slots);
        for (slot, (row, own)) in batch.rows.iter().zip(&batch.weights).enumerate() {
            let next = (1..slots).map(|by| &batch.weights[(slot + by) % slots]);
            let Some(other) = next.into_iter().find(|weights| !weights.is_near(own)) else { return Ok(None) };
            let conditioned = t.tokenizer.encode_prompt(&self.steering.prompt(other, &row.prompt)?)?;
            out.push(Elsewhere { conditioned, gains: if batch.gained { other.values().to_vec() } else { vec![] } });
        }
        Ok(Some(out))
    }

    /// Ends a step: logs it, shows it, saves when due, and stops the stage where the KL has grown above `max_kl`, or disagreement above `drift.stop`.
    pub fn finish_step(&self, t: &mut Trainer, batch: &Batch, metrics: &Metrics, timings: Metrics) -> Result<()> {
        let step = t.state.step;
        if step.is_multiple_of(LOG_EVERY) {
            for slot in 0..batch.rows.len().min(LOGGED_PROMPTS) {
                log_completions(t, slot, batch)?;
            }
        }
        let kl = metrics["objective/kl"];
        let max = self.options.max_kl;
        if let Some(recent) = recent(&mut t.state.recent_kl, kl).filter(|recent| max > 0.0 && *recent > max) {
            tracing::info!("stopped at step {}: KL {} is above max_kl = {max}", step + 1, short(recent));
            t.state.stopped = true;
        }
        if let Some(what) = self.options.drift.above(self.rewards.doubted(), metrics, &mut t.state.recent_drift) {
            tracing::warn!("stage \"{}\" stopped at step {}: {what}", self.stage.id, step + 1);
            t.state.stopped = true;
        }
        let mean_of = |o: &String| format!("{o} {}", short(metrics[&format!("rewards/{o}/mean")]));
        let rewards: Vec<String> = self.steering.objectives.iter().map(mean_of).collect();
        t.finish_step(metrics, timings, format!("{} KL {kl:.1}", rewards.join(" ")))
    }

    /// Writes how the finished policy is steered beside it.
    pub fn save_steering(&self) -> Result<()> {
        let Online { conditioner, lora, .. } = self.options;
        publish::save(self.stage, self.steering.objectives.clone(), conditioner, lora.as_ref())
    }
}
