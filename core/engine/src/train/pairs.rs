//! One update on pairs: two completions of a prompt, and how likely the first is the better one. They may be drawn from the current policy, or
//! read from a file.

use super::drawn::{Drawn, LogProbs, Moved, surrogate};
use super::log::Metrics;
use super::logprob::to_vec;
use super::trainer::Trainer;
use crate::model::Net;
use crate::{Error, Result};
use motrain_core::loss::{Other, PairBatch, PairLoss, PairwiseLoss};
use motrain_core::metrics::stats::mean;
use std::time::Instant;
use tch::Tensor;

/// A labelled pair: its prompt and two completions, and what the loss knows of them.
pub struct TokenPair<'a> {
    pub drawn: Drawn<'a>,
    /// The probability that the first is the better one.
    pub label: f64,
    pub weights: &'a [f64],
    /// Scaled score differences first − second, one per objective.
    pub margins: Vec<f64>,
    /// The prompt under other weights, for losses that ask for the completions' log-probs there.
    pub other: Option<&'a Elsewhere>,
}

/// A prompt under other weights than those that its completions were drawn at.
pub struct Elsewhere {
    pub conditioned: Vec<u32>,
    /// As in `Drawn`.
    pub gains: Vec<f64>,
}

impl<'a> TokenPair<'a> {
    /// The completions behind the prompt under other weights.
    fn elsewhere(&self) -> Option<Drawn<'a>> {
        let Drawn { plain, completions, room, .. } = &self.drawn;
        self.other.map(|Elsewhere { conditioned, gains }| Drawn {
            gains,
            room: *room,
            conditioned,
            plain,
            completions: completions.clone(),
            log_probs: vec![],
        })
    }

    /// All that pass through the policy.
    fn length(&self) -> usize {
        self.drawn.length() + self.elsewhere().map_or(0, |drawn| drawn.length())
    }

    fn trained(&self) -> usize {
        self.drawn.trained() * if self.other.is_some() { 2 } else { 1 }
    }
}

/// A step's pairs under way, and what they add up to.
pub struct PairStep<'a> {
    log_probs: &'a LogProbs,
    loss: &'a dyn PairwiseLoss,
    /// How far the policy has moved, over the completions of the pairs.
    pub moved: Moved,
    /// Seconds that the loss itself took.
    pub seconds: f64,
    done: Done,
}

/// One number per pair.
#[derive(Default)]
struct Done {
    loss: Vec<f64>,
    /// Log-ratios (nats) of the preferred and the other completion.
    chosen: Vec<f64>,
    rejected: Vec<f64>,
    logps_chosen: Vec<f64>,
    logps_rejected: Vec<f64>,
    /// Log-ratios (nats) of the preferred completion, less those under other weights.
    contrasts: Vec<f64>,
}

impl<'a> PairStep<'a> {
    pub fn new(log_probs: &'a LogProbs, loss: &'a dyn PairwiseLoss) -> Self {
        Self { log_probs, loss, moved: Moved::default(), seconds: 0.0, done: Done::default() }
    }

    /// Moves the policy by the gradient of the pairs' mean loss, and reports it.
    pub fn train(&mut self, t: &mut Trainer, pairs: &mut [TokenPair]) -> Result<Metrics> {
        pairs.sort_by_key(TokenPair::length);
        let micros = self.log_probs.train.micro_batches(pairs, TokenPair::length);
        let mut metrics = t.step(micros, pairs.len(), |net, micro| self.sum(net, micro))?;
        self.done.report(&mut metrics, self.loss);
        metrics.insert("pairs/trained".into(), pairs.len() as f64);
        metrics.insert("tokens/trained".into(), pairs.iter().map(TokenPair::trained).sum::<usize>() as f64);
        Ok(metrics)
    }

    /// What has the gradient of the losses' sum.
    fn sum(&mut self, net: &Net, pairs: &[TokenPair]) -> Result<Tensor> {
        let drawn: Vec<&Drawn> = pairs.iter().map(|p| &p.drawn).collect();
        let reference = self.log_probs.reference(&drawn)?;
        let told = self.log_probs.policy(net, &drawn)?;
        let policy = to_vec(&told.sums)?;
        self.moved.add(&policy, &reference);
        self.moved.add_drawing(&drawn, &told)?;
        let elsewhere = self.elsewhere(net, pairs, &reference)?;
        let (other, sums_of_other) = elsewhere.unzip();
        let batch = PairBatch { other, ..pair_batch(pairs, &policy, &reference) };
        let clock = Instant::now();
        let result = self.loss.evaluate(&batch)?;
        self.seconds += clock.elapsed().as_secs_f64();
        if let Some(bad) = result.loss.iter().find(|loss| !loss.is_finite()) {
            return Err(Error::invalid(format!("the loss of a pair is {bad}; the last checkpoint is kept")));
        }
        self.done.add(&batch, &result);
        let of_own = surrogate(&told.sums, &in_turn(&result.d_first, &result.d_second))?;
        match sums_of_other {
            Some(sums) => {
                Ok(of_own.f_add(&surrogate(&sums, &in_turn(&result.d_other_first, &result.d_other_second))?)?)
            }
            None => Ok(of_own),
        }
    }

    /// The pairs under other weights: numbers for the loss, and the policy's log-prob sums on the graph.
    fn elsewhere(&self, net: &Net, pairs: &[TokenPair], reference: &[f64]) -> Result<Option<(Other, Tensor)>> {
        let Some(drawn) = pairs.iter().map(TokenPair::elsewhere).collect::<Option<Vec<_>>>() else { return Ok(None) };
        let drawn: Vec<&Drawn> = drawn.iter().collect();
        let reference = match self.log_probs.reference_sees_weights {
            true => self.log_probs.reference(&drawn)?,
            false => reference.to_vec(),
        };
        let sums = self.log_probs.policy(net, &drawn)?.sums;
        let policy = to_vec(&sums)?;
        let other = Other {
            policy_first: every_second(&policy, 0),
            policy_second: every_second(&policy, 1),
            reference_first: every_second(&reference, 0),
            reference_second: every_second(&reference, 1),
        };
        Ok(Some((other, sums)))
    }
}

/// Sums lie as first, second, first, second …
fn every_second(sums: &[f64], offset: usize) -> Vec<f64> {
    sums.iter().skip(offset).step_by(2).copied().collect()
}

fn in_turn(first: &[f64], second: &[f64]) -> Vec<f64> {
    first.iter().zip(second).flat_map(|(a, b)| [*a, *b]).collect()
}

impl Done {
    fn add(&mut self, batch: &PairBatch, result: &PairLoss) {
        for i in 0..batch.len() {
            let first = batch.policy_first[i] - batch.reference_first[i];
            let second = batch.policy_second[i] - batch.reference_second[i];
            let swap = batch.label[i] < 0.5;
            let order = |a: f64, b: f64| if swap { (b, a) } else { (a, b) };
            let (chosen, rejected) = order(first, second);
            let (logp_chosen, logp_rejected) = order(batch.policy_first[i], batch.policy_second[i]);
            self.chosen.push(chosen);
            self.rejected.push(rejected);
            self.logps_chosen.push(logp_chosen);
            self.logps_rejected.push(logp_rejected);
            let there = batch.other.as_ref().map(|other| other.log_ratios(i));
            self.contrasts.extend(there.map(|there| chosen - order(there[0], there[1]).0));
        }
        self.loss.extend(&result.loss);
    }

    /// TRL's names. Values are those before the update: of the policy that drew the completions.
    fn report(&self, metrics: &mut Metrics, loss: &dyn PairwiseLoss) {
        if self.loss.is_empty() {
            return;
        }
        let beta = loss.beta();
        let margins: Vec<f64> = self.chosen.iter().zip(&self.rejected).map(|(c, r)| c - r).collect();
        let wins = margins.iter().filter(|m| **m > 0.0).count() as f64 / margins.len() as f64;
        let mut put = |name: &str, value: f64| metrics.insert(name.into(), value);
        put("loss", mean(&self.loss));
        put("rewards/chosen", beta * mean(&self.chosen));
        put("rewards/rejected", beta * mean(&self.rejected));
        put("rewards/margins", beta * mean(&margins));
        put("rewards/accuracies", wins);
        put("logps/chosen", mean(&self.logps_chosen));
        put("logps/rejected", mean(&self.logps_rejected));
        if !self.contrasts.is_empty() {
            let told = self.contrasts.iter().filter(|nats| **nats > 0.0).count() as f64;
            put("contrast/margins", mean(&self.contrasts));
            put("contrast/accuracies", told / self.contrasts.len() as f64);
        }
    }
}

/// The loss sees numbers only.
fn pair_batch(pairs: &[TokenPair], policy: &[f64], reference: &[f64]) -> PairBatch {
    let tokens = |which: usize| pairs.iter().map(|p| p.drawn.completions[which].len() as u32).collect();
    PairBatch {
        policy_first: every_second(policy, 0),
        policy_second: every_second(policy, 1),
        reference_first: every_second(reference, 0),
        reference_second: every_second(reference, 1),
        tokens_first: tokens(0),
        tokens_second: tokens(1),
        label: pairs.iter().map(|p| p.label).collect(),
        weights: pairs.iter().flat_map(|p| p.weights.to_vec()).collect(),
        margins: pairs.iter().flat_map(|p| p.margins.clone()).collect(),
        other: None,
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may panic")]
mod tests;
