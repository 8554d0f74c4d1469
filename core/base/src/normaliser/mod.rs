//! Normalisers of scores while training, beside the frozen scale that evaluations keep: then no objective rules for the size of its scores alone.

mod gdpo;
mod group;
mod none;
mod running;

use crate::metrics::stats::Moments;
use crate::registry::Builtin;
use std::ops::Range;

/// What a step's scaled scores become before they are trained on.
pub trait Normaliser: Send + Sync {
    /// Completions that a prompt needs.
    fn least(&self) -> usize {
        1
    }

    /// Changes `scores[completion][objective]` in place (`None`: a completion without scores), of prompts whose completions are `groups`. `seen` has the
    /// moments of each objective's scores in earlier steps, as far as this has kept them; checkpoints hold it.
    fn scores(&self, scores: &mut [Option<Vec<f64>>], groups: &[Range<usize>], seen: &mut Vec<Moments>);

    /// Whether it changes the weighted sums too, which policy gradients have and pairs have not.
    fn is_of_sums(&self) -> bool {
        false
    }

    /// Changes the weighted sums of all completions of a step in place.
    fn sums(&self, _sums: &mut [f64]) {}
}

/// What motrain ships; a new normaliser is a file and a name here.
pub const BUILTINS: &[Builtin<dyn Normaliser>] = &[none::BUILTIN, group::BUILTIN, gdpo::BUILTIN, running::BUILTIN];

/// The one that changes nothing.
pub const NONE: &str = "none";

/// A batch of tests: scores of some completions, the last without, and what they become.
#[cfg(test)]
mod trial {
    use crate::Registry;
    use crate::metrics::stats::Moments;
    use serde_json::Value;
    use std::ops::Range;

    pub type Scores = Vec<Option<Vec<f64>>>;

    pub fn scores(all: &[[f64; 2]]) -> Scores {
        all.iter().map(|s| Some(s.to_vec())).chain([None]).collect()
    }

    pub fn of(name: &str) -> Box<dyn super::Normaliser> {
        Registry::builtin().normalisers.build(name, &Value::Null).unwrap()
    }

    pub fn normalised(name: &str, all: &[[f64; 2]], groups: &[Range<usize>], seen: &mut Vec<Moments>) -> Scores {
        let mut found = scores(all);
        of(name).scores(&mut found, groups, seen);
        found
    }

    pub fn column(scores: &Scores, k: usize) -> Vec<f64> {
        scores.iter().flatten().map(|s| s[k]).collect()
    }

    pub fn near(found: &[f64], wanted: &[f64]) {
        let all = found.len() == wanted.len() && found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-3);
        assert!(all, "{found:?} is not {wanted:?}");
    }

    pub const ALL: [[f64; 2]; 4] = [[0.0, 30.0], [1.0, 10.0], [0.5, 7.0], [0.5, 9.0]];
}
