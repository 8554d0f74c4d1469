//! MO-ODPO (paper Algorithm 1) and its relatives. Per prompt: sample weights, write them into the prompt, draw completions from the
//! current policy, score them, label a pair, and move the policy by a pairwise loss against the frozen initial policy.

use super::drawn::{Drawn, LogProbs, Moved};
use super::experience::{Batch, Experience};
use super::online::Online;
use super::step_report::PairStats;
use super::{Makes, Ref, Work};
use crate::log::Metrics;
use crate::logprob::to_vec;
use crate::model::Llama;
use crate::plan::Component;
use crate::session::Cx;
use crate::{Error, Result};
use motrain_core::label::{LabelRule, surest};
use motrain_core::loss::{PairBatch, PairLoss, PairwiseLoss};
use motrain_core::options::{Checked, Options};
use motrain_core::registry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Instant;
use tch::{Kind, Tensor};

/// MO-ODPO (paper Algorithm 1) and its relatives: online pairs under sampled weights. Of more than two completions, the pair that the label
/// rule is surest of is trained on: the best against the worst where its labels are hard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OnlinePreference {
    #[serde(flatten)]
    pub online: Online,
    pub label: Component,
    pub loss: Component,
}

impl Options for OnlinePreference {
    fn check(&self) -> Checked {
        if self.online.completions < 2 {
            return Err(("completions", format!("must be at least 2, not {}", self.online.completions)));
        }
        self.online.check()
    }
}

impl Work for OnlinePreference {
    const KIND: &'static str = "online_preference";
    const REVISION: u32 = 2;

    fn refs(&mut self) -> Vec<Ref<'_>> {
        let own = [
            Ref::Component(registry::Kind::Label, &mut self.label),
            Ref::Component(registry::Kind::Loss, &mut self.loss),
        ];
        self.online.refs().into_iter().chain(own).collect()
    }

    fn makes(&self) -> &'static [Makes] {
        &[Makes::Policy]
    }

    fn run(&self, stage: Cx) -> Result<()> {
        run(stage, self)
    }
}

/// A labelled pair: its two completions, and what rule and loss know of them.
struct Pair<'a> {
    drawn: Drawn<'a>,
    label: f64,
    weights: &'a [f64],
    margins: Vec<f64>,
}

fn run(stage: Cx, spec: &OnlinePreference) -> Result<()> {
    let session = stage.session;
    let rule = session.registry.labels.build(&spec.label.name, &spec.label.options)?;
    let loss = session.registry.losses.build(&spec.loss.name, &spec.loss.options)?;
    let (experience, log_probs, mut t) = Experience::start(stage, &spec.online)?;

    t.run(|t| {
        let (mut metrics, mut timings) = (Metrics::new(), Metrics::new());
        experience.feedback(t, &mut timings)?;
        let batch = experience.draw(t, &mut metrics, &mut timings)?;

        let clock = Instant::now();
        let (mut pairs, rest) = label(&batch, rule.as_ref(), &mut metrics)?;
        timings.insert("components/label/seconds".into(), clock.elapsed().as_secs_f64());

        // One update of the pairwise loss.
        let clock = Instant::now();
        let mut moved = Moved::default();
        pairs.sort_by_key(|p| p.drawn.length());
        let loss_seconds =
            accumulate(&t.model, session.kind, &log_probs, loss.as_ref(), &pairs, &mut moved, &mut metrics)?;
        timings.insert("components/loss/seconds".into(), loss_seconds);
        log_probs.measure(&t.model, session.kind, rest, &mut moved)?;
        moved.report(&mut metrics);
        if pairs.is_empty() {
            tracing::warn!("step {}: every pair was a tie or identical; nothing to learn from", t.state.step + 1);
        } else {
            t.update(&mut metrics)?;
        }
        timings.insert("update_seconds".into(), clock.elapsed().as_secs_f64());
        experience.finish_step(t, &batch, &metrics, timings)
    })?;
    t.finish()?;
    experience.save_steering()
}

/// A labelled pair of each prompt, and all completions that are in none. Ties and identical completions teach nothing and are counted.
fn label<'a>(batch: &'a Batch, rule: &dyn LabelRule, metrics: &mut Metrics) -> Result<(Vec<Pair<'a>>, Vec<Drawn<'a>>)> {
    let (mut pairs, mut rest) = (Vec::new(), Vec::new());
    let (mut ties, mut identical, mut unscored) = (0usize, 0usize, 0usize);
    for (slot, completions) in batch.completions.iter().enumerate() {
        let (all, weights) = (batch.scores_of(slot), &batch.weights[slot]);
        let scored: Vec<usize> = (0..completions.len()).filter(|&i| all[i].is_some()).collect();
        let own: Vec<Vec<f64>> = all.iter().flatten().cloned().collect();
        let every = (0..own.len()).flat_map(|a| (a + 1..own.len()).map(move |b| (a, b)));
        let differ = |&(a, b): &(usize, usize)| completions[scored[a]].tokens != completions[scored[b]].tokens;
        let different: Vec<(usize, usize)> = every.filter(differ).collect();
        let found = surest(rule, weights, &own, different.iter().copied())?;
        match found {
            Some(pair) => pairs.push(Pair {
                drawn: batch.drawn(slot, [scored[pair.first], scored[pair.second]]),
                label: pair.label,
                weights: weights.values(),
                margins: own[pair.first].iter().zip(&own[pair.second]).map(|(x, y)| x - y).collect(),
            }),
            None if own.len() < 2 => unscored += 1,
            None if different.is_empty() => identical += 1,
            None => ties += 1,
        }
        let used = found.map(|p| [scored[p.first], scored[p.second]]);
        let left = (0..completions.len()).filter(|i| used.is_none_or(|pair| !pair.contains(i)));
        rest.push(batch.drawn(slot, left));
    }
    metrics.insert("pairs/ties".into(), ties as f64);
    metrics.insert("pairs/identical".into(), identical as f64);
    if unscored > 0 {
        metrics.insert("pairs/unscored".into(), unscored as f64);
    }
    metrics.insert("pairs/trained".into(), pairs.len() as f64);
    metrics.insert("tokens/trained".into(), pairs.iter().map(|p| p.drawn.trained()).sum::<usize>() as f64);
    Ok((pairs, rest))
}

/// Adds up the gradient of the mean loss, and reports it. Returns the seconds that the loss itself took.
fn accumulate(
    model: &Llama,
    kind: Kind,
    log_probs: &LogProbs,
    loss: &dyn PairwiseLoss,
    pairs: &[Pair],
    moved: &mut Moved,
    metrics: &mut Metrics,
) -> Result<f64> {
    let (mut seconds, mut done) = (0.0, PairStats::default());
    for micro in pairs.chunks(log_probs.spec.train.micro_batch_size) {
        let drawn: Vec<&Drawn> = micro.iter().map(|p| &p.drawn).collect();
        let reference = log_probs.reference(&drawn)?;
        let sums = log_probs.policy(&model.net(kind)?, &drawn)?;
        let policy = to_vec(&sums)?;
        moved.add(&policy, &reference);
        let batch = pair_batch(micro, &policy, &reference);
        let clock = Instant::now();
        let result = loss.evaluate(&batch)?;
        seconds += clock.elapsed().as_secs_f64();
        surrogate(&sums, &result, pairs.len() as f64)?.f_backward()?;
        done.add(&batch, &result);
    }
    done.report(metrics, loss);
    Ok(seconds)
}

/// The loss sees numbers only; sums lie as first, second, first, second …
fn pair_batch(pairs: &[Pair], policy: &[f64], reference: &[f64]) -> PairBatch {
    let pick = |x: &[f64], offset: usize| x.iter().skip(offset).step_by(2).copied().collect::<Vec<f64>>();
    let tokens = |which: usize| pairs.iter().map(|p| p.drawn.completions[which].len() as u32).collect();
    PairBatch {
        policy_first: pick(policy, 0),
        policy_second: pick(policy, 1),
        reference_first: pick(reference, 0),
        reference_second: pick(reference, 1),
        tokens_first: tokens(0),
        tokens_second: tokens(1),
        label: pairs.iter().map(|p| p.label).collect(),
        weights: pairs.iter().flat_map(|p| p.weights.to_vec()).collect(),
        margins: pairs.iter().flat_map(|p| p.margins.clone()).collect(),
    }
}

/// `Σ g₊·logp₊ + g₋·logp₋` over the batch, divided by its size, with `g` detached: its gradient is the loss's.
fn surrogate(sums: &Tensor, loss: &PairLoss, share: f64) -> Result<Tensor> {
    let g: Vec<f32> = loss.d_first.iter().zip(&loss.d_second).flat_map(|(a, b)| [*a as f32, *b as f32]).collect();
    if let Some(bad) = g.iter().find(|g| !g.is_finite()) {
        return Err(Error::invalid(format!("the loss gave the derivative {bad}; the last checkpoint is kept")));
    }
    let g = Tensor::f_from_slice(&g)?.f_to_device(sums.device())?;
    Ok(sums.f_mul(&g)?.f_sum(Kind::Float)?.f_div_scalar(share)?)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::model::{Config, Head};
    use motrain_core::Registry;
    use serde_json::json;
    use tch::{Device, no_grad};

    fn model(seed: u64, head: Head) -> Llama {
        let config = Config {
            vocab_size: 11,
            hidden_size: 16,
            intermediate_size: 24,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 4,
            context: 32,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            bos: None,
            eos: vec![0],
            pad: None,
            head,
        };
        let mut model = Llama::init(config, seed, Device::Cpu).unwrap();
        for (_, p) in model.params.iter_mut().filter(|(_, p)| p.dim() > 1) {
            *p = p.f_mul_scalar(10.0).unwrap();
        }
        model
    }

    fn pair<'a>(tokens: [&'a [u32]; 3], label: f64) -> Pair<'a> {
        let drawn = Drawn { conditioned: tokens[0], plain: tokens[0], completions: tokens[1..].to_vec() };
        Pair { drawn, label, weights: &[0.5, 0.5], margins: vec![0.1, 0.2] }
    }

    /// The gradient that a step adds up, in micro-batches, is that of the mean loss: along each parameter's own gradient, finite differences
    /// give its norm. A tied head adds to the embedding's gradient.
    #[test]
    fn the_gradient_equals_finite_differences() {
        let loss = Registry::builtin().losses.build("dpo", &json!({ "beta": 0.3 })).unwrap();
        let spec: Online = serde_json::from_value(json!({
            "policy": "p", "prompts": { "paths": ["x"] }, "rewards": "r", "sampler": { "name": "fixed" },
            "conditioner": { "name": "none" }, "train": { "micro_batch_size": 2 }, "generate": { "temperature": 0.8 },
        }))
        .unwrap();
        let pairs = [
            pair([&[1, 2, 3], &[4, 5, 0], &[6, 0]], 1.0),
            pair([&[3], &[7, 8, 9, 10], &[1, 1, 0]], 0.0),
            pair([&[9, 2], &[5, 0], &[2, 3, 4]], 0.7),
        ];
        for head in [Head::TiedLm, Head::Lm] {
            let reference = model(2, head).net(Kind::Float).unwrap();
            let log_probs = LogProbs { reference, spec: &spec, pad: 0 };
            let mean_loss = |model: &Llama| {
                let drawn: Vec<&Drawn> = pairs.iter().map(|p| &p.drawn).collect();
                let sums = no_grad(|| log_probs.policy(&model.net(Kind::Float).unwrap(), &drawn)).unwrap();
                let batch = pair_batch(&pairs, &to_vec(&sums).unwrap(), &log_probs.reference(&drawn).unwrap());
                loss.evaluate(&batch).unwrap().loss.iter().sum::<f64>() / pairs.len() as f64
            };
            let mut trained = model(1, head);
            trained.require_grad().unwrap();
            let (mut moved, mut metrics) = (Moved::default(), Metrics::new());
            accumulate(&trained, Kind::Float, &log_probs, loss.as_ref(), &pairs, &mut moved, &mut metrics).unwrap();
            assert!((metrics["loss"] - mean_loss(&trained)).abs() < 1e-6);
            for (i, (name, p)) in trained.params.iter().enumerate() {
                let gradient = p.grad();
                let norm = f64::try_from(gradient.square().sum(Kind::Double).sqrt()).unwrap();
                let step = 2e-2;
                let at = |sign: f64| {
                    let mut there = trained.frozen_copy().unwrap();
                    there.params[i].1 = no_grad(|| p.detach() + &gradient * (sign * step / norm));
                    mean_loss(&there)
                };
                let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
                assert!(
                    (slope - norm).abs() < 0.01 * norm + 1e-4,
                    "{head:?} {name}: {slope} by differences, {norm} by backward"
                );
            }
        }
    }
}
