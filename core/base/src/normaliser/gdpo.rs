//! GDPO (Liu et al. 2026, 2601.05242): by the prompt's own completions, each objective by itself, and then their weighted sum by all of the step.

use super::Normaliser;
use super::group::by_group;
use crate::metrics::stats::Moments;
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use schemars::JsonSchema;
use serde::Deserialize;
use std::ops::Range;

pub const BUILTIN: Builtin<dyn Normaliser> = Builtin {
    name: "gdpo",
    summary: "as group, then the weighted sums by those of the step (policy gradients only)",
    schema: schema::<Gdpo>(),
    build: |owner, options| Ok(Box::new(parse::<Gdpo>(owner, options)?)),
};

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Gdpo {}

impl Options for Gdpo {}

impl Normaliser for Gdpo {
    fn least(&self) -> usize {
        2
    }

    fn scores(&self, scores: &mut [Option<Vec<f64>>], groups: &[Range<usize>], _seen: &mut Vec<Moments>) {
        by_group(scores, groups);
    }

    fn is_of_sums(&self) -> bool {
        true
    }

    fn sums(&self, sums: &mut [f64]) {
        let mut moments = Moments::default();
        sums.iter().for_each(|sum| moments.add(*sum));
        sums.iter_mut().for_each(|sum| *sum = moments.standard(*sum));
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{ALL, near, normalised, of};

    /// Prompts at the weights (1, 0) and (½, ½): sums −1, 1 and −½, ½, whose standard deviation is √0.625.
    #[test]
    fn the_weighted_sums_of_the_batch_are_normalised() {
        let found = normalised("gdpo", &ALL, &[0..2, 2..5], &mut vec![]);
        let weights = [[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.5, 0.5]];
        let sum = |(w, s): (&[f64; 2], &Vec<f64>)| w[0] * s[0] + w[1] * s[1];
        let mut sums: Vec<f64> = weights.iter().zip(found.iter().flatten()).map(sum).collect();
        near(&sums, &[-1.0, 1.0, -0.5, 0.5]);
        of("gdpo").sums(&mut sums);
        near(&sums, &[-1.264_911, 1.264_911, -0.632_456, 0.632_456]);
        let mut alike = [0.25; 3];
        of("gdpo").sums(&mut alike);
        assert_eq!(alike, [0.0; 3]);
    }
}
