//! MO-ODPO (paper Algorithm 1) and its relatives. Per prompt: sample weights, write them into the prompt, draw completions from the
//! current policy, score them, label a pair, and move the policy by a pairwise loss against the frozen initial policy.

use super::experience::{Batch, Experience};
use super::step_report::PairStats;
use crate::log::Metrics;
use crate::logprob::{Group, pack, to_vec};
use crate::model::Net;
use crate::session::Stage;
use crate::text::Text;
use crate::{Error, Result};
use motrain_core::label::{Label, LabelRule, extremes};
use motrain_core::loss::{PairBatch, PairLoss};
use motrain_core::plan::OnlinePreference;
use std::time::Instant;
use tch::{Kind, Tensor, no_grad};

/// Raised when this stage's results change.
pub const REVISION: u32 = 1;

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
    let rule = session.registry.labels.build(&spec.label.name, &spec.label.options)?;
    let loss = session.registry.losses.build(&spec.loss.name, &spec.loss.options)?;
    let (experience, reference, mut t) = Experience::start(stage, &spec.online)?;

    t.run(|t| {
        let (mut metrics, mut timings) = (Metrics::new(), Metrics::new());
        experience.feedback(t, &mut timings)?;
        let batch = experience.draw(t, &mut metrics, &mut timings)?;

        let clock = Instant::now();
        let mut pairs = label(&batch, rule.as_ref(), &t.text, &mut metrics)?;
        timings.insert("components/label/seconds".into(), clock.elapsed().as_secs_f64());

        // One update of the pairwise loss.
        let clock = Instant::now();
        let mut loss_seconds = 0.0;
        let mut done = PairStats::default();
        pairs.sort_by_key(|p| p.conditioned.len() + p.first.len() + p.second.len());
        let share = pairs.len().max(1) as f64;
        for micro in pairs.chunks(spec.online.train.micro_batch_size) {
            stage.obey()?;
            let reference_sums =
                no_grad(|| sums(&reference, micro, spec.online.reference_sees_weights, t.text.pad)?.as_vec())?;
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

/// A labelled pair of each prompt; ties and identical completions teach nothing and are counted.
fn label(batch: &Batch, rule: &dyn LabelRule, text: &Text, metrics: &mut Metrics) -> Result<Vec<Pair>> {
    let (mut pairs, mut ties, mut identical, mut unscored) = (Vec::new(), 0usize, 0usize, 0usize);
    for (slot, completions) in batch.completions.iter().enumerate() {
        let all = batch.scores_of(slot);
        let weights = &batch.weights[slot];
        let scored: Vec<usize> = (0..completions.len()).filter(|&i| all[i].is_some()).collect();
        let own: Vec<Vec<f64>> = all.iter().flatten().cloned().collect();
        if own.len() < 2 {
            unscored += 1;
            continue;
        }
        let (best, worst) = if own.len() == 2 { (0, 1) } else { extremes(weights, &own) };
        let (first, second) = (&completions[scored[best]], &completions[scored[worst]]);
        if first.tokens == second.tokens {
            identical += 1;
            continue;
        }
        let Label::First(label) = rule.label(weights, &own[best], &own[worst])? else {
            ties += 1;
            continue;
        };
        pairs.push(Pair {
            conditioned: batch.tokens[slot].clone(),
            plain: text.encode_prompt(&batch.rows[slot].prompt)?,
            first: first.tokens.clone(),
            second: second.tokens.clone(),
            label,
            weights: weights.values().to_vec(),
            margins: own[best].iter().zip(&own[worst]).map(|(x, y)| x - y).collect(),
        });
    }
    metrics.insert("pairs/ties".into(), ties as f64);
    metrics.insert("pairs/identical".into(), identical as f64);
    if unscored > 0 {
        metrics.insert("pairs/unscored".into(), unscored as f64);
    }
    metrics.insert("pairs/trained".into(), pairs.len() as f64);
    let tokens: usize = pairs.iter().map(|p| p.first.len() + p.second.len()).sum();
    metrics.insert("tokens/trained".into(), tokens as f64);
    Ok(pairs)
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
