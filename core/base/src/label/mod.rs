//! Label rules: which of two completions is preferred, given their scores and the weights (paper equations 1–2).

mod bradley_terry;
mod control_distance;
mod smooth_tchebycheff;
mod weighted_sum;
mod weighted_vote;

use crate::registry::Builtin;
use crate::{Error, Result, Weights};

/// What a rule says of two completions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Label {
    /// The probability, in [0, 1], that the first completion is the better one.
    First(f64),
    /// Neither is better: the pair teaches nothing and is skipped.
    Tie,
}

impl Label {
    /// A hard label: the larger number is better, by more than `tolerance`.
    fn larger(first: f64, second: f64, tolerance: f64) -> Self {
        let gap = first - second;
        match gap.abs() <= tolerance.max(1e-12) {
            true => Label::Tie,
            false => Label::First(if gap > 0.0 { 1.0 } else { 0.0 }),
        }
    }

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

/// A number per objective of a rule's option.
fn per_objective(rule: &str, option: &str, numbers: usize, objectives: usize) -> Result<()> {
    if numbers == objectives {
        return Ok(());
    }
    let what = format!("has {numbers} numbers for {objectives} objectives; give one for each, in their order");
    Err(Error::BadOption { owner: format!("label \"{rule}\""), option: option.into(), what })
}

/// What motrain ships; a new label rule is a file and a name here.
pub const BUILTINS: &[Builtin<dyn LabelRule>] = &[
    weighted_sum::BUILTIN,
    weighted_vote::BUILTIN,
    bradley_terry::BUILTIN,
    smooth_tchebycheff::BUILTIN,
    control_distance::BUILTIN,
];

/// Two completions, by index, and the probability that the first is the better one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Labelled {
    /// Index of a completion.
    pub first: usize,
    /// Index of the other one.
    pub second: usize,
    /// The probability that `first` is better, in [0, 1].
    pub label: f64,
}

/// Of all `pairs` of completions the one that the rule is surest of: its label is the furthest from ½. A rule with hard labels is equally sure
/// of many; then the pair that lies furthest apart when each completion's labels are added up, which is the best against the worst; then
/// the first. `None` where all are ties.
pub fn surest(
    rule: &dyn LabelRule,
    weights: &Weights,
    scores: &[Vec<f64>],
    pairs: impl Iterator<Item = (usize, usize)>,
) -> Result<Option<Labelled>> {
    let mut all = Vec::new();
    // Probabilities of being better than the others, added up; a tie counts the same for both.
    let mut points = vec![0.0; scores.len()];
    for (first, second) in pairs {
        let Label::First(label) = rule.label(weights, &scores[first], &scores[second])? else { continue };
        points[first] += label - 0.5;
        points[second] += 0.5 - label;
        all.push(Labelled { first, second, label });
    }
    let rank = |p: &Labelled| ((p.label - 0.5).abs(), (points[p.first] - points[p.second]).abs());
    Ok(all.into_iter().reduce(|a, b| if rank(&b) > rank(&a) { b } else { a }))
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

    fn surest_of(rule: &str, w: [f64; 2], scores: &[[f64; 2]]) -> Option<(usize, usize, f64)> {
        let rule = Registry::builtin().labels.build(rule, &json!({})).unwrap();
        let scores: Vec<Vec<f64>> = scores.iter().map(|s| s.to_vec()).collect();
        let n = scores.len();
        let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
        let found = surest(rule.as_ref(), &Weights::new(w.to_vec()).unwrap(), &scores, pairs).unwrap();
        found.map(|p| (p.first, p.second, p.label))
    }

    #[test]
    fn of_many_the_rule_chooses_the_pair() {
        let four = [[0.2, 0.0], [0.9, 0.0], [0.1, 0.0], [0.5, 0.0]];
        // Hard labels: the best by weighted score against the worst.
        assert_eq!(surest_of("weighted_sum", [1.0, 0.0], &four), Some((1, 2, 1.0)));
        assert_eq!(surest_of("weighted_sum", [1.0, 0.0], &[[0.2, 0.0], [0.1, 0.0], [0.9, 0.0]]), Some((1, 2, 0.0)));
        // Soft labels: the largest gap.
        assert_eq!(surest_of("bradley_terry", [1.0, 0.0], &four).map(|p| (p.0, p.1)), Some((1, 2)));
        // Votes: the first beats the second on both objectives, though the second and the third are the extremes by weighted score.
        let votes = [[0.3, 0.2], [0.2, 0.1], [0.1, 2.0]];
        assert_eq!(surest_of("weighted_vote", [0.5, 0.5], &votes), Some((0, 1, 1.0)));
        assert_eq!(surest_of("weighted_sum", [0.5, 0.5], &votes), Some((1, 2, 0.0)));
        assert_eq!(surest_of("weighted_sum", [0.5, 0.5], &[[0.2, 0.8], [0.8, 0.2], [0.5, 0.5]]), None);
    }
}
