//! MI-EPO (Xie et al. 2026): a term of InfoNCE on top of any pairwise loss, so that answers tell which weights they were asked for.

use super::{PairBatch, PairLoss, PairwiseLoss, neg_log_sigmoid, sigmoid};
use crate::{Result, Weights};

/// `−log σ(β_w·[Δ(y|x,w) − Δ(y|x,w⁻)])` of the preferred answer y (of both, each with the probability that it is the better one), added to a
/// loss. w⁻ are the weights of another pair.
///
/// Δ(y|x,w) is the anchor: it has no gradient. y was drawn from the policy at w, so that `E[∇log π(y|x,w)] = 0`; what the factor β_w·σ(−z) in
/// front of it leaves is of the order of β_w², makes those answers likelier that tell w least, and at β_w = 1 takes back all that the rest of the
/// term does. What moves is the policy at w⁻, away from the answers at w.
pub struct InfoNce {
    loss: Box<dyn PairwiseLoss>,
    beta: f64,
}

impl InfoNce {
    /// The term of strength `beta` on top of `loss`.
    pub fn new(loss: Box<dyn PairwiseLoss>, beta: f64) -> Self {
        Self { loss, beta }
    }
}

impl PairwiseLoss for InfoNce {
    fn evaluate(&self, pairs: &PairBatch) -> Result<PairLoss> {
        let mut out = self.loss.evaluate(pairs)?;
        let Some(other) = &pairs.other else { return Ok(out) };
        out.d_other_first.resize(pairs.len(), 0.0);
        out.d_other_second.resize(pairs.len(), 0.0);
        for i in 0..pairs.len() {
            let term = |here: f64, there: f64, share: f64| {
                let z = self.beta * (here - there);
                (share * neg_log_sigmoid(z), share * self.beta * sigmoid(-z))
            };
            let (here, there) = (pairs.log_ratios(i), other.log_ratios(i));
            let first = term(here[0], there[0], pairs.label[i]);
            let second = term(here[1], there[1], 1.0 - pairs.label[i]);
            out.loss[i] += first.0 + second.0;
            out.d_other_first[i] += first.1;
            out.d_other_second[i] += second.1;
        }
        Ok(out)
    }

    fn beta(&self) -> f64 {
        self.loss.beta()
    }

    fn needs_other(&self) -> bool {
        true
    }

    fn check_weights(&self, weights: &Weights) -> std::result::Result<(), String> {
        self.loss.check_weights(weights)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Other;
    use super::*;
    use crate::Registry;
    use serde_json::{Value, json};

    fn inner(name: &str, options: Value) -> Box<dyn PairwiseLoss> {
        Registry::builtin().losses.build(name, &options).unwrap()
    }

    /// Pairs with hard and soft labels.
    fn pairs() -> PairBatch {
        PairBatch {
            policy_first: vec![-40.0, -30.0, -21.0],
            policy_second: vec![-55.0, -33.0, -20.0],
            reference_first: vec![-42.0, -31.0, -20.0],
            reference_second: vec![-50.0, -30.0, -22.0],
            tokens_first: vec![10, 8, 5],
            tokens_second: vec![12, 9, 5],
            label: vec![1.0, 0.0, 0.3],
            weights: vec![0.5, 0.5, 1.0, 0.0, 0.2, 0.8],
            margins: vec![0.1, 0.1, 0.2, -0.3, 0.0, 0.4],
            other: Some(Other {
                policy_first: vec![-44.0, -29.0, -26.0],
                policy_second: vec![-52.0, -38.0, -18.0],
                reference_first: vec![-43.0, -31.5, -20.5],
                reference_second: vec![-50.5, -30.0, -21.0],
            }),
        }
    }

    const LOSSES: [&str; 5] = ["dpo", "ipo", "ipo_mean", "slic", "modpo"];

    /// The first pair's preferred answer: Δ = 2 at w and −1 at w⁻, so z = 0.3 with β_w = 0.1.
    #[test]
    fn golden_values() {
        let (plain, with) = (inner("dpo", json!({})), InfoNce::new(inner("dpo", json!({})), 0.1));
        let (before, after) = (plain.evaluate(&pairs()).unwrap(), with.evaluate(&pairs()).unwrap());
        assert!((after.loss[0] - before.loss[0] - 0.554_355_2).abs() < 1e-7, "{after:?}");
        assert!((after.d_other_first[0] - 0.042_555_75).abs() < 1e-8 && after.d_other_second[0] == 0.0, "{after:?}");
        // The second pair's second answer is the preferred one.
        assert!(after.d_other_first[1] == 0.0 && after.d_other_second[1] > 0.0, "{after:?}");
    }

    /// By the log-probs under other weights the derivatives are those of the loss; by the anchor's the term has none.
    #[test]
    fn derivatives_are_those_of_a_still_anchor() {
        for name in LOSSES {
            let with = InfoNce::new(inner(name, json!({})), 0.2);
            let exact = with.evaluate(&pairs()).unwrap();
            let plain = inner(name, json!({})).evaluate(&pairs()).unwrap();
            assert_eq!((&exact.d_first, &exact.d_second), (&plain.d_first, &plain.d_second), "{name}");
            let moved = |first: f64, second: f64| {
                let mut pairs = pairs();
                let other = pairs.other.as_mut().unwrap();
                other.policy_first.iter_mut().for_each(|x| *x += first);
                other.policy_second.iter_mut().for_each(|x| *x += second);
                with.evaluate(&pairs).unwrap().loss
            };
            let step = 1e-5;
            for i in 0..3 {
                let first = (moved(step, 0.0)[i] - moved(-step, 0.0)[i]) / (2.0 * step);
                let second = (moved(0.0, step)[i] - moved(0.0, -step)[i]) / (2.0 * step);
                let found = (exact.d_other_first[i], exact.d_other_second[i]);
                let gap = (first - found.0).abs().max((second - found.1).abs());
                assert!(gap < 1e-8, "{name} pair {i}: {found:?}, by differences {first} {second}");
            }
        }
    }

    #[test]
    fn without_other_weights_the_loss_is_the_inner_one() {
        let alone = PairBatch { other: None, ..pairs() };
        for name in LOSSES {
            let with = InfoNce::new(inner(name, json!({})), 0.2);
            assert_eq!(with.evaluate(&alone).unwrap(), inner(name, json!({})).evaluate(&alone).unwrap());
            assert!(with.needs_other() && !inner(name, json!({})).needs_other());
        }
    }

    fn softmax(logits: &[f64; 4]) -> Vec<f64> {
        let sum: f64 = logits.iter().map(|l| l.exp()).sum();
        logits.iter().map(|l| l.exp() / sum).collect()
    }

    /// A policy over four answers at two weights, by its logits. The mutual information of answer and weights, in nats.
    fn information(policy: &[[f64; 4]; 2]) -> f64 {
        let at = [softmax(&policy[0]), softmax(&policy[1])];
        let ratio = |w: usize, y: usize| (at[w][y] / (0.5 * (at[0][y] + at[1][y]))).ln();
        (0..2).flat_map(|w| (0..4).map(move |y| (w, y))).map(|(w, y)| 0.5 * at[w][y] * ratio(w, y)).sum()
    }

    /// The expected gradient of the term by the logits, over all that the policy draws, and what the anchor's would add to it.
    fn expected(policy: &[[f64; 4]; 2], beta: f64) -> [[[f64; 4]; 2]; 2] {
        let at = [softmax(&policy[0]), softmax(&policy[1])];
        let (mut own, mut of_anchor) = ([[0.0; 4]; 2], [[0.0; 4]; 2]);
        let with = InfoNce::new(inner("dpo", json!({})), beta);
        for (here, there) in [(0, 1), (1, 0)] {
            for y in 0..4 {
                let log = |w: usize| vec![at[w][y].ln()];
                let zero = || vec![0.0];
                let pair = PairBatch {
                    policy_first: log(here),
                    policy_second: zero(),
                    reference_first: zero(),
                    reference_second: zero(),
                    tokens_first: vec![1],
                    tokens_second: vec![1],
                    label: vec![1.0],
                    other: Some(Other {
                        policy_first: log(there),
                        policy_second: zero(),
                        reference_first: zero(),
                        reference_second: zero(),
                    }),
                    ..PairBatch::default()
                };
                let d = with.evaluate(&pair).unwrap().d_other_first[0];
                for j in 0..4 {
                    let by_logit = |w: usize| f64::from(u8::from(j == y)) - at[w][j];
                    own[there][j] += 0.5 * at[here][y] * d * by_logit(there);
                    of_anchor[here][j] -= 0.5 * at[here][y] * d * by_logit(here);
                }
            }
        }
        [own, of_anchor]
    }

    /// Going down the term, the information grows. With the anchor's gradient it would grow less, by what is of second order in β_w, and at 1 not
    /// at all.
    #[test]
    fn the_term_raises_the_information_and_its_anchor_would_lower_it() {
        let policy = [[0.3, -0.2, 0.5, 0.0], [0.1, 0.4, -0.3, 0.2]];
        let gain = |gradient: &[[f64; 4]; 2]| {
            let to = |sign: f64| {
                let mut there = policy;
                there.iter_mut().flatten().zip(gradient.iter().flatten()).for_each(|(l, g)| *l -= sign * 1e-4 * g);
                information(&there)
            };
            (to(1.0) - to(-1.0)) / 2e-4
        };
        let size = |gradient: &[[f64; 4]; 2]| gradient.iter().flatten().map(|g| g.abs()).fold(0.0, f64::max);
        let [own, of_anchor] = expected(&policy, 1.0);
        assert!((gain(&own) + gain(&of_anchor)).abs() < 1e-9 * gain(&own).abs().max(1.0));
        for beta in [1.0, 0.1, 0.01] {
            let [own, of_anchor] = expected(&policy, beta);
            assert!(gain(&own) > 0.0, "β_w = {beta}: {}", gain(&own));
            assert!(gain(&of_anchor) < 0.0, "β_w = {beta}: the anchor adds {}", gain(&of_anchor));
            assert!(size(&of_anchor) < 1.001 * beta * size(&own), "β_w = {beta}: {of_anchor:?} beside {own:?}");
        }
    }
}
