//! REINFORCE with a control variate. Each completion's return is its weighted reward minus the KL to the initial policy (summed over
//! the completion); what a baseline did not expect of it moves the log-prob of the whole completion.

use super::experience::{Batch, Experience};
use crate::log::Metrics;
use crate::logprob::{Group, pack, to_vec};
use crate::session::{Stage, Trainer};
use crate::{Error, Result};
use motrain_core::advantage::{ValueHead, leave_one_out};
use motrain_core::metrics::stats::{mean, std};
use motrain_core::plan::{Baseline, Reinforce};
use std::time::Instant;
use tch::{Kind, Tensor, no_grad};

/// Raised when this stage's results change.
pub const REVISION: u32 = 1;

/// The scored completions of a prompt: tokens under x' (and x), and weighted rewards.
struct Answers<'a> {
    conditioned: &'a [u32],
    plain: Vec<u32>,
    completions: Vec<&'a [u32]>,
    rewards: Vec<f64>,
}

/// What the micro-batches of a step add up to.
#[derive(Default)]
struct Done {
    returns: Vec<f64>,
    advantages: Vec<f64>,
    log_ratios: Vec<f64>,
    log_probs: f64,
    tokens: usize,
    loss: f64,
    /// What the value head saw, said, and should have said.
    states: Vec<Vec<f64>>,
    values: Vec<f64>,
    targets: Vec<f64>,
}

pub fn run(stage: Stage, spec: &Reinforce) -> Result<()> {
    let session = stage.session;
    let (experience, reference, mut t) = Experience::start(stage, &spec.online)?;

    t.run(|t| {
        let (mut metrics, mut timings) = (Metrics::new(), Metrics::new());
        experience.feedback(t, &mut timings)?;
        let batch = experience.draw(t, &mut metrics, &mut timings)?;

        let clock = Instant::now();
        let mut head = t.state.value.take().unwrap_or_default();
        let mut answers = scored(&batch, spec, t)?;
        answers.sort_by_key(|a| a.conditioned.len() + a.completions.iter().map(|c| c.len()).sum::<usize>());
        let share = answers.iter().map(|a| a.completions.len()).sum::<usize>().max(1) as f64;
        let mut done = Done::default();
        for micro in answers.chunks(spec.online.train.micro_batch_size) {
            stage.obey()?;
            let reference_sums = no_grad(|| {
                let packed = pack(&groups(micro, spec.online.reference_sees_weights), t.text.pad, session.device)?;
                to_vec(&packed.sums(&packed.token_log_probs(&reference)?)?)
            })?;
            let net = t.model.net(session.kind)?;
            let packed = pack(&groups(micro, true), t.text.pad, session.device)?;
            let hidden = packed.hidden(&net)?;
            let sums = packed.sums(&packed.log_probs_of(&net, &hidden)?)?;
            let states = match spec.baseline {
                Baseline::Value => packed.prompt_states(&hidden)?,
                Baseline::Rloo => vec![],
            };
            let advantages = done.add(micro, spec.kl, &to_vec(&sums)?, &reference_sums, states, &head);
            let factors: Vec<f32> = advantages.iter().map(|a| (-a / share) as f32).collect();
            if factors.iter().any(|f| !f.is_finite()) {
                return Err(Error::invalid("an advantage is not finite; the last checkpoint is kept"));
            }
            let factors = Tensor::f_from_slice(&factors)?.f_to_device(session.device)?;
            let loss = sums.f_mul(&factors)?.f_sum(Kind::Float)?;
            loss.f_backward()?;
            done.loss += f64::try_from(&loss)?;
        }
        done.report(&mut metrics);
        if spec.baseline == Baseline::Value {
            head.fit(&done.states, &done.targets, spec.value_rate);
            t.state.value = Some(head);
        }
        if done.returns.is_empty() {
            tracing::warn!("step {}: no prompt has enough scores; nothing to learn from", t.state.step + 1);
        } else {
            t.update(&mut metrics)?;
        }
        timings.insert("update_seconds".into(), clock.elapsed().as_secs_f64());
        experience.finish_step(t, &batch, &metrics, timings)
    })?;
    t.finish()?;
    experience.save_steering()
}

/// The completions that have all scores; leave-one-out needs two of a prompt.
fn scored<'a>(batch: &'a Batch, spec: &Reinforce, t: &Trainer) -> Result<Vec<Answers<'a>>> {
    let least = if spec.baseline == Baseline::Rloo { 2 } else { 1 };
    let mut out = Vec::new();
    for slot in 0..batch.rows.len() {
        let (mut completions, mut rewards) = (Vec::new(), Vec::new());
        for (completion, scores) in batch.completions[slot].iter().zip(batch.scores_of(slot)) {
            let Some(scores) = scores else { continue };
            completions.push(completion.tokens.as_slice());
            rewards.push(batch.weights[slot].dot(scores));
        }
        if completions.len() >= least {
            let plain = t.text.encode_prompt(&batch.rows[slot].prompt)?;
            out.push(Answers { conditioned: &batch.tokens[slot], plain, completions, rewards });
        }
    }
    Ok(out)
}

fn groups<'a>(answers: &'a [Answers], see_weights: bool) -> Vec<Group<'a>> {
    let prompt = |a: &'a Answers| if see_weights { a.conditioned } else { &a.plain };
    answers.iter().map(|a| Group { prompt: prompt(a), completions: a.completions.clone() }).collect()
}

impl Done {
    /// Returns the advantages of a micro-batch. `states` is empty without a value head.
    fn add(
        &mut self,
        micro: &[Answers],
        kl: f64,
        policy: &[f64],
        reference: &[f64],
        states: Vec<Vec<f64>>,
        head: &ValueHead,
    ) -> Vec<f64> {
        let mut advantages = Vec::new();
        let mut at = 0;
        for (i, answers) in micro.iter().enumerate() {
            let range = at..at + answers.completions.len();
            at = range.end;
            let log_ratios: Vec<f64> = range.clone().map(|j| policy[j] - reference[j]).collect();
            let returns: Vec<f64> = answers.rewards.iter().zip(&log_ratios).map(|(r, d)| r - kl * d).collect();
            match states.get(i) {
                Some(state) => {
                    let value = head.value(state);
                    advantages.extend(returns.iter().map(|r| r - value));
                    for r in &returns {
                        self.states.push(state.clone());
                        self.values.push(value);
                        self.targets.push(*r);
                    }
                }
                None => advantages.extend(leave_one_out(&returns)),
            }
            self.log_probs += policy[range].iter().sum::<f64>();
            self.tokens += answers.completions.iter().map(|c| c.len()).sum::<usize>();
            self.log_ratios.extend(log_ratios);
            self.returns.extend(returns);
        }
        self.advantages.extend(&advantages);
        advantages
    }

    /// TRL's names; all values are of the policy that drew the completions.
    fn report(&self, metrics: &mut Metrics) {
        if self.returns.is_empty() {
            return;
        }
        let mut put = |name: &str, value: f64| metrics.insert(name.into(), value);
        put("loss", self.loss);
        put("objective/kl", mean(&self.log_ratios));
        put("objective/entropy", -self.log_probs / self.tokens.max(1) as f64);
        put("objective/rlhf_reward", mean(&self.returns));
        put("advantages/mean", mean(&self.advantages));
        put("advantages/std", std(&self.advantages));
        put("tokens/trained", self.tokens as f64);
        if !self.values.is_empty() {
            let errors: Vec<f64> = self.targets.iter().zip(&self.values).map(|(t, v)| t - v).collect();
            let spread = std(&self.targets).powi(2);
            if spread > 1e-9 {
                put("value/explained_variance", 1.0 - std(&errors).powi(2) / spread);
            }
            put("value/loss", mean(&errors.iter().map(|e| e * e).collect::<Vec<_>>()));
        }
    }
}
