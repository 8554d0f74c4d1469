//! What a step of online training reports: TRL's names, and completions to read.

use super::experience::Batch;
use crate::Result;
use crate::decode::Completions;
use crate::reward::{Scores, known};
use crate::train::Trainer;
use crate::train::log::Metrics;
use motrain_core::Weights;
use motrain_core::metrics::stats::{mean, pearson, std};
use serde_json::json;

/// Means and spreads of the scores of a batch, as `steering/<objective>` the correlation between what was asked and what was got, and how far second
/// opinions disagree.
pub fn score_metrics(
    metrics: &mut Metrics,
    objectives: &[String],
    weights: &[Weights],
    completions: &Completions,
    scores: &Scores,
) {
    for (k, name) in objectives.iter().enumerate() {
        let column: Vec<f64> = scores.objectives.iter().flatten().map(|s| s[k]).collect();
        metrics.insert(format!("rewards/{name}/mean"), mean(&column));
        metrics.insert(format!("rewards/{name}/std"), std(&column));
        let asked: Vec<f64> = (0..scores.objectives.len())
            .filter(|&i| scores.objectives[i].is_some())
            .map(|i| weights[completions.prompt_of(i)].values()[k])
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
    scores.ensembles.iter().for_each(|ensemble| ensemble.report(metrics));
    let lengths: Vec<f64> = completions.iter().map(|c| c.tokens.len() as f64).collect();
    metrics.insert("completions/mean_length".into(), mean(&lengths));
    let finished = completions.iter().filter(|c| c.finished).count() as f64 / completions.len().max(1) as f64;
    metrics.insert("completions/eos_rate".into(), finished);
}

/// The mean weighted score, over completions that have all their scores.
pub fn mean_weighted(scores: &Scores, weights: &[Weights], completions: &Completions) -> f64 {
    let weighted = |(i, s): (usize, &Option<Vec<f64>>)| s.as_ref().map(|s| weights[completions.prompt_of(i)].dot(s));
    mean(&scores.objectives.iter().enumerate().filter_map(weighted).collect::<Vec<_>>())
}

/// Writes the completions of one prompt to completions.jsonl.
pub fn log_completions(t: &mut Trainer, slot: usize, batch: &Batch) -> Result<()> {
    let step = t.state.step + 1;
    let conditioned = t.tokenizer.render(&batch.conditioned[slot])?;
    let raw = &batch.scores.raw;
    for at in batch.completions.span(slot) {
        let completion = &batch.completions[at];
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
