//! Label rules: which of two completions is preferred, given their scores and the weights (paper equations 1–2).

mod bradley_terry;
mod weighted_sum;
mod weighted_vote;

use crate::registry::Builtin;
use crate::{Result, Weights};

/// What a rule says of two completions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Label {
    /// The probability, in [0, 1], that the first completion is the better one.
    First(f64),
    /// Neither is better: the pair teaches nothing and is skipped.
    Tie,
}

impl Label {
    /// A hard or soft label; an error for what is no probability.
    pub fn probability(p: f64) -> std::result::Result<Self, String> {
        if (0.0..=1.0).contains(&p) {
            Ok(Label::First(p))
        } else {
            Err(format!("gave the label {p}; it must be from 0 to 1"))
        }
    }
}

/// Turns the scores of two completions into a label.
pub trait LabelRule: Send + Sync {
    /// `first` and `second` hold one scaled score per objective.
    fn label(&self, weights: &Weights, first: &[f64], second: &[f64]) -> Result<Label>;
}

pub const BUILTINS: &[Builtin<dyn LabelRule>] =
    &[weighted_sum::BUILTIN, weighted_vote::BUILTIN, bradley_terry::BUILTIN];

/// The best and the worst of several completions by weighted score: the pair that a rule labels when there are more than two.
pub fn extremes(weights: &Weights, scores: &[Vec<f64>]) -> (usize, usize) {
    let total: Vec<f64> = scores.iter().map(|s| weights.dot(s)).collect();
    let best = (0..total.len()).fold(0, |b, i| if total[i] > total[b] { i } else { b });
    let worst = (0..total.len()).fold(0, |b, i| if total[i] < total[b] { i } else { b });
    if best == worst { (0, total.len().min(2).saturating_sub(1)) } else { (best, worst) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;
    use serde_json::json;

    fn label(rule: &str, w: [f64; 2], a: [f64; 2], b: [f64; 2]) -> Label {
        let rule = Registry::builtin().labels.build(rule, &json!({})).unwrap();
        rule.label(&Weights::new(w.to_vec()).unwrap(), &a, &b).unwrap()
    }

    #[test]
    fn reward_scalarisation_against_loss_scalarisation() {
        assert_eq!(label("weighted_sum", [0.5, 0.5], [0.9, 0.0], [0.1, 0.2]), Label::First(1.0));
        assert_eq!(label("weighted_sum", [0.2, 0.8], [0.9, 0.0], [0.1, 0.5]), Label::First(0.0));
        assert_eq!(label("weighted_sum", [0.5, 0.5], [0.2, 0.8], [0.8, 0.2]), Label::Tie);
        assert_eq!(label("weighted_vote", [0.7, 0.3], [0.9, 0.0], [0.1, 0.2]), Label::First(0.7));
        assert_eq!(label("weighted_vote", [1.0, 0.0], [0.4, 0.0], [0.4, 0.2]), Label::Tie);
        assert_eq!(label("weighted_vote", [0.5, 0.5], [0.4, 0.3], [0.4, 0.2]), Label::First(1.0));
        let Label::First(p) = label("bradley_terry", [1.0, 0.0], [0.9, 0.0], [0.4, 0.0]) else { panic!() };
        assert!((p - 1.0 / (1.0 + (-0.5f64).exp())).abs() < 1e-12);
    }

    #[test]
    fn extremes_of_many() {
        let w = Weights::new(vec![1.0]).unwrap();
        assert_eq!(extremes(&w, &[vec![0.2], vec![0.9], vec![0.1]]), (1, 2));
        assert_eq!(extremes(&w, &[vec![0.2], vec![0.2]]), (0, 1));
    }
}
