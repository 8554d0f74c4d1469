//! MO-ODPO (paper Algorithm 1) and its relatives. Per prompt: sample weights, write them into the prompt, draw completions from the
//! current policy, score them, label a pair, and move the policy by a pairwise loss against the frozen initial policy.

use super::evaluate::Asked;
use super::step_report::{PairStats, log_completions, score_metrics};
use super::{batch_rows, load_prompts, rewards, short};
use crate::log::Metrics;
use crate::logprob::{Group, pack, to_vec};
use crate::model::{Net, write_json};
use crate::rollout::{Completion, rollout};
use crate::session::{Stage, Trainer};
use crate::{Error, Result};
use motrain_core::Weights;
use motrain_core::data::Row;
use motrain_core::label::{Label, extremes};
use motrain_core::loss::{PairBatch, PairLoss};
use motrain_core::metrics::stats::mean;
use motrain_core::plan::{Component, OnlinePreference};
use motrain_core::sampler::FrontPoint;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Instant;
use tch::{Kind, Tensor, no_grad};

/// Steps whose mean KL is held against `max_kl`.
const KL_WINDOW: usize = 10;
/// Prompts whose completions are written to completions.jsonl, and how often.
const LOGGED_PROMPTS: usize = 4;
const LOG_EVERY: usize = 10;
/// Steps of the grid on which a sampler is told the front: 5 points for two objectives.
const FEEDBACK_GRID: u32 = 4;

/// How a policy is steered; saved beside it as steering.json, so that whoever uses it renders what it was trained on.
#[derive(Serialize, Deserialize)]
pub struct Steering {
    pub objectives: Vec<String>,
    pub conditioner: Component,
}

/// A labelled pair: tokens under x' (and x), label, weights and score differences.
struct Pair {
    conditioned: Vec<u32>,
    plain: Vec<u32>,
    first: Vec<u32>,
    second: Vec<u32>,
    label: f64,
    weights: Vec<f64>,
    margins: Vec<f64>,
}

pub fn run(stage: Stage, spec: &OnlinePreference) -> Result<()> {
    let session = stage.session;
    let registry = session.registry;
    let sampler = registry.samplers.build(&spec.sampler.name, &spec.sampler.options)?;
    let conditioner = registry.conditioners.build(&spec.conditioner.name, &spec.conditioner.options)?;
    let rule = registry.labels.build(&spec.label.name, &spec.label.options)?;
    let loss = registry.losses.build(&spec.loss.name, &spec.loss.options)?;
    let rewards = rewards::load(session, &spec.rewards)?;
    let objectives = rewards.objectives();

    let (policy, text) = stage.load(&spec.policy)?;
    let rows = load_prompts(&spec.prompts, &text, spec.generate.max_new_tokens, policy.config.context)?;
    let reference = no_grad(|| policy.frozen_copy()?.net(session.kind))?;
    let batch = spec.train.batch_size;
    let total = spec.train.total_steps(rows.len());
    let mut t = Trainer::start(stage, policy, text, &spec.optimizer, total, spec.train.checkpoint_every)?;
    sampler.feedback(&t.state.front)?;

    while t.running() {
        let step = t.state.step;
        let mut metrics = Metrics::new();
        let mut timings = Metrics::new();

        // Tell the sampler the front so far, if it wants to know.
        if sampler.wants_feedback() && spec.feedback_every > 0 && step > 0 && step.is_multiple_of(spec.feedback_every) {
            let clock = Instant::now();
            let net = no_grad(|| t.model.net(session.kind))?;
            let some = &rows[..spec.feedback_prompts.min(rows.len())];
            let asked =
                Asked { net: &net, text: &t.text, rows: some, conditioner: conditioner.as_ref(), set: &rewards };
            t.state.front = front_so_far(&asked, stage, spec, step)?;
            sampler.feedback(&t.state.front)?;
            timings.insert("feedback_seconds".into(), clock.elapsed().as_secs_f64());
        }

        // Sample weights and write them into the prompts.
        let prompts: Vec<&Row> = batch_rows(stage, rows.len(), batch, step).into_iter().map(|i| &rows[i]).collect();
        let clock = Instant::now();
        let weights = (0..batch)
            .map(|slot| {
                let index = if spec.one_weight_per_batch { step } else { step * batch + slot } as u64;
                sampler.sample(objectives.len(), index, &mut stage.rng("weights", index))
            })
            .collect::<motrain_core::Result<Vec<Weights>>>()?;
        timings.insert("components/sampler/seconds".into(), clock.elapsed().as_secs_f64());
        let clock = Instant::now();
        let conditioned = prompts
            .iter()
            .zip(&weights)
            .map(|(row, w)| conditioner.render(&objectives, w, &row.prompt))
            .collect::<motrain_core::Result<Vec<_>>>()?;
        timings.insert("components/conditioner/seconds".into(), clock.elapsed().as_secs_f64());
        let conditioned_tokens = conditioned.iter().map(|p| t.text.encode_prompt(p)).collect::<Result<Vec<_>>>()?;

        // Draw completions from the current policy.
        let clock = Instant::now();
        let seeds: Vec<Vec<u64>> = (0..batch)
            .map(|slot| {
                let first = (step * batch + slot) * spec.completions;
                (0..spec.completions).map(|i| stage.seed("rollout", (first + i) as u64)).collect()
            })
            .collect();
        let net = no_grad(|| t.model.net(session.kind))?;
        let drawn = rollout(&net, &t.text, &conditioned_tokens, &seeds, &spec.generate)?;
        drop(net);
        timings.insert("rollout_seconds".into(), clock.elapsed().as_secs_f64());

        // Score them on the plain prompts.
        let clock = Instant::now();
        let flat: Vec<&Completion> = drawn.iter().flatten().collect();
        let flat_rows: Vec<&Row> = prompts.iter().flat_map(|r| std::iter::repeat_n(*r, spec.completions)).collect();
        let flat_texts: Vec<&str> = flat.iter().map(|c| c.text.as_str()).collect();
        let scores = rewards.score(&flat_rows, &flat_texts)?;
        timings.insert("reward_seconds".into(), clock.elapsed().as_secs_f64());
        timings.extend(rewards.take_seconds());
        score_metrics(&mut metrics, &objectives, &weights, &flat, &scores, spec.completions);

        // Label pairs; ties and identical completions teach nothing.
        let clock = Instant::now();
        let (mut pairs, mut ties, mut identical, mut unscored) = (Vec::new(), 0usize, 0usize, 0usize);
        for (slot, completions) in drawn.iter().enumerate() {
            let all = &scores.objectives[slot * spec.completions..(slot + 1) * spec.completions];
            let scored: Vec<usize> = (0..completions.len()).filter(|&i| all[i].is_some()).collect();
            let own: Vec<Vec<f64>> = all.iter().flatten().cloned().collect();
            if own.len() < 2 {
                unscored += 1;
                continue;
            }
            let (best, worst) = if own.len() == 2 { (0, 1) } else { extremes(&weights[slot], &own) };
            let (first, second) = (&completions[scored[best]], &completions[scored[worst]]);
            if first.tokens == second.tokens {
                identical += 1;
                continue;
            }
            let Label::First(label) = rule.label(&weights[slot], &own[best], &own[worst])? else {
                ties += 1;
                continue;
            };
            pairs.push(Pair {
                conditioned: conditioned_tokens[slot].clone(),
                plain: t.text.encode_prompt(&prompts[slot].prompt)?,
                first: first.tokens.clone(),
                second: second.tokens.clone(),
                label,
                weights: weights[slot].values().to_vec(),
                margins: own[best].iter().zip(&own[worst]).map(|(x, y)| x - y).collect(),
            });
        }
        metrics.insert("pairs/ties".into(), ties as f64);
        metrics.insert("pairs/identical".into(), identical as f64);
        if unscored > 0 {
            metrics.insert("pairs/unscored".into(), unscored as f64);
        }
        metrics.insert("pairs/trained".into(), pairs.len() as f64);

        timings.insert("components/label/seconds".into(), clock.elapsed().as_secs_f64());

        // One update of the pairwise loss.
        let clock = Instant::now();
        let mut loss_seconds = 0.0;
        let mut done = PairStats::default();
        pairs.sort_by_key(|p| p.conditioned.len() + p.first.len() + p.second.len());
        let share = pairs.len().max(1) as f64;
        for micro in pairs.chunks(spec.train.micro_batch_size) {
            let reference_sums =
                no_grad(|| sums(&reference, micro, spec.reference_sees_weights, t.text.pad)?.as_vec())?;
            let policy_net = t.model.net(session.kind)?;
            let policy_sums = sums(&policy_net, micro, true, t.text.pad)?;
            let batch = pair_batch(micro, &policy_sums.as_vec()?, &reference_sums);
            let within = Instant::now();
            let result = loss.evaluate(&batch)?;
            loss_seconds += within.elapsed().as_secs_f64();
            surrogate(&policy_sums, &result, share)?.f_backward()?;
            done.add(&batch, &result);
        }
        timings.insert("components/loss/seconds".into(), loss_seconds);
        done.report(&mut metrics, loss.as_ref());
        if pairs.is_empty() {
            tracing::warn!("step {}: every pair was a tie or identical; nothing to learn from", step + 1);
        } else {
            t.update(&mut metrics)?;
        }
        timings.insert("update_seconds".into(), clock.elapsed().as_secs_f64());

        if step.is_multiple_of(LOG_EVERY) {
            for slot in 0..batch.min(LOGGED_PROMPTS) {
                log_completions(
                    &mut t,
                    slot,
                    &conditioned[slot],
                    &weights[slot],
                    &drawn[slot],
                    &scores,
                    spec.completions,
                )?;
            }
        }
        let kl = metrics.get("objective/kl").copied().unwrap_or(0.0);
        t.state.recent_kl.push(kl);
        let excess = t.state.recent_kl.len().saturating_sub(KL_WINDOW);
        t.state.recent_kl.drain(..excess);
        let recent = mean(&t.state.recent_kl);
        if spec.max_kl > 0.0 && t.state.recent_kl.len() == KL_WINDOW && recent > spec.max_kl {
            tracing::info!("stopped at step {}: KL {} is above max_kl = {}", step + 1, short(recent), spec.max_kl);
            t.state.stopped = true;
        }
        let rewards: Vec<String> =
            objectives.iter().map(|o| format!("{o} {}", short(metrics[&format!("rewards/{o}/mean")]))).collect();
        t.finish_step(&metrics, timings, format!("{} KL {kl:.1}", rewards.join(" ")))?;
    }
    t.finish()?;
    let steering = json!(Steering { objectives, conditioner: spec.conditioner.clone() });
    write_json(&stage.folder().join("model/steering.json"), &steering)
}

/// The current policy over a coarse grid on a few training prompts.
fn front_so_far(asked: &Asked, stage: Stage, spec: &OnlinePreference, step: usize) -> Result<Vec<FrontPoint>> {
    let grid = Weights::grid(asked.set.objectives().len(), FEEDBACK_GRID);
    let points = grid.len();
    let point = |(at, weights): (usize, Weights)| {
        let first = (step * points + at) * asked.rows.len();
        let (_, scores) = asked.answer(&weights, &spec.generate, |i| stage.seed("feedback", (first + i) as u64))?;
        let column = |k: usize| scores.objectives.iter().flatten().map(|s| s[k]).collect::<Vec<f64>>();
        let rewards = (0..weights.len()).map(|k| mean(&column(k))).collect();
        Ok(FrontPoint { weights, rewards })
    };
    grid.into_iter().enumerate().map(point).collect()
}

/// Log-prob sums of both completions of each pair: `[pairs, 2]`, still on the graph.
struct Sums(Tensor);

impl Sums {
    fn as_vec(&self) -> Result<Vec<f64>> {
        to_vec(&self.0.f_view([-1])?)
    }
}

fn sums(net: &Net, pairs: &[Pair], see_weights: bool, pad: u32) -> Result<Sums> {
    let groups: Vec<Group> = pairs
        .iter()
        .map(|p| Group {
            prompt: if see_weights { &p.conditioned } else { &p.plain },
            completions: vec![&p.first, &p.second],
        })
        .collect();
    let packed = pack(&groups, pad, net.device())?;
    Ok(Sums(packed.sums(&packed.token_log_probs(net)?)?.f_view([-1, 2])?))
}

/// The loss sees numbers only; sums lie as first, second, first, second …
fn pair_batch(pairs: &[Pair], policy: &[f64], reference: &[f64]) -> PairBatch {
    let pick = |x: &[f64], offset: usize| x.iter().skip(offset).step_by(2).copied().collect::<Vec<f64>>();
    PairBatch {
        policy_first: pick(policy, 0),
        policy_second: pick(policy, 1),
        reference_first: pick(reference, 0),
        reference_second: pick(reference, 1),
        tokens_first: pairs.iter().map(|p| p.first.len() as u32).collect(),
        tokens_second: pairs.iter().map(|p| p.second.len() as u32).collect(),
        label: pairs.iter().map(|p| p.label).collect(),
        weights: pairs.iter().flat_map(|p| p.weights.clone()).collect(),
        margins: pairs.iter().flat_map(|p| p.margins.clone()).collect(),
    }
}

/// `Σ g₊·logp₊ + g₋·logp₋` over the batch, divided by its size, with `g` detached: its gradient is the loss's.
fn surrogate(policy: &Sums, loss: &PairLoss, share: f64) -> Result<Tensor> {
    let g: Vec<f32> = loss.d_first.iter().zip(&loss.d_second).flat_map(|(a, b)| [*a as f32, *b as f32]).collect();
    if let Some(bad) = g.iter().find(|g| !g.is_finite()) {
        return Err(Error::invalid(format!("the loss gave the derivative {bad}; the last checkpoint is kept")));
    }
    let g = Tensor::f_from_slice(&g)?.f_view([-1, 2])?.f_to_device(policy.0.device())?;
    Ok(policy.0.f_mul(&g)?.f_sum(Kind::Float)?.f_div_scalar(share)?)
}
