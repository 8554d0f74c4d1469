//! Pairwise losses, as functions of log-prob sums. They need no tensors: the engine back-propagates the linear
//! surrogate `Σ g₊·logp₊ + g₋·logp₋` with `g` taken from here, whose gradient is exact.

mod dpo;
mod info_nce;
mod ipo;
mod modpo;
mod slic;

pub use info_nce::InfoNce;

use crate::registry::Builtin;
use crate::{Result, Weights};

/// A batch of pairs; every slice has one number per pair. `first` is the completion that the label's probability
/// speaks of (the preferred one under a hard label).
#[derive(Clone, Debug, Default)]
pub struct PairBatch {
    /// Log-prob sums (nats) of the completions under the policy.
    pub policy_first: Vec<f64>,
    /// As `policy_first`.
    pub policy_second: Vec<f64>,
    /// Log-prob sums (nats) under the reference.
    pub reference_first: Vec<f64>,
    /// As `reference_first`.
    pub reference_second: Vec<f64>,
    /// Completion lengths in tokens, EOS included.
    pub tokens_first: Vec<u32>,
    /// As `tokens_first`.
    pub tokens_second: Vec<u32>,
    /// The probability that the first completion is better.
    pub label: Vec<f64>,
    /// Objective weights, `[pairs × objectives]` row by row.
    pub weights: Vec<f64>,
    /// Scaled score differences first − second, `[pairs × objectives]` row by row.
    pub margins: Vec<f64>,
    /// The same completions under the weights of another pair, where the loss asks for them and the batch has others.
    pub other: Option<Other>,
}

/// Log-prob sums (nats) of a batch's completions under other weights than those that they were drawn at, one number per pair.
#[derive(Clone, Debug, Default)]
pub struct Other {
    /// Under the policy.
    pub policy_first: Vec<f64>,
    /// As `policy_first`.
    pub policy_second: Vec<f64>,
    /// Under the reference.
    pub reference_first: Vec<f64>,
    /// As `reference_first`.
    pub reference_second: Vec<f64>,
}

impl Other {
    /// `log π/π₀` of both completions of pair `i`, in nats.
    pub fn log_ratios(&self, i: usize) -> [f64; 2] {
        [self.policy_first[i] - self.reference_first[i], self.policy_second[i] - self.reference_second[i]]
    }
}

impl PairBatch {
    /// How many pairs there are.
    pub fn len(&self) -> usize {
        self.label.len()
    }

    /// Whether there is no pair.
    pub fn is_empty(&self) -> bool {
        self.label.is_empty()
    }

    /// `Δ = log π/π₀` of both completions of pair `i`, in nats.
    pub fn log_ratios(&self, i: usize) -> [f64; 2] {
        [self.policy_first[i] - self.reference_first[i], self.policy_second[i] - self.reference_second[i]]
    }

    /// `Δ₊ − Δ₋` of pair `i`, in nats.
    pub fn log_ratio_gap(&self, i: usize) -> f64 {
        let [first, second] = self.log_ratios(i);
        first - second
    }
}

/// A loss and its derivatives, one number per pair.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PairLoss {
    /// What is averaged over the batch.
    pub loss: Vec<f64>,
    /// ∂loss/∂policy_first.
    pub d_first: Vec<f64>,
    /// ∂loss/∂policy_second.
    pub d_second: Vec<f64>,
    /// ∂loss/∂other.policy_first; nothing of a loss that does not ask for other weights.
    pub d_other_first: Vec<f64>,
    /// ∂loss/∂other.policy_second, as `d_other_first`.
    pub d_other_second: Vec<f64>,
}

/// A pairwise preference loss.
pub trait PairwiseLoss: Send + Sync {
    /// The loss of each pair and its derivative in the two policy log-prob sums.
    fn evaluate(&self, pairs: &PairBatch) -> Result<PairLoss>;

    /// β: what the log-ratio is multiplied by to give the implicit reward (TRL's `rewards/chosen`).
    fn beta(&self) -> f64;

    /// Whether its pairs are those of one objective, and the other objectives' scores are needed beside them.
    fn is_of_one_objective(&self) -> bool {
        false
    }

    /// Whether it reads the completions' log-probs under other weights (`PairBatch::other`), which take another pass.
    fn needs_other(&self) -> bool {
        false
    }

    /// Whether there is a loss at these weights; asked before any work of weights that will come.
    fn check_weights(&self, _weights: &Weights) -> std::result::Result<(), String> {
        Ok(())
    }
}

/// What motrain ships; a new loss is a file and a name here.
pub const BUILTINS: &[Builtin<dyn PairwiseLoss>] = &[dpo::BUILTIN, ipo::SUM, ipo::MEAN, slic::BUILTIN, modpo::BUILTIN];

/// `σ(x) = 1 / (1 + e^−x)`, without overflow.
pub fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
}

/// `−log σ(x)`, without overflow.
pub fn neg_log_sigmoid(x: f64) -> f64 {
    (-x).max(0.0) + (-x.abs()).exp().ln_1p()
}

/// Builds the result from a function of one pair: `(loss, d_first, d_second)`.
fn per_pair(pairs: &PairBatch, f: impl Fn(usize) -> (f64, f64, f64)) -> Result<PairLoss> {
    let mut out = PairLoss::default();
    for i in 0..pairs.len() {
        let (loss, d_first, d_second) = f(i);
        out.loss.push(loss);
        out.d_first.push(d_first);
        out.d_second.push(d_second);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;
    use serde_json::{Value, json};

    fn golden_pair(label: f64) -> PairBatch {
        PairBatch {
            policy_first: vec![-40.0],
            reference_first: vec![-42.0],
            policy_second: vec![-55.0],
            reference_second: vec![-50.0],
            tokens_first: vec![10],
            tokens_second: vec![12],
            label: vec![label],
            weights: vec![0.5, 0.5],
            margins: vec![0.1, 0.1],
            other: None,
        }
    }

    fn evaluate(name: &str, options: Value, pair: &PairBatch) -> PairLoss {
        Registry::builtin().losses.build(name, &options).unwrap().evaluate(pair).unwrap()
    }

    #[test]
    fn dpo_golden_values() {
        let at = |beta: f64| evaluate("dpo", json!({ "beta": beta }), &golden_pair(1.0));
        assert!((at(0.01).loss[0] - 0.658_759_6).abs() < 1e-7);
        assert!((at(0.01).d_first[0] + 0.004_825_1).abs() < 1e-7);
        assert!((at(0.1).loss[0] - 0.403_186_0).abs() < 1e-7);
    }

    #[test]
    fn at_the_reference_dpo_is_ln_two() {
        let mut pair = golden_pair(1.0);
        (pair.policy_first, pair.policy_second) = (pair.reference_first.clone(), pair.reference_second.clone());
        for beta in [0.01, 0.1, 1.0] {
            assert_eq!(evaluate("dpo", json!({ "beta": beta }), &pair).loss[0], std::f64::consts::LN_2);
        }
    }

    #[test]
    fn ipo_golden_values() {
        // (Δ₊ − Δ₋ − 1/(2β))² with Δ₊ = 2, Δ₋ = −5; per token: Δ₊ = 0.2, Δ₋ = −5/12.
        let sum = evaluate("ipo", json!({"beta": 0.1}), &golden_pair(1.0));
        assert!((sum.loss[0] - 4.0).abs() < 1e-12);
        let mean = evaluate("ipo_mean", json!({"beta": 0.1}), &golden_pair(1.0));
        assert!((mean.loss[0] - (0.2 + 5.0 / 12.0 - 5.0f64).powi(2)).abs() < 1e-12);
    }

    #[test]
    fn slic_golden_values() {
        let loss = |beta: f64| evaluate("slic", json!({ "beta": beta }), &golden_pair(1.0));
        assert!((loss(0.1).loss[0] - 0.3).abs() < 1e-12);
        assert_eq!(loss(1.0).loss[0], 0.0);
        assert_eq!(loss(1.0).d_first[0], 0.0);
    }

    #[test]
    fn derivatives_match_finite_differences() {
        let cases = [
            ("dpo", json!({"beta": 0.1})),
            ("dpo", json!({"beta": 0.1, "label_smoothing": 0.2})),
            ("ipo", json!({"beta": 0.1})),
            ("ipo_mean", json!({"beta": 0.5})),
            ("slic", json!({"beta": 0.05})),
            ("modpo", json!({"beta": 0.1, "objective": 1})),
        ];
        for builtin in BUILTINS {
            assert!(cases.iter().any(|(name, _)| *name == builtin.name), "add {} to the cases", builtin.name);
        }
        for (name, options) in cases {
            for label in [1.0, 0.0, 0.7] {
                let pair = golden_pair(label);
                let exact = evaluate(name, options.clone(), &pair);
                let h = 1e-5;
                let moved = |first: f64, second: f64| {
                    let mut p = pair.clone();
                    p.policy_first[0] += first;
                    p.policy_second[0] += second;
                    evaluate(name, options.clone(), &p).loss[0]
                };
                let d_first = (moved(h, 0.0) - moved(-h, 0.0)) / (2.0 * h);
                let d_second = (moved(0.0, h) - moved(0.0, -h)) / (2.0 * h);
                assert!((d_first - exact.d_first[0]).abs() < 1e-6, "{name} {label}");
                assert!((d_second - exact.d_second[0]).abs() < 1e-6, "{name} {label}");
            }
        }
    }

    #[test]
    fn a_flipped_label_flips_the_pair() {
        let pair = golden_pair(0.0);
        let mut swapped = golden_pair(1.0);
        std::mem::swap(&mut swapped.policy_first, &mut swapped.policy_second);
        std::mem::swap(&mut swapped.reference_first, &mut swapped.reference_second);
        std::mem::swap(&mut swapped.tokens_first, &mut swapped.tokens_second);
        for name in ["dpo", "ipo", "ipo_mean", "slic"] {
            let (a, b) = (evaluate(name, json!({}), &pair), evaluate(name, json!({}), &swapped));
            assert!((a.loss[0] - b.loss[0]).abs() < 1e-9, "{name}");
            assert!((a.d_first[0] - b.d_second[0]).abs() < 1e-9, "{name}");
        }
    }
}
