//! What a step of online training reports: TRL's names, and completions to read.

use super::experience::Batch;
use crate::Result;
use crate::log::Metrics;
use crate::reward::{Scores, known};
use crate::rollout::Completion;
use crate::session::Trainer;
use motrain_core::Weights;
use motrain_core::loss::{PairBatch, PairLoss, PairwiseLoss};
use motrain_core::metrics::stats::{mean, pearson, std};
use serde_json::json;

/// What the pairs of a step add up to.
#[derive(Default)]
pub struct PairStats {
    loss: Vec<f64>,
    /// Log-ratios (nats) of the preferred and the other completion.
    chosen: Vec<f64>,
    rejected: Vec<f64>,
    logps_chosen: Vec<f64>,
    logps_rejected: Vec<f64>,
}

impl PairStats {
    pub fn add(&mut self, batch: &PairBatch, result: &PairLoss) {
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
        }
        self.loss.extend(&result.loss);
    }

    /// TRL's names. Values are those before the update: of the policy that drew the completions.
    pub fn report(&self, metrics: &mut Metrics, loss: &dyn PairwiseLoss) {
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
    }
}

/// Means and spreads of the scores of a batch, and as `steering/<objective>` the correlation between what was asked and what was got.
pub fn score_metrics(
    metrics: &mut Metrics,
    objectives: &[String],
    weights: &[Weights],
    completions: &[&Completion],
    scores: &Scores,
    per_prompt: usize,
) {
    for (k, name) in objectives.iter().enumerate() {
        let column: Vec<f64> = scores.objectives.iter().flatten().map(|s| s[k]).collect();
        metrics.insert(format!("rewards/{name}/mean"), mean(&column));
        metrics.insert(format!("rewards/{name}/std"), std(&column));
        let asked: Vec<f64> = (0..scores.objectives.len())
            .filter(|&i| scores.objectives[i].is_some())
            .map(|i| weights[i / per_prompt].values()[k])
            .collect();
        metrics.insert(format!("steering/{name}"), pearson(&asked, &column));
    }
    for (name, raw) in &scores.raw {
        let scored = known(raw);
        if scored.len() < raw.len() {
            metrics.insert(format!("rewards/{name}/unscored"), (raw.len() - scored.len()) as f64);
        }
        if !objectives.contains(name) {
            metrics.insert(format!("watch/{name}/mean"), mean(&scored));
        }
    }
    let lengths: Vec<f64> = completions.iter().map(|c| c.tokens.len() as f64).collect();
    metrics.insert("completions/mean_length".into(), mean(&lengths));
    let finished = completions.iter().filter(|c| c.finished).count() as f64 / completions.len().max(1) as f64;
    metrics.insert("completions/eos_rate".into(), finished);
}

/// The mean weighted score, over completions that have all their scores.
pub fn mean_weighted(scores: &Scores, weights: &[Weights], per_prompt: usize) -> f64 {
    let weighted = |(i, s): (usize, &Option<Vec<f64>>)| s.as_ref().map(|s| weights[i / per_prompt].dot(s));
    mean(&scores.objectives.iter().enumerate().filter_map(weighted).collect::<Vec<_>>())
}

/// Writes the completions of one prompt to completions.jsonl.
pub fn log_completions(t: &mut Trainer, slot: usize, batch: &Batch) -> Result<()> {
    let step = t.state.step + 1;
    let conditioned = t.text.render(&batch.conditioned[slot])?;
    let raw = &batch.scores.raw;
    for (i, completion) in batch.completions[slot].iter().enumerate() {
        let at = slot * batch.completions[slot].len() + i;
        let fields = json!({
            "conditioned_prompt": conditioned,
            "weights": batch.weights[slot],
            "completion": completion.text,
            "finished": completion.finished,
            "scores": batch.scores.objectives[at],
            "raw": raw.iter().map(|(k, v)| (k.clone(), v[at])).collect::<std::collections::BTreeMap<_, _>>(),
        });
        let serde_json::Value::Object(map) = fields else { continue };
        t.log.completion(step, map)?;
    }
    Ok(())
}
