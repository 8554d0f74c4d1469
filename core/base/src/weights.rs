//! Objective weights: a point on the simplex.

use crate::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Points of a grid: more is a slip of the step.
const POINTS: usize = 100_000;

/// Non-negative weights that sum to 1, one per objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>", into = "Vec<f64>")]
pub struct Weights(Vec<f64>);

impl Weights {
    /// Checks that every weight is finite and not negative and that they sum to 1 (within 1e-6).
    pub fn new(values: Vec<f64>) -> Result<Self> {
        let bad = |what: String| Error::BadWeights { weights: format!("{values:?}"), what };
        if values.is_empty() {
            return Err(bad("there must be one weight per objective".into()));
        }
        if let Some(w) = values.iter().find(|w| !w.is_finite() || **w < 0.0) {
            return Err(bad(format!("{w} is not a weight; each must be at least 0")));
        }
        let sum: f64 = values.iter().sum();
        if (sum - 1.0).abs() > 1e-6 {
            return Err(bad(format!("they sum to {}, but weights must sum to 1", (sum * 1e6).round() / 1e6)));
        }
        Ok(Self(values))
    }

    /// The nearest point (in L1) of the grid with `steps` parts, by largest remainder: the parts sum to `steps` exactly.
    pub fn quantised(values: &[f64], steps: u32) -> Result<Self> {
        let weights = Self::new(values.to_vec())?;
        let scaled: Vec<f64> = weights.0.iter().map(|w| w * f64::from(steps)).collect();
        let mut parts: Vec<u32> = scaled.iter().map(|s| (s + 1e-9).floor() as u32).collect();
        let left = steps.saturating_sub(parts.iter().sum());
        let mut order: Vec<usize> = (0..parts.len()).collect();
        let remainder = |i: usize| scaled[i] - f64::from(parts[i]);
        order.sort_by(|&a, &b| remainder(b).total_cmp(&remainder(a)).then(a.cmp(&b)));
        for &i in order.iter().take(left as usize) {
            parts[i] += 1;
        }
        Ok(Self::from_parts(&parts, steps))
    }

    fn from_parts(parts: &[u32], steps: u32) -> Self {
        Self(parts.iter().map(|&p| f64::from(p) / f64::from(steps)).collect())
    }

    /// Every point of the grid with `steps` parts, in lexicographic order. For two objectives and 10 steps these are
    /// the paper's 11 evaluation points (section 5.1).
    pub fn grid(objectives: usize, steps: u32) -> Vec<Self> {
        fn fill(prefix: &mut Vec<u32>, left: u32, places: usize, out: &mut Vec<Vec<u32>>) {
            if places == 1 {
                prefix.push(left);
                out.push(prefix.clone());
                prefix.pop();
                return;
            }
            for part in 0..=left {
                prefix.push(part);
                fill(prefix, left - part, places - 1, out);
                prefix.pop();
            }
        }
        let mut out = Vec::new();
        if objectives > 0 && steps > 0 {
            fill(&mut Vec::new(), steps, objectives, &mut out);
        }
        out.iter().map(|parts| Self::from_parts(parts, steps)).collect()
    }

    /// One per objective, adding up to 1.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// How many objectives there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: there is one weight at least.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether they are the same weights, but for rounding.
    pub fn is_near(&self, other: &Self) -> bool {
        self.len() == other.len() && self.0.iter().zip(&other.0).all(|(a, b)| (a - b).abs() < 1e-6)
    }

    /// The weighted score of equation 1: `Σ w_k s_k`.
    pub fn dot(&self, scores: &[f64]) -> f64 {
        self.0.iter().zip(scores).map(|(w, s)| w * s).sum()
    }
}

impl JsonSchema for Weights {
    fn schema_name() -> Cow<'static, str> {
        "Weights".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = json_schema!({ "type": "number", "minimum": 0, "maximum": 1 });
        json_schema!({ "type": "array", "items": one, "minItems": 1, "maxItems": 32, "format": "weights" })
    }
}

impl TryFrom<Vec<f64>> for Weights {
    type Error = Error;
    fn try_from(values: Vec<f64>) -> Result<Self> {
        Self::new(values)
    }
}

impl From<Weights> for Vec<f64> {
    fn from(weights: Weights) -> Self {
        weights.0
    }
}

/// The number of parts of a quantisation step: 0.1 gives 10. The step must divide 1, and be no dust.
pub fn steps_of(step: f64) -> std::result::Result<u32, String> {
    let steps = (1.0 / step).round();
    if !(1e-5..=1.0).contains(&step) || (steps * step - 1.0).abs() > 1e-9 {
        return Err(format!("is {step}, but 1 must be a whole number of steps (0.1, 0.2, 0.05 …)"));
    }
    Ok(steps as u32)
}

/// The grid of a step over `objectives` objectives, if it has a sensible number of points.
pub fn grid_of(objectives: usize, step: f64) -> std::result::Result<Vec<Weights>, String> {
    let steps = steps_of(step)?;
    // C(steps + objectives − 1, objectives − 1), factor by factor.
    let points = (1..objectives)
        .try_fold(1usize, |points, k| Some(points * (steps as usize + k) / k).filter(|points| *points <= POINTS));
    match points {
        Some(_) => Ok(Weights::grid(objectives, steps)),
        None => Err(format!("is {step}, a grid of more than {POINTS} points for {objectives} objectives")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn largest_remainder_sums_exactly() {
        for k in [2usize, 3, 5] {
            for i in 0..200u64 {
                let raw: Vec<f64> = (0..k).map(|j| crate::rng::sub_seed(7, "w", i * 10 + j as u64) as f64).collect();
                let sum: f64 = raw.iter().sum();
                let w = Weights::quantised(&raw.iter().map(|r| r / sum).collect::<Vec<_>>(), 10).unwrap();
                let tenths: i64 = w.values().iter().map(|v| (v * 10.0).round() as i64).sum();
                assert_eq!(tenths, 10);
            }
        }
        assert_eq!(Weights::quantised(&[0.46, 0.27, 0.27], 10).unwrap().values(), [0.4, 0.3, 0.3]);
        assert_eq!(Weights::quantised(&[1.0, 0.0], 10).unwrap().values(), [1.0, 0.0]);
    }

    #[test]
    fn no_other_point_of_the_grid_is_nearer() {
        for (k, steps) in [(2, 10), (3, 10), (5, 4)] {
            let grid = Weights::grid(k, steps);
            for i in 0..100 {
                let raw: Vec<f64> = (0..k).map(|j| crate::rng::sub_seed(8, "w", i * 10 + j as u64) as f64).collect();
                let sum: f64 = raw.iter().sum();
                let raw: Vec<f64> = raw.iter().map(|r| r / sum).collect();
                let distance = |w: &Weights| w.values().iter().zip(&raw).map(|(a, b)| (a - b).abs()).sum::<f64>();
                let found = Weights::quantised(&raw, steps).unwrap();
                let nearest = grid.iter().map(distance).fold(f64::INFINITY, f64::min);
                assert!(distance(&found) <= nearest + 1e-9, "{raw:?} became {found:?}");
            }
        }
    }

    #[test]
    fn grid_is_the_papers() {
        let grid = Weights::grid(2, 10);
        assert_eq!(grid.len(), 11);
        assert_eq!(grid[3].values(), [0.3, 0.7]);
        assert_eq!(Weights::grid(3, 10).len(), 66);
    }

    #[test]
    fn a_grid_has_a_sensible_number_of_points() {
        assert_eq!(grid_of(3, 0.1).unwrap(), Weights::grid(3, 10));
        assert_eq!(grid_of(2, 1e-5).unwrap_err(), "is 0.00001, a grid of more than 100000 points for 2 objectives");
        assert_eq!(grid_of(5, 0.05).unwrap().len(), 10_626);
        assert!(grid_of(32, 0.1).is_err());
        assert!(grid_of(2, 1e-9).is_err() && grid_of(2, 0.0).is_err() && grid_of(2, f64::NAN).is_err());
    }

    #[test]
    fn refuses_what_is_no_weight() {
        let message = Weights::new(vec![0.5, 0.6]).unwrap_err().to_string();
        assert_eq!(message, "weights [0.5, 0.6]: they sum to 1.1, but weights must sum to 1");
        assert!(Weights::new(vec![f64::NAN, 1.0]).is_err());
        assert!(Weights::new(vec![-0.5, 1.5]).is_err());
        assert!(Weights::new(vec![]).is_err());
    }
}
