//! REINFORCE with a control variate. Each completion's return is its weighted reward minus the KL to the initial policy (summed over
//! the completion); what a baseline did not expect of it moves the log-prob of the whole completion.

use super::experience::{Batch, Experience};
use super::online::Online;
use super::{Makes, Ref, Work};
use crate::Result;
use crate::model::Net;
use crate::session::Cx;
use crate::train::log::Metrics;
use crate::train::logprob::to_vec;
use crate::train::{Drawn, LogProbs, Moved, surrogate};
use motrain_core::advantage::{ValueHead, leave_one_out};
use motrain_core::metrics::stats::{mean, std};
use motrain_core::options::{Checked, Options};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Instant;
use tch::Tensor;

/// REINFORCE on the weighted sum of rewards minus a KL penalty: P-MORL with sampled weights in the prompt, MORLHF and specialists with
/// fixed weights and no conditioner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reinforce {
    #[serde(flatten)]
    pub online: Online,
    /// The control variate: "value" is a linear head on the policy's state at the end of x'; "rloo" the mean of a prompt's other
    /// completions.
    #[serde(default)]
    pub baseline: Baseline,
    /// Step size of the value head, as a share of what would fit a batch's mean error at once.
    #[serde(default = "value_rate")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub value_rate: f64,
    /// Weight of the KL to the initial policy (nats, summed over a completion) in the reward: what β is to `online_preference`.
    #[serde(default = "kl")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub kl: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Baseline {
    #[default]
    Value,
    Rloo,
}

fn value_rate() -> f64 {
    0.5
}

fn kl() -> f64 {
    0.01
}

impl Options for Reinforce {
    fn check(&self) -> Checked {
        let least = if self.baseline == Baseline::Rloo { 2 } else { 1 };
        if self.online.completions < least {
            return Err(("completions", format!("must be at least {least}, not {}", self.online.completions)));
        }
        self.online.check()
    }
}

impl Work for Reinforce {
    const KIND: &'static str = "reinforce";
    const REVISION: u32 = 3;

    fn refs(&mut self) -> Vec<Ref<'_>> {
        self.online.refs()
    }

    fn makes(&self) -> &'static [Makes] {
        &[Makes::Policy]
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }
}

/// The scored completions of a prompt, and their weighted rewards.
struct Answers<'a> {
    drawn: Drawn<'a>,
    rewards: Vec<f64>,
}

/// What the micro-batches of a step add up to.
#[derive(Default)]
struct Done {
    returns: Vec<f64>,
    advantages: Vec<f64>,
    tokens: usize,
    moved: Moved,
    /// What the value head saw, and should have said; and what it said, unless this is its first batch.
    states: Vec<Vec<f64>>,
    targets: Vec<f64>,
    values: Vec<f64>,
}

fn run(stage: Cx, spec: &Reinforce) -> Result<()> {
    let (experience, log_probs, mut t) = Experience::start(stage, &spec.online)?;

    t.run(|t| {
        let (mut metrics, mut timings) = (Metrics::new(), Metrics::new());
        experience.feedback(t, &mut timings)?;
        let batch = experience.draw(t, &mut metrics, &mut timings)?;

        let clock = Instant::now();
        let mut head = t.state.value.take().unwrap_or_default();
        let (mut answers, rest) = scored(&batch, spec);
        answers.sort_by_key(|a| a.drawn.length());
        let rest = log_probs.measure(&t.model, stage.session.kind, rest)?;
        let rewards: Vec<f64> = answers.iter().flat_map(|a| a.rewards.iter().copied()).collect();
        let control = Control { head: &head, batch: &rewards };
        let mut done = Done::default();
        let micros = answers.chunks(log_probs.micro_batch_size);
        metrics.extend(t.step(micros, rewards.len(), |net, micro| done.sum(net, micro, &log_probs, spec, &control))?);
        done.moved.extend(rest);
        done.report(&mut metrics);
        if spec.baseline == Baseline::Value {
            head.fit(&done.states, &done.targets, spec.value_rate);
            t.state.value = Some(head);
        }
        if done.returns.is_empty() {
            tracing::warn!("step {}: no prompt has enough scores; nothing to learn from", t.state.step + 1);
        }
        timings.insert("update_seconds".into(), clock.elapsed().as_secs_f64());
        experience.finish_step(t, &batch, &metrics, timings)
    })?;
    t.finish()?;
    experience.save_steering()
}

/// The completions that have all scores, of prompts with enough of them (leave-one-out needs two); and all others.
fn scored<'a>(batch: &'a Batch, spec: &Reinforce) -> (Vec<Answers<'a>>, Vec<Drawn<'a>>) {
    let least = if spec.baseline == Baseline::Rloo { 2 } else { 1 };
    let (mut answers, mut rest) = (Vec::new(), Vec::new());
    for slot in 0..batch.rows.len() {
        let scores = batch.scores_of(slot);
        let (mut with, mut without): (Vec<usize>, Vec<usize>) = (0..scores.len()).partition(|&i| scores[i].is_some());
        if with.len() < least {
            without.append(&mut with);
        }
        if !with.is_empty() {
            let rewards = with.iter().flat_map(|&i| &scores[i]).map(|s| batch.weights[slot].dot(s)).collect();
            answers.push(Answers { drawn: batch.drawn(slot, with), rewards });
        }
        rest.push(batch.drawn(slot, without));
    }
    (answers, rest)
}

/// The value head; before its first fit, the mean reward of the batch's other completions, so that the first step has a baseline too.
struct Control<'a> {
    head: &'a ValueHead,
    batch: &'a [f64],
}

impl Control<'_> {
    fn expected(&self, state: &[f64], reward: f64) -> f64 {
        let others = self.batch.len().saturating_sub(1);
        match self.head.is_fitted() {
            true => self.head.value(state),
            false if others == 0 => 0.0,
            false => (self.batch.iter().sum::<f64>() - reward) / others as f64,
        }
    }
}

impl Done {
    /// What has the gradient of `−Σ A·log π`.
    fn sum(
        &mut self,
        net: &Net,
        micro: &[Answers],
        log_probs: &LogProbs,
        spec: &Reinforce,
        control: &Control,
    ) -> Result<Tensor> {
        let drawn: Vec<&Drawn> = micro.iter().map(|a| &a.drawn).collect();
        let reference = log_probs.reference(&drawn)?;
        let (sums, states) = match spec.baseline {
            Baseline::Value => log_probs.policy_and_states(net, &drawn)?,
            Baseline::Rloo => (log_probs.policy(net, &drawn)?, vec![]),
        };
        let policy = to_vec(&sums)?;
        self.moved.add(&policy, &reference);
        let log_ratios: Vec<f64> = policy.iter().zip(&reference).map(|(p, r)| p - r).collect();
        let advantages = self.add(micro, spec.kl, &log_ratios, states, control);
        surrogate(&sums, &advantages.iter().map(|a| -a).collect::<Vec<f64>>())
    }

    /// Returns the advantages of a micro-batch. `states` is empty without a value head.
    fn add(
        &mut self,
        micro: &[Answers],
        kl: f64,
        log_ratios: &[f64],
        states: Vec<Vec<f64>>,
        control: &Control,
    ) -> Vec<f64> {
        let mut advantages = Vec::new();
        let mut log_ratios = log_ratios.iter();
        for (i, answers) in micro.iter().enumerate() {
            let returns: Vec<f64> = answers.rewards.iter().zip(&mut log_ratios).map(|(r, d)| r - kl * d).collect();
            match states.get(i) {
                Some(state) => {
                    for (r, reward) in returns.iter().zip(&answers.rewards) {
                        let expected = control.expected(state, *reward);
                        advantages.push(r - expected);
                        self.states.push(state.clone());
                        self.targets.push(*r);
                        if control.head.is_fitted() {
                            self.values.push(expected);
                        }
                    }
                }
                None => advantages.extend(leave_one_out(&returns)),
            }
            self.tokens += answers.drawn.trained();
            self.returns.extend(returns);
        }
        self.advantages.extend(&advantages);
        advantages
    }

    /// TRL's names; all values are of the policy that drew the completions.
    fn report(&self, metrics: &mut Metrics) {
        self.moved.report(metrics);
        if self.returns.is_empty() {
            return;
        }
        let mut put = |name: &str, value: f64| metrics.insert(name.into(), value);
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
