//! By all scores of an objective so far, in the spirit of MO-GRPO (2509.22047).

use super::Normaliser;
use crate::metrics::stats::Moments;
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use schemars::JsonSchema;
use serde::Deserialize;
use std::ops::Range;

pub const BUILTIN: Builtin<dyn Normaliser> = Builtin {
    name: "running",
    summary: "by the mean and deviation of all scores so far (MO-GRPO)",
    schema: schema::<Running>(),
    build: |owner, options| Ok(Box::new(parse::<Running>(owner, options)?)),
};

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Running {}

impl Options for Running {}

impl Normaliser for Running {
    /// Adds the step's scores to `seen` first.
    fn scores(&self, scores: &mut [Option<Vec<f64>>], _groups: &[Range<usize>], seen: &mut Vec<Moments>) {
        for scores in scores.iter().flatten() {
            seen.extend(scores.iter().skip(seen.len()).map(|_| Moments::default()));
            seen.iter_mut().zip(scores).for_each(|(moments, score)| moments.add(*score));
        }
        for scores in scores.iter_mut().flatten() {
            scores.iter_mut().zip(&*seen).for_each(|(score, moments)| *score = moments.standard(*score));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{ALL, column, near, normalised};
    use crate::metrics::stats::{Moments, mean, std};

    #[test]
    fn running_moments_are_those_of_all_that_was_seen() {
        let mut seen = Vec::new();
        let found = normalised("running", &ALL[..2], &[], &mut seen);
        near(&column(&found, 0), &[-1.0, 1.0]);
        let then = normalised("running", &ALL[2..], &[], &mut seen);
        let all: Vec<f64> = ALL.iter().map(|s| s[1]).collect();
        let wanted: Vec<f64> = [7.0, 9.0].iter().map(|s| (s - mean(&all)) / std(&all)).collect();
        near(&column(&then, 1), &wanted);
        // What a checkpoint keeps says all.
        let kept: Vec<Moments> =
            serde_json::from_str(&serde_json::to_string(&seen).unwrap_or_default()).unwrap_or_default();
        assert_eq!(kept, seen);
    }
}
