//! With a handful of possible answers the optimum is known: `π*_w(y) ∝ π₀(y)·exp(Σ wₖRₖ(y)/β)`. Soft-label online DPO and KL-regularised
//! REINFORCE, made of the same label rule, loss and advantages as training, must come there for every w. A policy is a table of logits
//! here, and expectations over drawn pairs are sums over all pairs.

use motrain_core::advantage::Answers;
use motrain_core::label::Label;
use motrain_core::loss::PairBatch;
use motrain_core::{Registry, Weights};
use serde_json::json;

const ANSWERS: usize = 5;
const START: [f64; ANSWERS] = [0.3, -0.4, 0.0, 0.9, -1.0];
/// Two conflicting rewards and a compromise (the third answer).
const REWARDS: [[f64; 2]; ANSWERS] = [[1.0, 0.0], [0.0, 1.0], [0.7, 0.7], [0.2, 0.1], [0.5, 0.9]];

fn softmax(logits: &[f64]) -> Vec<f64> {
    let exp: Vec<f64> = logits.iter().map(|l| l.exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.iter().map(|e| e / sum).collect()
}

fn weights() -> Vec<Weights> {
    Weights::grid(2, 4)
}

fn optimum(w: &Weights, beta: f64) -> Vec<f64> {
    let logits: Vec<f64> = (0..ANSWERS).map(|y| START[y] + w.dot(&REWARDS[y]) / beta).collect();
    softmax(&logits)
}

/// Adds `factor · ∇ log π(y)` to a gradient in logits.
fn add_score(gradient: &mut [f64], policy: &[f64], y: usize, factor: f64) {
    for (i, g) in gradient.iter_mut().enumerate() {
        *g += factor * (f64::from(u8::from(i == y)) - policy[i]);
    }
}

/// Moves logits along `ascent(policy)` until they stay.
fn trained(ascent: impl Fn(&[f64]) -> Vec<f64>, rate: f64, steps: usize) -> Vec<f64> {
    let mut logits = START.to_vec();
    for _ in 0..steps {
        let gradient = ascent(&softmax(&logits));
        for (l, g) in logits.iter_mut().zip(gradient) {
            *l += rate * g;
        }
    }
    softmax(&logits)
}

fn kl(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..ANSWERS).flat_map(|a| (0..ANSWERS).filter(move |b| *b != a).map(move |b| (a, b)))
}

#[test]
fn soft_label_online_dpo_comes_to_the_closed_form() {
    let beta = 0.5;
    let registry = Registry::builtin();
    let rule = registry.labels.build("bradley_terry", &json!({})).unwrap();
    let loss = registry.losses.build("dpo", &json!({ "beta": beta })).unwrap();
    let start = softmax(&START);
    for w in weights() {
        let ascent = |policy: &[f64]| {
            let mut gradient = vec![0.0; ANSWERS];
            for (a, b) in pairs() {
                let Label::First(label) = rule.label(&w, &REWARDS[a], &REWARDS[b]).unwrap() else { continue };
                let pair = PairBatch {
                    policy_first: vec![policy[a].ln()],
                    policy_second: vec![policy[b].ln()],
                    reference_first: vec![start[a].ln()],
                    reference_second: vec![start[b].ln()],
                    tokens_first: vec![1],
                    tokens_second: vec![1],
                    label: vec![label],
                    weights: w.values().to_vec(),
                    margins: vec![0.0, 0.0],
                    other: None,
                };
                let loss = loss.evaluate(&pair).unwrap();
                let drawn = policy[a] * policy[b];
                add_score(&mut gradient, policy, a, -loss.d_first[0] * drawn);
                add_score(&mut gradient, policy, b, -loss.d_second[0] * drawn);
            }
            gradient
        };
        let (found, wanted) = (trained(ascent, 20.0, 4000), optimum(&w, beta));
        assert!(kl(&found, &wanted) < 1e-6, "w {:?}: {found:?} is not {wanted:?}", w.values());
    }
}

#[test]
fn reinforce_with_a_kl_penalty_comes_to_the_closed_form() {
    let beta = 0.5;
    let rloo = Registry::builtin().advantages.build("rloo", &json!({})).unwrap();
    let start = softmax(&START);
    for w in weights() {
        let ascent = |policy: &[f64]| {
            let reward = |y: usize| w.dot(&REWARDS[y]) - beta * (policy[y] / start[y]).ln();
            let mut gradient = vec![0.0; ANSWERS];
            for (a, b) in pairs() {
                let returns = vec![reward(a), reward(b)];
                let drawn = Answers { returns, ..Answers::default() };
                let advantages = rloo.advantages(&drawn, &[]).unwrap();
                let drawn = policy[a] * policy[b];
                add_score(&mut gradient, policy, a, advantages[0] * drawn);
                add_score(&mut gradient, policy, b, advantages[1] * drawn);
            }
            gradient
        };
        let (found, wanted) = (trained(ascent, 1.0, 4000), optimum(&w, beta));
        assert!(kl(&found, &wanted) < 1e-6, "w {:?}: {found:?} is not {wanted:?}", w.values());
    }
}
