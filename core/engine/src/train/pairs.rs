//! One update on pairs: two completions of a prompt, and how likely the first is the better one. They may be drawn from the current policy, or
//! read from a file.

use super::drawn::{Drawn, LogProbs, Moved, surrogate};
use super::log::Metrics;
use super::logprob::to_vec;
use super::trainer::Trainer;
use crate::model::Net;
use crate::{Error, Result};
use motrain_core::loss::{PairBatch, PairLoss, PairwiseLoss};
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
}

impl<'a> PairStep<'a> {
    pub fn new(log_probs: &'a LogProbs, loss: &'a dyn PairwiseLoss) -> Self {
        Self { log_probs, loss, moved: Moved::default(), seconds: 0.0, done: Done::default() }
    }

    /// Moves the policy by the gradient of the pairs' mean loss, and reports it.
    pub fn train(&mut self, t: &mut Trainer, pairs: &mut [TokenPair]) -> Result<Metrics> {
        pairs.sort_by_key(|p| p.drawn.length());
        let micros = self.log_probs.train.micro_batches(pairs, |p| p.drawn.length());
        let mut metrics = t.step(micros, pairs.len(), |net, micro| self.sum(net, micro))?;
        self.done.report(&mut metrics, self.loss);
        metrics.insert("pairs/trained".into(), pairs.len() as f64);
        metrics.insert("tokens/trained".into(), pairs.iter().map(|p| p.drawn.trained()).sum::<usize>() as f64);
        Ok(metrics)
    }

    /// What has the gradient of the losses' sum.
    fn sum(&mut self, net: &Net, pairs: &[TokenPair]) -> Result<Tensor> {
        let drawn: Vec<&Drawn> = pairs.iter().map(|p| &p.drawn).collect();
        let reference = self.log_probs.reference(&drawn)?;
        let sums = self.log_probs.policy(net, &drawn)?;
        let policy = to_vec(&sums)?;
        self.moved.add(&policy, &reference);
        let batch = pair_batch(pairs, &policy, &reference);
        let clock = Instant::now();
        let result = self.loss.evaluate(&batch)?;
        self.seconds += clock.elapsed().as_secs_f64();
        if let Some(bad) = result.loss.iter().find(|loss| !loss.is_finite()) {
            return Err(Error::invalid(format!("the loss of a pair is {bad}; the last checkpoint is kept")));
        }
        self.done.add(&batch, &result);
        let derivatives = result.d_first.iter().zip(&result.d_second).flat_map(|(a, b)| [*a, *b]);
        surrogate(&sums, &derivatives.collect::<Vec<f64>>())
    }
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
    }
}

/// The loss sees numbers only; sums lie as first, second, first, second …
fn pair_batch(pairs: &[TokenPair], policy: &[f64], reference: &[f64]) -> PairBatch {
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

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may panic")]
mod tests {
    use super::super::comm::{Comm, Local};
    use super::super::optim::{Params, zero_gradients};
    use super::super::trainer::accumulate;
    use super::*;
    use crate::model::{Head, LlamaSizes, Model};
    use crate::plan::Training;
    use motrain_core::Registry;
    use serde_json::json;
    use tch::{Device, Kind, no_grad};

    fn model(seed: u64, head: Head) -> Model {
        let sizes = LlamaSizes {
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
        let mut model = Model::init(sizes.config().unwrap(), seed, Device::Cpu).unwrap();
        for (_, p) in model.params.iter_mut().filter(|(_, p)| p.dim() > 1) {
            *p = p.f_mul_scalar(10.0).unwrap();
        }
        model
    }

    fn pair<'a>(tokens: [&'a [u32]; 3], label: f64) -> TokenPair<'a> {
        let drawn = Drawn { gains: &[], conditioned: tokens[0], plain: tokens[0], completions: tokens[1..].to_vec() };
        TokenPair { drawn, label, weights: &[0.5, 0.5], margins: vec![0.1, 0.2] }
    }

    fn pairs() -> [TokenPair<'static>; 3] {
        [
            pair([&[1, 2, 3], &[4, 5, 0], &[6, 0]], 1.0),
            pair([&[3], &[7, 8, 9, 10], &[1, 1, 0]], 0.0),
            pair([&[9, 2], &[5, 0], &[2, 3, 4]], 0.7),
        ]
    }

    fn log_probs(head: Head) -> LogProbs {
        let reference = model(2, head).net(Kind::Float).unwrap();
        LogProbs { reference, temperature: 0.8, reference_sees_weights: true, train: Training::default(), pad: 0 }
    }

    /// The gradient that a step adds up, in micro-batches, is that of the mean loss: along each parameter's own gradient, finite differences
    /// give its norm. A tied head adds to the embedding's gradient.
    #[test]
    fn the_gradient_equals_finite_differences() {
        let loss = Registry::builtin().losses.build("dpo", &json!({ "beta": 0.3 })).unwrap();
        let pairs = pairs();
        for head in [Head::TiedLm, Head::Lm] {
            let log_probs = log_probs(head);
            let mean_loss = |model: &Model| {
                let drawn: Vec<&Drawn> = pairs.iter().map(|p| &p.drawn).collect();
                let sums = no_grad(|| log_probs.policy(&model.net(Kind::Float).unwrap(), &drawn)).unwrap();
                let batch = pair_batch(&pairs, &to_vec(&sums).unwrap(), &log_probs.reference(&drawn).unwrap());
                loss.evaluate(&batch).unwrap().loss.iter().sum::<f64>() / pairs.len() as f64
            };
            let mut trained = model(1, head);
            trained.require_grad().unwrap();
            let mut step = PairStep::new(&log_probs, loss.as_ref());
            accumulate(
                &trained,
                || trained.net(Kind::Float),
                &Local,
                pairs.chunks(2),
                pairs.len(),
                |net, micro| step.sum(net, micro),
            )
            .unwrap();
            assert!((mean(&step.done.loss) - mean_loss(&trained)).abs() < 1e-6);
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

    /// The masters' cast is part of every micro-batch's graph: gradients of computing in bf16 are those of networks of their own.
    #[test]
    fn one_network_serves_all_micro_batches() {
        let (pairs, log_probs) = (pairs(), log_probs(Head::TiedLm));
        let loss = Registry::builtin().losses.build("dpo", &json!({ "beta": 0.3 })).unwrap();
        let mut trained = model(1, Head::TiedLm);
        trained.require_grad().unwrap();
        let gradients = || {
            let all: Vec<Tensor> = trained.params.iter().map(|(_, p)| p.grad().copy()).collect();
            zero_gradients(&trained.params).unwrap();
            all
        };
        let mut step = PairStep::new(&log_probs, loss.as_ref());
        let net = || trained.net(Kind::BFloat16);
        accumulate(&trained, net, &Local, pairs.chunks(1), pairs.len(), |net, micro| step.sum(net, micro)).unwrap();
        let once = gradients();
        for pair in pairs.chunks(1) {
            let sum = step.sum(&net().unwrap(), pair).unwrap();
            (sum / pairs.len() as f64).backward();
        }
        assert!(pairs.len() > 1 && once.iter().any(|g| g.abs().max().double_value(&[]) > 0.0));
        assert!(once.iter().zip(gradients()).all(|(a, b)| *a == b));
    }

    /// Another rank, which has the same pairs.
    struct Twin;

    impl Comm for Twin {
        fn sum(&self, numbers: &mut [f64]) -> Result<()> {
            numbers.iter_mut().for_each(|n| *n *= 2.0);
            Ok(())
        }

        fn sum_gradients(&self, params: &Params) -> Result<()> {
            params.iter().for_each(|(_, p)| drop(p.grad().f_mul_scalar_(2.0).unwrap()));
            Ok(())
        }
    }

    /// Counts, gradients and the reported loss are added up, each once: the mean over two ranks is that of one.
    #[test]
    fn ranks_with_the_same_pairs_move_as_one() {
        let (pairs, log_probs) = (pairs(), log_probs(Head::Lm));
        let loss = Registry::builtin().losses.build("dpo", &json!({ "beta": 0.3 })).unwrap();
        let mut trained = model(1, Head::Lm);
        trained.require_grad().unwrap();
        let told = |comm: &dyn Comm, pairs: &[TokenPair]| {
            let mut step = PairStep::new(&log_probs, loss.as_ref());
            let sum = |net: &Net, micro: &[TokenPair]| step.sum(net, micro);
            let mean =
                accumulate(&trained, || trained.net(Kind::Float), comm, pairs.chunks(2), pairs.len(), sum).unwrap();
            let gradients: Vec<Tensor> = trained.params.iter().map(|(_, p)| p.grad().copy()).collect();
            zero_gradients(&trained.params).unwrap();
            (mean, gradients)
        };
        let ((alone, one), (together, two)) = (told(&Local, &pairs), told(&Twin, &pairs));
        assert!(alone.is_some() && alone == together, "{alone:?}, of two ranks {together:?}");
        assert!(one.iter().zip(&two).all(|(a, b)| a == b), "two ranks have another gradient");
        assert_eq!(told(&Local, &[]).0, None, "without examples nothing moves");
    }
}
