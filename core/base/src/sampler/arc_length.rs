//! Weights spaced evenly along the front (SURF's arc length): in reward space rather than in weight space, where a policy may jump within one step
//! and hardly move over the next five.
//!
//! An evaluation now and then tells the sampler the front. Its points are joined to their neighbours in weight space; a draw is a uniform
//! place on the lines between them, measured in reward space, and the weights there. What moves fast is so drawn often.

use super::dirichlet::{draw, rounded};
use super::{FrontPoint, WeightSampler};
use crate::metrics::front::{distance, neighbours};
use crate::options::{Checked, Options, parse};
use crate::registry::{Builtin, schema};
use crate::rng::Rng;
use crate::weights::steps_of;
use crate::{Result, Weights};
use rand::Rng as _;
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::{Mutex, PoisonError};

pub const BUILTIN: Builtin<dyn WeightSampler> = Builtin {
    name: "arc_length",
    summary: "weights whose rewards lie evenly along the front, which evaluations feed back (SURF)",
    schema: schema::<ArcLength>(),
    build: |owner, options| Ok(Box::new(Sampler { options: parse(owner, options)?, lines: Mutex::default() })),
};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct ArcLength {
    /// The share of draws that ignore the front and are uniform, so that no region is given up.
    #[schemars(range(min = 0, max = 1))]
    explore: f64,
    /// Weights are rounded to multiples of this; 0 leaves them as drawn.
    #[schemars(range(min = 0, max = 1))]
    step: f64,
}

impl Default for ArcLength {
    fn default() -> Self {
        Self { explore: 0.2, step: 0.1 }
    }
}

impl Options for ArcLength {
    fn check(&self) -> Checked {
        match self.step == 0.0 {
            true => Ok(()),
            false => steps_of(self.step).map(|_| ()).map_err(|what| ("step", what)),
        }
    }
}

struct Sampler {
    options: ArcLength,
    lines: Mutex<Vec<Line>>,
}

/// Between two neighbouring points of the front.
struct Line {
    from: Vec<f64>,
    to: Vec<f64>,
    /// In reward space.
    length: f64,
}

impl WeightSampler for Sampler {
    fn sample(&self, objectives: usize, _index: u64, rng: &mut Rng) -> Result<Weights> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let explore = rng.random::<f64>() < self.options.explore;
        let place = rng.random::<f64>() * lines.iter().map(|line| line.length).sum::<f64>();
        let along = if explore { None } else { at(&lines, place) };
        let raw = match along.filter(|weights| weights.len() == objectives) {
            Some(weights) => weights,
            None => draw(&vec![1.0; objectives], rng)?,
        };
        rounded(raw, self.options.step)
    }

    fn wants_feedback(&self) -> bool {
        true
    }

    fn feedback(&self, front: &[FrontPoint]) -> Result<()> {
        *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = lines(front);
        Ok(())
    }
}

fn lines(front: &[FrontPoint]) -> Vec<Line> {
    let weights: Vec<Vec<f64>> = front.iter().map(|p| p.weights.values().to_vec()).collect();
    let line = |(i, j): (usize, usize)| {
        let length = distance(&front[i].rewards, &front[j].rewards);
        Line { from: weights[i].clone(), to: weights[j].clone(), length }
    };
    // A point without scores has no place.
    neighbours(&weights).into_iter().map(line).filter(|line| line.length > 0.0 && line.length.is_finite()).collect()
}

/// The weights at a distance from the beginning of the first line.
fn at(lines: &[Line], mut place: f64) -> Option<Vec<f64>> {
    for Line { from, to, length } in lines {
        if place <= *length {
            let t = place / length;
            return Some(from.iter().zip(to).map(|(a, b)| a + t * (b - a)).collect());
        }
        place -= length;
    }
    lines.last().map(|line| line.to.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::rng;
    use serde_json::{Value, json};

    fn sampler(options: Value) -> Sampler {
        Sampler { options: parse("x", &options).unwrap(), lines: Mutex::default() }
    }

    /// A policy that moves a tenth of the way up to weight ½ and the rest behind it.
    fn jumps(w: f64) -> FrontPoint {
        let x = if w <= 0.5 { 0.2 * w } else { 0.1 + 1.8 * (w - 0.5) };
        FrontPoint { weights: Weights::new(vec![w, 1.0 - w]).unwrap(), rewards: vec![x, 1.0 - x] }
    }

    #[test]
    fn draws_lie_evenly_in_reward_space() {
        let sampler = sampler(json!({ "explore": 0, "step": 0 }));
        sampler.feedback(&[0.5, 0.0, 1.0, 0.25, 0.75].map(jumps)).unwrap();
        let n = 4000;
        let rewards = (0..n).map(|i| jumps(sampler.sample(2, i, &mut rng(3, "t", i)).unwrap().values()[0]).rewards[0]);
        let mut counts = [0; 10];
        rewards.for_each(|x| counts[((x * 10.0) as usize).min(9)] += 1);
        assert!(counts.iter().all(|c| (320..480).contains(c)), "{counts:?}");
    }

    #[test]
    fn places_on_the_lines() {
        let lines = lines(&[0.0, 0.5, 1.0].map(jumps));
        let w = |place: f64| at(&lines, place * 2f64.sqrt()).unwrap()[0];
        assert_eq!(lines.len(), 2);
        for (place, weight) in [(0.0, 0.0), (0.05, 0.25), (0.1, 0.5), (0.55, 0.75), (1.0, 1.0)] {
            assert!((w(place) - weight).abs() < 1e-9, "{place}: {}", w(place));
        }
    }

    #[test]
    fn without_a_front_draws_are_uniform_and_on_the_grid() {
        for front in
            [vec![], vec![jumps(0.5)], vec![FrontPoint { rewards: vec![f64::NAN, 0.0], ..jumps(0.0) }, jumps(1.0)]]
        {
            let sampler = sampler(json!({}));
            sampler.feedback(&front).unwrap();
            let draws = (0..2000).map(|i| sampler.sample(2, i, &mut rng(4, "t", i)).unwrap().values()[0]);
            let (mut low, mut high) = (0, 0);
            for w in draws {
                assert!((w * 10.0 - (w * 10.0).round()).abs() < 1e-9, "{w}");
                low += u32::from(w < 0.45);
                high += u32::from(w > 0.55);
            }
            assert!((800..1000).contains(&low) && (800..1000).contains(&high), "{low} {high}");
        }
        assert!(sampler(json!({})).wants_feedback());
        let three = sampler(json!({ "explore": 0 }));
        three.feedback(&[0.0, 1.0].map(jumps)).unwrap();
        assert_eq!(
            three.sample(3, 0, &mut rng(0, "t", 0)).unwrap().len(),
            3,
            "a front of other objectives says nothing"
        );
    }
}
