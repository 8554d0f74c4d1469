//! Smooth Tchebycheff scalarisation (Lin et al. 2024): the completion wins whose worst weighted distance from an ideal point is smaller, where the
//! worst is a soft maximum, `μ·log Σ exp(w_k·(z_k − s_k)/μ)`. Unlike a weighted sum it also reaches points where a front is not convex.

use super::{Label, LabelRule, per_objective};
use crate::options::{Checked, Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Result, Weights};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn LabelRule> = Builtin {
    name: "smooth_tchebycheff",
    summary: "the completion wins whose worst weighted distance from an ideal point is smaller, the worst smoothed",
    schema: schema::<SmoothTchebycheff>(),
    build: |owner, options| Ok(Box::new(parse::<SmoothTchebycheff>(owner, options)?)),
};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct SmoothTchebycheff {
    /// The ideal point: the best scaled score of each objective, such as [1, 1].
    #[schemars(length(max = 32), inner(range(min = -1e9, max = 1e9)))]
    ideal: Vec<f64>,
    /// μ: how much of the other distances counts beside the worst; towards 0 only the worst does.
    #[schemars(range(min = 1e-6, max = 1e6))]
    smoothing: f64,
    /// Distances closer than this are a tie.
    #[schemars(range(min = 0, max = 1e6))]
    tolerance: f64,
}

impl Default for SmoothTchebycheff {
    fn default() -> Self {
        Self { ideal: vec![], smoothing: 0.1, tolerance: 0.0 }
    }
}

impl Options for SmoothTchebycheff {
    fn check(&self) -> Checked {
        match self.ideal.is_empty() {
            true => {
                Err(("ideal", "must be given: the best scaled score of each objective, such as [1, 1] for two".into()))
            }
            false => Ok(()),
        }
    }
}

impl SmoothTchebycheff {
    fn distance(&self, weights: &Weights, scores: &[f64]) -> f64 {
        let each = weights.values().iter().zip(&self.ideal).zip(scores);
        let each: Vec<f64> = each.map(|((w, z), s)| w * (z - s) / self.smoothing).collect();
        let worst = each.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        self.smoothing * (worst + each.iter().map(|d| (d - worst).exp()).sum::<f64>().ln())
    }
}

impl LabelRule for SmoothTchebycheff {
    fn label(&self, weights: &Weights, first: &[f64], second: &[f64]) -> Result<Label> {
        per_objective("smooth_tchebycheff", "ideal", self.ideal.len(), weights.len())?;
        Ok(Label::larger(-self.distance(weights, first), -self.distance(weights, second), self.tolerance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn weights(w: f64) -> Weights {
        Weights::new(vec![w, 1.0 - w]).unwrap()
    }

    fn rule(smoothing: f64) -> SmoothTchebycheff {
        parse("x", &json!({ "ideal": [1, 1], "smoothing": smoothing })).unwrap()
    }

    #[test]
    fn golden_distances() {
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-7, "{a} is not {b}");
        // ½·0.4 and ½·0.6: 0.5·ln(e^0.4 + e^0.6).
        near(rule(0.5).distance(&weights(0.5), &[0.6, 0.4]), 0.599_069_435);
        // Towards the plain Tchebycheff distance, max(0.8·0.5, 0.2·0.9), from above.
        near(rule(1e-3).distance(&weights(0.8), &[0.5, 0.1]), 0.4);
        // As a sum, where all smooths away: μ·ln 2 and half the weighted sum of distances.
        near(rule(1e6).distance(&weights(0.8), &[0.5, 0.1]) - 1e6 * 2f64.ln(), 0.29);
        near(rule(1e-6).distance(&weights(0.5), &[-1e3, 0.0]), 500.5);
    }

    #[test]
    fn the_balanced_answer_wins_that_a_weighted_sum_never_prefers() {
        let (balanced, extremes) = ([0.45, 0.45], [[1.0, 0.0], [0.0, 1.0]]);
        for other in extremes {
            assert_eq!(rule(0.01).label(&weights(0.5), &balanced, &other).unwrap(), Label::First(1.0));
            assert!(weights(0.5).dot(&balanced) < weights(0.5).dot(&other));
        }
        assert_eq!(rule(0.1).label(&weights(0.5), &[0.3, 0.7], &[0.7, 0.3]).unwrap(), Label::Tie);
        assert_eq!(rule(0.1).label(&weights(1.0), &[0.3, 0.7], &[0.7, 0.3]).unwrap(), Label::First(0.0));
    }

    #[test]
    fn the_ideal_point_must_be_given_whole() {
        let message = parse::<SmoothTchebycheff>("label \"x\"", &json!({})).err().unwrap().to_string();
        assert_eq!(
            message,
            "label \"x\": option \"ideal\" must be given: the best scaled score of each objective, such as [1, 1] for two"
        );
        let one = Weights::new(vec![1.0]).unwrap();
        let message = rule(0.1).label(&one, &[0.0], &[1.0]).unwrap_err().to_string();
        assert!(message.ends_with("has 2 numbers for 1 objectives; give one for each, in their order"), "{message}");
    }
}
