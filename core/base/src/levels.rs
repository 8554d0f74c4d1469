//! Levels of an objective, such as 1 to 5: what weights ask for and what scores come to. CPO's control tokens and SteerLM's attributes are
//! written with them.

use crate::Weights;
use crate::options::Checked;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The lowest and the highest level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Levels(#[schemars(inner(range(min = 0, max = 1000)))] pub [u32; 2]);

impl Levels {
    /// For the check of the options that they are among, as `range`.
    pub fn check(self) -> Checked {
        let Self([lowest, highest]) = self;
        match lowest < highest {
            true => Ok(()),
            false => Err(("range", format!("is [{lowest}, {highest}]; the first must be below the second"))),
        }
    }

    fn span(self) -> f64 {
        f64::from(self.0[1]) - f64::from(self.0[0])
    }

    /// The levels that weights ask for: the highest of the largest weight, of others what their share of it comes to.
    pub fn asked(self, weights: &Weights) -> Vec<u32> {
        let largest = weights.values().iter().copied().fold(0.0, f64::max);
        weights.values().iter().map(|w| self.rating(w / largest)).collect()
    }

    /// A scaled score among the levels: 0 is the lowest, 1 the highest, and no score lies outside.
    pub fn reached(self, score: f64) -> f64 {
        f64::from(self.0[0]) + score.clamp(0.0, 1.0) * self.span()
    }

    /// The level nearest to a scaled score.
    pub fn rating(self, score: f64) -> u32 {
        self.reached(score).round() as u32
    }

    /// What `asked` makes these levels of, but for rounding: shares of how far they lie above the lowest.
    pub fn share(self, level: u32) -> Option<f64> {
        (self.0[0]..=self.0[1]).contains(&level).then(|| f64::from(level - self.0[0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_weights_and_scores() {
        let of = |w: f64| Levels([1, 5]).asked(&Weights::new(vec![w, 1.0 - w]).unwrap());
        assert_eq!([of(1.0), of(0.8), of(0.7), of(0.5), of(0.1)], [[5, 1], [5, 2], [5, 3], [5, 5], [1, 5]]);
        assert_eq!(Levels([0, 4]).asked(&Weights::new(vec![0.2, 0.3, 0.5]).unwrap()), [2, 2, 4]);
        assert_eq!([-0.3, 0.0, 0.49, 0.7, 1.0, 1.4].map(|s| Levels([1, 5]).rating(s)), [1, 1, 3, 4, 5, 5]);
    }
}
