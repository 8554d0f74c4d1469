//! Normalising scores while training, beside the frozen scale that evaluations keep: by the prompt's own completions, and their weighted sum by the batch
//! (GDPO, 2601.05242), or by all that were scored so far (the spirit of MO-GRPO, 2509.22047). Then no objective rules for the size of its scores alone.

use crate::reward::Scores;
use motrain_core::metrics::stats::Moments;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How each objective's scaled scores are normalised before they are trained on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Normalise {
    #[default]
    None,
    Group,
    Gdpo,
    Running,
}

impl Normalise {
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    pub fn is_by_group(self) -> bool {
        matches!(self, Self::Group | Self::Gdpo)
    }

    /// Takes away a mean and divides by a deviation: those of each group of completions, or those of `seen`, which the scores are added to
    /// first. Where nothing deviates, scores become 0 or nearly so.
    pub fn apply(self, scores: &mut Scores, groups: impl Iterator<Item = Range<usize>>, seen: &mut Vec<Moments>) {
        match self {
            Self::None => {}
            Self::Group | Self::Gdpo => groups.for_each(|group| by_group(&mut scores.objectives[group])),
            Self::Running => {
                for scores in scores.objectives.iter().flatten() {
                    seen.extend(scores.iter().skip(seen.len()).map(|_| Moments::default()));
                    seen.iter_mut().zip(scores).for_each(|(moments, score)| moments.add(*score));
                }
                for scores in scores.objectives.iter_mut().flatten() {
                    scores.iter_mut().zip(&*seen).for_each(|(score, moments)| *score = moments.standard(*score));
                }
            }
        }
    }
}

/// GDPO's last step, on the weighted sums of a whole batch.
pub fn by_batch<'a>(sums: impl Iterator<Item = &'a mut f64>) {
    let sums: Vec<&mut f64> = sums.collect();
    let mut moments = Moments::default();
    sums.iter().for_each(|sum| moments.add(**sum));
    sums.into_iter().for_each(|sum| *sum = moments.standard(*sum));
}

fn by_group(group: &mut [Option<Vec<f64>>]) {
    let objectives = group.iter().flatten().map(Vec::len).next().unwrap_or(0);
    for k in 0..objectives {
        let mut moments = Moments::default();
        group.iter().flatten().for_each(|scores| moments.add(scores[k]));
        group.iter_mut().flatten().for_each(|scores| scores[k] = moments.standard(scores[k]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use motrain_core::metrics::stats::{mean, std};

    fn scores(all: &[[f64; 2]]) -> Scores {
        let mut objectives: Vec<_> = all.iter().map(|s| Some(s.to_vec())).collect();
        objectives.push(None);
        Scores { objectives, ..Scores::default() }
    }

    fn column(scores: &Scores, k: usize) -> Vec<f64> {
        scores.objectives.iter().flatten().map(|s| s[k]).collect()
    }

    fn near(found: &[f64], wanted: &[f64]) {
        let all = found.len() == wanted.len() && found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(all, "{found:?} is not {wanted:?}");
    }

    /// What is rounding does not become a preference.
    #[test]
    fn differences_of_rounding_stay_small() {
        let mut found = scores(&[[1.0, 0.0], [1.0 - 1e-7, 0.0]]);
        Normalise::Group.apply(&mut found, std::iter::once(0..2), &mut vec![]);
        assert!(column(&found, 0).iter().all(|score| score.abs() < 1e-3), "{found:?}", found = column(&found, 0));
    }

    const ALL: [[f64; 2]; 4] = [[0.0, 30.0], [1.0, 10.0], [0.5, 7.0], [0.5, 9.0]];

    /// However large an objective's scores are, it counts as much as another: and not at all where its completions score alike.
    #[test]
    fn groups_are_normalised_by_themselves() {
        let mut found = scores(&ALL);
        Normalise::Group.apply(&mut found, [0..2, 2..5].into_iter(), &mut vec![]);
        near(&column(&found, 0), &[-1.0, 1.0, 0.0, 0.0]);
        near(&column(&found, 1), &[1.0, -1.0, -1.0, 1.0]);
        assert_eq!(found.objectives[4], None);
    }

    /// Prompts at the weights (1, 0) and (½, ½): sums −1, 1 and −½, ½, whose standard deviation is √0.625.
    #[test]
    fn gdpo_normalises_the_weighted_sums_of_the_batch() {
        let mut found = scores(&ALL);
        Normalise::Gdpo.apply(&mut found, [0..2, 2..5].into_iter(), &mut vec![]);
        let weights = [[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.5, 0.5]];
        let sum = |(w, s): (&[f64; 2], &Vec<f64>)| w[0] * s[0] + w[1] * s[1];
        let mut sums: Vec<f64> = weights.iter().zip(found.objectives.iter().flatten()).map(sum).collect();
        near(&sums, &[-1.0, 1.0, -0.5, 0.5]);
        by_batch(sums.iter_mut());
        near(&sums, &[-1.264_911, 1.264_911, -0.632_456, 0.632_456]);
        let mut alike = [0.25; 3];
        by_batch(alike.iter_mut());
        assert_eq!(alike, [0.0; 3]);
    }

    #[test]
    fn running_moments_are_those_of_all_that_was_seen() {
        let mut seen = Vec::new();
        let mut found = scores(&ALL[..2]);
        Normalise::Running.apply(&mut found, std::iter::empty(), &mut seen);
        near(&column(&found, 0), &[-1.0, 1.0]);
        let mut then = scores(&ALL[2..]);
        Normalise::Running.apply(&mut then, std::iter::empty(), &mut seen);
        let all: Vec<f64> = ALL.iter().map(|s| s[1]).collect();
        let wanted: Vec<f64> = [7.0, 9.0].iter().map(|s| (s - mean(&all)) / std(&all)).collect();
        near(&column(&then, 1), &wanted);
        // What a checkpoint keeps says all.
        let kept: Vec<Moments> =
            serde_json::from_str(&serde_json::to_string(&seen).unwrap_or_default()).unwrap_or_default();
        assert_eq!(kept, seen);
    }
}
