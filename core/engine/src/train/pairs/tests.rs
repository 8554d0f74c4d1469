//! The gradient of a step on pairs is that of its loss.

use super::*;
use crate::model::{Head, LlamaSizes, Model};
use crate::optim::{Params, zero_gradients};
use crate::train::comm::{Comm, Local};
use crate::train::trainer::accumulate;
use motrain_core::Registry;
use motrain_core::loss::InfoNce;
use motrain_core::plan::Training;
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
    let drawn = Drawn {
        gains: &[],
        room: 0,
        conditioned: tokens[0],
        plain: tokens[0],
        completions: tokens[1..].to_vec(),
        log_probs: vec![],
    };
    TokenPair { drawn, label, weights: &[0.5, 0.5], margins: vec![0.1, 0.2], other: None }
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

/// Along each parameter's own gradient, finite differences of the loss give its norm.
#[track_caller]
fn by_differences(trained: &Model, loss: impl Fn(&Model) -> f64) {
    for (i, (name, p)) in trained.params.iter().enumerate() {
        let gradient = p.grad();
        let norm = f64::try_from(gradient.square().sum(Kind::Double).sqrt()).unwrap();
        let step = 2e-2;
        let at = |sign: f64| {
            let mut there = trained.frozen_copy().unwrap();
            there.params[i].1 = no_grad(|| p.detach() + &gradient * (sign * step / norm));
            loss(&there)
        };
        let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
        let head = trained.config.head;
        assert!(
            (slope - norm).abs() < 0.01 * norm + 1e-4,
            "{head:?} {name}: {slope} by differences, {norm} by backward"
        );
    }
}

/// The gradient that a step adds up, in micro-batches, is that of the mean loss. A tied head adds to the embedding's gradient.
#[test]
fn the_gradient_equals_finite_differences() {
    let loss = Registry::builtin().losses.build("dpo", &json!({ "beta": 0.3 })).unwrap();
    let pairs = pairs();
    for head in [Head::TiedLm, Head::Lm] {
        let log_probs = log_probs(head);
        let mean_loss = |model: &Model| {
            let drawn: Vec<&Drawn> = pairs.iter().map(|p| &p.drawn).collect();
            let sums = no_grad(|| log_probs.policy(&model.net(Kind::Float).unwrap(), &drawn)).unwrap().sums;
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
        by_differences(&trained, mean_loss);
    }
}

/// The same of the term of InfoNCE, whose anchor, the log-prob where the completion was drawn, stands still.
#[test]
fn the_gradient_by_other_weights_equals_finite_differences() {
    let dpo = || Registry::builtin().losses.build("dpo", &json!({ "beta": 0.3 })).unwrap();
    let loss = InfoNce::new(dpo(), 0.7);
    let others = [vec![1, 5, 3], vec![8, 2, 2], vec![9]].map(|conditioned| Elsewhere { conditioned, gains: vec![] });
    let mut pairs = pairs();
    pairs.iter_mut().zip(&others).for_each(|(pair, other)| pair.other = Some(other));
    for reference_sees_weights in [true, false] {
        let log_probs = LogProbs { reference_sees_weights, ..log_probs(Head::Lm) };
        let step = PairStep::new(&log_probs, &loss);
        let batch = |model: &Model| {
            let drawn: Vec<&Drawn> = pairs.iter().map(|p| &p.drawn).collect();
            let net = no_grad(|| model.net(Kind::Float)).unwrap();
            let sums = no_grad(|| log_probs.policy(&net, &drawn)).unwrap().sums;
            let reference = log_probs.reference(&drawn).unwrap();
            let other = no_grad(|| step.elsewhere(&net, &pairs, &reference)).unwrap().map(|(other, _)| other);
            PairBatch { other, ..pair_batch(&pairs, &to_vec(&sums).unwrap(), &reference) }
        };
        let total = |loss: &dyn PairwiseLoss, batch: &PairBatch| loss.evaluate(batch).unwrap().loss.iter().sum::<f64>();
        let mut trained = model(1, Head::Lm);
        trained.require_grad().unwrap();
        let start = batch(&trained);
        let mean_loss = |model: &Model| {
            let there = batch(model);
            let still = PairBatch { other: there.other.clone(), ..start.clone() };
            let term = total(&loss, &still) - total(dpo().as_ref(), &start);
            (total(dpo().as_ref(), &there) + term) / pairs.len() as f64
        };
        let mut step = PairStep::new(&log_probs, &loss);
        let sum = |net: &Net, micro: &[TokenPair]| step.sum(net, micro);
        let net = || trained.net(Kind::Float);
        accumulate(&trained, net, &Local, pairs.chunks(2), pairs.len(), sum).unwrap();
        assert!((mean(&step.done.loss) - total(&loss, &start) / 3.0).abs() < 1e-6);
        assert_eq!(step.done.contrasts.len(), 3);
        by_differences(&trained, mean_loss);
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
        let mean = accumulate(&trained, || trained.net(Kind::Float), comm, pairs.chunks(2), pairs.len(), sum).unwrap();
        let gradients: Vec<Tensor> = trained.params.iter().map(|(_, p)| p.grad().copy()).collect();
        zero_gradients(&trained.params).unwrap();
        (mean, gradients)
    };
    let ((alone, one), (together, two)) = (told(&Local, &pairs), told(&Twin, &pairs));
    assert!(alone.is_some() && alone == together, "{alone:?}, of two ranks {together:?}");
    assert!(one.iter().zip(&two).all(|(a, b)| a == b), "two ranks have another gradient");
    assert_eq!(told(&Local, &[]).0, None, "without examples nothing moves");
}
