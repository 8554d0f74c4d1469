//! How near completions come to the levels that weights ask for (Guo et al. 2024, Controllable Preference Optimization): R = Σ ω_k·g_k, where
//! g_k = −λ_k·|P_k − c_k| for an objective of which level c_k is asked, and P_k, the level that was reached, for one that is left free.

use super::{Label, LabelRule, per_objective};
use crate::levels::Levels;
use crate::options::{Checked, Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Result, Weights};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn LabelRule> = Builtin {
    name: "control_distance",
    summary: "the completion wins that comes nearer to the levels that the weights ask for (CPO)",
    schema: schema::<ControlDistance>(),
    build: |owner, options| Ok(Box::new(parse::<ControlDistance>(owner, options)?)),
};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct ControlDistance {
    /// The lowest and the highest level, as of the conditioner "levels": a scaled score of 0 is the lowest, 1 the highest.
    range: Levels,
    /// Objectives of which nothing is asked, by their places from 0: the more they reach the better.
    #[schemars(length(max = 32), inner(range(max = 31)))]
    uncontrolled: Vec<usize>,
    /// λ: what a level's distance costs, one per objective; without it 1 each.
    #[schemars(length(max = 32), inner(range(min = 0, max = 1e6)))]
    strength: Vec<f64>,
    /// ω: what an objective counts, one per objective; without it 1 each.
    #[schemars(length(max = 32), inner(range(min = 0, max = 1e6)))]
    share: Vec<f64>,
    /// Sums closer than this are a tie.
    #[schemars(range(min = 0, max = 1e6))]
    tolerance: f64,
}

impl Default for ControlDistance {
    fn default() -> Self {
        Self { range: Levels([1, 5]), uncontrolled: vec![], strength: vec![], share: vec![], tolerance: 0.0 }
    }
}

impl Options for ControlDistance {
    fn check(&self) -> Checked {
        self.range.check()
    }
}

impl ControlDistance {
    fn check_objectives(&self, objectives: usize) -> Result<()> {
        for (option, numbers) in [("strength", &self.strength), ("share", &self.share)] {
            if !numbers.is_empty() {
                per_objective("control_distance", option, numbers.len(), objectives)?;
            }
        }
        Ok(())
    }

    fn near(&self, weights: &Weights, scores: &[f64]) -> f64 {
        let asked = self.range.asked(weights);
        let of = |list: &[f64], k: usize| list.get(k).copied().unwrap_or(1.0);
        let term = |(k, score): (usize, &f64)| {
            let reached = self.range.reached(*score);
            let distance = (reached - f64::from(asked[k])).abs();
            let free = self.uncontrolled.contains(&k);
            of(&self.share, k) * if free { reached } else { -of(&self.strength, k) * distance }
        };
        scores.iter().enumerate().map(term).sum()
    }
}

impl LabelRule for ControlDistance {
    fn label(&self, weights: &Weights, first: &[f64], second: &[f64]) -> Result<Label> {
        self.check_objectives(weights.len())?;
        Ok(Label::larger(self.near(weights, first), self.near(weights, second), self.tolerance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rule(options: Value) -> ControlDistance {
        parse("x", &options).unwrap()
    }

    /// The scaled score of a level of 1 to 5.
    fn level(level: f64) -> f64 {
        (level - 1.0) / 4.0
    }

    #[test]
    fn golden_distances() {
        // Asked for 5 and 4.
        let weights = Weights::new(vec![4.0 / 7.0, 3.0 / 7.0]).unwrap();
        let near = |p: [f64; 2], options: Value| rule(options).near(&weights, &p.map(level));
        assert_eq!(near([5.0, 4.0], json!({})), 0.0, "an exact match is no distance, and no rating");
        assert_eq!(near([2.0, 4.0], json!({})), -3.0);
        assert_eq!(near([2.0, 5.0], json!({})), -4.0);
        assert_eq!(near([2.0, 5.0], json!({ "uncontrolled": [1] })), 2.0);
        assert_eq!(near([2.0, 3.0], json!({ "strength": [2, 1], "share": [1, 0.5] })), -6.5);
        assert_eq!(near([7.0, 4.0], json!({})), 0.0, "no score lies above the highest level");
    }

    #[test]
    fn an_exact_match_is_the_best_of_all() {
        let weights = Weights::new(vec![4.0 / 6.0, 2.0 / 6.0]).unwrap();
        let exact = [5.0, 3.0].map(level);
        for a in 1..=5 {
            for b in 1..=5 {
                let other = [a, b].map(f64::from).map(level);
                let label = rule(json!({})).label(&weights, &exact, &other).unwrap();
                assert_eq!(label, if [a, b] == [5, 3] { Label::Tie } else { Label::First(1.0) }, "{a} {b}");
            }
        }
    }

    #[test]
    fn numbers_go_with_objectives() {
        let weights = Weights::new(vec![0.5, 0.5]).unwrap();
        let message = rule(json!({ "share": [1] })).label(&weights, &[0.0; 2], &[1.0; 2]).unwrap_err().to_string();
        assert_eq!(
            message,
            "label \"control_distance\": option \"share\" has 1 numbers for 2 objectives; give one for each, in their order"
        );
    }
}
