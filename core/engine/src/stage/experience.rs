//! A batch of experience, the part that all online methods share: prompts under sampled weights, the current policy's completions, and
//! their scores.

use super::asked::Asked;
use super::online::Online;
use super::rows::{batch_rows, load_prompts, usual_weights, widest};
use super::step_report::{log_completions, mean_weighted, score_metrics};
use super::{rewards, short};
use crate::Result;
use crate::reward::{RewardSet, Scores};
use crate::rollout::{Completion, rollout};
use crate::session::Cx;
use crate::steering;
use crate::train::log::Metrics;
use crate::train::{Drawn, LogProbs, Trainer};
use motrain_core::conditioner::Conditioner;
use motrain_core::data::Row;
use motrain_core::metrics::stats::mean;
use motrain_core::sampler::{FrontPoint, WeightSampler};
use motrain_core::{Prompt, Weights};
use std::time::Instant;
use tch::no_grad;

/// Steps whose mean KL is held against `max_kl`.
const KL_WINDOW: usize = 10;
/// Prompts whose completions are written to completions.jsonl, and how often.
const LOGGED_PROMPTS: usize = 4;
const LOG_EVERY: usize = 10;
/// Steps of the grid on which a sampler is told the front: 5 points for two objectives.
const FEEDBACK_GRID: u32 = 4;
/// Draws of the sampler among which the weights that take most room are looked for.
const TRIED: u64 = 64;

/// What draws batches.
pub struct Experience<'a> {
    stage: Cx<'a>,
    spec: &'a Online,
    objectives: Vec<String>,
    rows: Vec<Row>,
    sampler: Box<dyn WeightSampler>,
    conditioner: Box<dyn Conditioner>,
    rewards: RewardSet,
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
    pub completions: Vec<Vec<Completion>>,
    /// As they are trained on: cut completions have lost `missing_eos_penalty`.
    pub scores: Scores,
}

impl Batch<'_> {
    /// Some completions of one prompt, as policies see them.
    pub fn drawn(&self, slot: usize, which: impl IntoIterator<Item = usize>) -> Drawn<'_> {
        let completions = which.into_iter().map(|i| self.completions[slot][i].tokens.as_slice()).collect();
        Drawn { conditioned: &self.tokens[slot], plain: &self.plain[slot], completions }
    }

    /// Scaled scores of the completions of one prompt.
    pub fn scores_of(&self, slot: usize) -> &[Option<Vec<f64>>] {
        let per_prompt = self.completions[slot].len();
        &self.scores.objectives[slot * per_prompt..(slot + 1) * per_prompt]
    }
}

impl<'a> Experience<'a> {
    /// What draws batches, log-probs against the frozen initial policy, and the trainer, which stands where the stage was interrupted.
    pub fn start(stage: Cx<'a>, spec: &'a Online) -> Result<(Self, LogProbs, Trainer<'a>)> {
        let session = stage.session;
        let rewards = rewards::load(session, &spec.rewards)?;
        let (policy, text) = stage.load(&spec.policy)?;
        let objectives = rewards.objectives();
        let sampler = session.registry.samplers.build(&spec.sampler.name, &spec.sampler.options)?;
        let conditioner = session.conditioner(&spec.conditioner)?;
        let drawn = (0..TRIED).map(|i| sampler.sample(objectives.len(), i, &mut session.rng("weights", i)));
        let tried = usual_weights(objectives.len()).into_iter().map(Ok).chain(drawn);
        let tried = tried.collect::<motrain_core::Result<Vec<_>>>()?;
        let wide = widest(conditioner.as_ref(), &objectives, tried, &text)?;
        let seen = |prompt: &Prompt| Ok(conditioner.render(&objectives, &wide, prompt)?);
        let rows = load_prompts(&spec.prompts, &text, spec.generate.max_new_tokens, policy.config.context, &seen)?;
        rewards.check_rows(&spec.prompts, &rows)?;
        let experience = Self { stage, spec, objectives, rows, sampler, conditioner, rewards };
        let reference = no_grad(|| policy.frozen_copy()?.net(session.kind))?;
        let log_probs = LogProbs {
            reference,
            temperature: spec.generate.temperature,
            reference_sees_weights: spec.reference_sees_weights,
            micro_batch_size: spec.train.micro_batch_size,
            pad: text.pad,
        };
        let total = spec.train.total_steps(experience.rows.len());
        let t = Trainer::start(stage, policy, text, &spec.optimizer, total, spec.train.checkpoint_every)?;
        experience.sampler.feedback(&t.state.front)?;
        Ok((experience, log_probs, t))
    }

    /// Tells the sampler the front so far, if it wants to know and it is time.
    pub fn feedback(&self, t: &mut Trainer, timings: &mut Metrics) -> Result<()> {
        let (step, every) = (t.state.step, self.spec.feedback_every);
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
        let net = no_grad(|| t.model.net(self.stage.session.kind))?;
        let rows = &self.rows[..self.spec.feedback_prompts.min(self.rows.len())];
        let asked = Asked { text: &t.text, rows, conditioner: self.conditioner.as_ref(), set: &self.rewards };
        let grid = Weights::grid(self.objectives.len(), FEEDBACK_GRID);
        let points = grid.len();
        let point = |(at, weights): (usize, Weights)| {
            let first = (t.state.step * points + at) * rows.len();
            let seed = |i: usize| self.stage.seed("feedback", (first + i) as u64);
            let (_, scores) = asked.answer(&net, &weights, &self.spec.generate, seed)?;
            let column = |k: usize| scores.objectives.iter().flatten().map(|s| s[k]).collect::<Vec<f64>>();
            let rewards = (0..weights.len()).map(|k| mean(&column(k))).collect();
            Ok(FrontPoint { weights, rewards })
        };
        grid.into_iter().enumerate().map(point).collect()
    }

    /// Draws the batch of the trainer's step from the current policy, and scores it.
    pub fn draw(&self, t: &Trainer, metrics: &mut Metrics, timings: &mut Metrics) -> Result<Batch<'_>> {
        let (step, batch, n) = (t.state.step, self.spec.train.batch_size, self.spec.completions);

        // Sample weights and write them into the prompts.
        let rows: Vec<&Row> =
            batch_rows(self.stage, self.rows.len(), batch, step).into_iter().map(|i| &self.rows[i]).collect();
        let clock = Instant::now();
        let weights = (0..batch)
            .map(|slot| {
                let index = if self.spec.one_weight_per_batch { step } else { step * batch + slot } as u64;
                self.sampler.sample(self.objectives.len(), index, &mut self.stage.session.rng("weights", index))
            })
            .collect::<motrain_core::Result<Vec<Weights>>>()?;
        timings.insert("components/sampler/seconds".into(), clock.elapsed().as_secs_f64());
        let clock = Instant::now();
        let conditioned = rows
            .iter()
            .zip(&weights)
            .map(|(row, w)| self.conditioner.render(&self.objectives, w, &row.prompt))
            .collect::<motrain_core::Result<Vec<_>>>()?;
        timings.insert("components/conditioner/seconds".into(), clock.elapsed().as_secs_f64());
        let tokens = conditioned.iter().map(|p| t.text.encode_prompt(p)).collect::<Result<Vec<_>>>()?;
        let plain = rows.iter().map(|row| t.text.encode_prompt(&row.prompt)).collect::<Result<Vec<_>>>()?;

        // Draw completions from the current policy.
        let clock = Instant::now();
        let seed = |slot: usize, i: usize| self.stage.seed("rollout", ((step * batch + slot) * n + i) as u64);
        let seeds: Vec<Vec<u64>> = (0..batch).map(|slot| (0..n).map(|i| seed(slot, i)).collect()).collect();
        let net = no_grad(|| t.model.net(self.stage.session.kind))?;
        let completions = rollout(&net, &t.text, &tokens, &seeds, &self.spec.generate)?;
        drop(net);
        timings.insert("rollout_seconds".into(), clock.elapsed().as_secs_f64());

        // Score them on the plain prompts.
        let clock = Instant::now();
        let flat: Vec<&Completion> = completions.iter().flatten().collect();
        let flat_rows: Vec<&Row> = rows.iter().flat_map(|r| std::iter::repeat_n(*r, n)).collect();
        let mut scores = self.rewards.score(&flat_rows, &flat)?;
        timings.insert("reward_seconds".into(), clock.elapsed().as_secs_f64());
        timings.extend(self.rewards.take_seconds());
        score_metrics(metrics, &self.objectives, &weights, &flat, &scores, n);
        scores.penalise_cut(&flat, self.spec.missing_eos_penalty);
        metrics.insert("objective/scores".into(), mean_weighted(&scores, &weights, n));
        let tokens_drawn: usize = flat.iter().map(|c| c.tokens.len()).sum();
        metrics.insert("tokens/generated".into(), tokens_drawn as f64);
        Ok(Batch { rows, weights, conditioned, tokens, plain, completions, scores })
    }

    /// Ends a step: logs it, shows it, saves when due, and stops the stage where the KL has grown above `max_kl`.
    pub fn finish_step(&self, t: &mut Trainer, batch: &Batch, metrics: &Metrics, timings: Metrics) -> Result<()> {
        let step = t.state.step;
        if step.is_multiple_of(LOG_EVERY) {
            for slot in 0..batch.rows.len().min(LOGGED_PROMPTS) {
                log_completions(t, slot, batch)?;
            }
        }
        let kl = metrics["objective/kl"];
        t.state.recent_kl.push(kl);
        let excess = t.state.recent_kl.len().saturating_sub(KL_WINDOW);
        t.state.recent_kl.drain(..excess);
        let (recent, max) = (mean(&t.state.recent_kl), self.spec.max_kl);
        if max > 0.0 && t.state.recent_kl.len() == KL_WINDOW && recent > max {
            tracing::info!("stopped at step {}: KL {} is above max_kl = {max}", step + 1, short(recent));
            t.state.stopped = true;
        }
        let mean_of = |o: &String| format!("{o} {}", short(metrics[&format!("rewards/{o}/mean")]));
        let rewards: Vec<String> = self.objectives.iter().map(mean_of).collect();
        t.finish_step(metrics, timings, format!("{} KL {kl:.1}", rewards.join(" ")))
    }

    /// Writes how the finished policy is steered beside it.
    pub fn save_steering(&self) -> Result<()> {
        steering::save(self.stage, self.objectives.clone(), &self.spec.conditioner)
    }
}
