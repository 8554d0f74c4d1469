//! By the prompt's own completions, each objective by itself: how GDPO (Liu et al. 2026) begins.

use super::Normaliser;
use crate::metrics::stats::Moments;
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use schemars::JsonSchema;
use serde::Deserialize;
use std::ops::Range;

pub const BUILTIN: Builtin<dyn Normaliser> = Builtin {
    name: "group",
    summary: "by the mean and deviation of the prompt's completions",
    schema: schema::<Group>(),
    build: |owner, options| Ok(Box::new(parse::<Group>(owner, options)?)),
};

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Group {}

impl Options for Group {}

impl Normaliser for Group {
    fn least(&self) -> usize {
        2
    }

    fn scores(&self, scores: &mut [Option<Vec<f64>>], groups: &[Range<usize>], _seen: &mut Vec<Moments>) {
        by_group(scores, groups);
    }
}

/// Takes away each objective's mean over a group of completions and divides by its deviation; where nothing deviates, scores become 0 or nearly so.
pub fn by_group(scores: &mut [Option<Vec<f64>>], groups: &[Range<usize>]) {
    for group in groups {
        let Some(group) = scores.get_mut(group.clone()) else { continue };
        let objectives = group.iter().flatten().map(Vec::len).next().unwrap_or(0);
        for k in 0..objectives {
            let mut moments = Moments::default();
            group.iter().flatten().for_each(|scores| moments.add(scores[k]));
            group.iter_mut().flatten().for_each(|scores| scores[k] = moments.standard(scores[k]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::trial::{ALL, column, near, normalised};

    /// What is rounding does not become a preference.
    #[test]
    fn differences_of_rounding_stay_small() {
        let found = normalised("group", &[[1.0, 0.0], [1.0 - 1e-7, 0.0]], std::slice::from_ref(&(0..2)), &mut vec![]);
        assert!(column(&found, 0).iter().all(|score| score.abs() < 1e-3), "{found:?}");
    }

    /// However large an objective's scores are, it counts as much as another: and not at all where its completions score alike.
    #[test]
    fn groups_are_normalised_by_themselves() {
        let found = normalised("group", &ALL, &[0..2, 2..5], &mut vec![]);
        near(&column(&found, 0), &[-1.0, 1.0, 0.0, 0.0]);
        near(&column(&found, 1), &[1.0, -1.0, -1.0, 1.0]);
        assert_eq!(found[4], None);
    }
}
