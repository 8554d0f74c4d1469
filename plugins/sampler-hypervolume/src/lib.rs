//! Weights drawn where the front is thinnest, as a motrain plugin: the paper's "more intelligent objective weight sampling"
//! (section 7).
//!
//! An evaluation now and then tells the sampler the front. Between two neighbouring points a new one could add at most the box
//! that they span in reward space; a gap is drawn with a probability proportional to that box, and weights are drawn between the
//! two ends. A share of the draws stays uniform on the simplex, so that no region is given up.

use motrain_plugin::toolbox::{Random, rounded};
use motrain_plugin::{Component, FrontPoint, Sampler};
use std::sync::{Mutex, PoisonError};

motrain_plugin::options! {
    /// Options of `motrain.hypervolume`.
    pub struct Options {
        /// The share of draws that ignore the front, from 0 to 1.
        explore: f64 = 0.3,
        /// Weights are rounded to multiples of this; 0 leaves them as drawn.
        step: f64 = 0.1,
    }
}

struct Hypervolume {
    options: Options,
    gaps: Mutex<Vec<Gap>>,
}

/// Two neighbouring points of the front.
#[derive(Clone, Debug, PartialEq)]
struct Gap {
    from: Vec<f64>,
    to: Vec<f64>,
    /// The hypervolume that a point in between can add at most.
    volume: f64,
}

impl Component for Hypervolume {
    const NAME: &'static str = "motrain.hypervolume";
    const SUMMARY: &'static str = "weights drawn where the front is thinnest, fed back by evaluation";
    type Options = Options;

    fn create(options: Options, _seed: u64) -> Result<Self, String> {
        if !(0.0..=1.0).contains(&options.explore) {
            return Err(format!("option \"explore\" must be from 0 to 1, not {}", options.explore));
        }
        let parts = 1.0 / options.step;
        if options.step != 0.0 && !(options.step > 0.0 && (parts - parts.round()).abs() < 1e-9) {
            return Err(format!("option \"step\" must divide 1, such as 0.1, not {}", options.step));
        }
        Ok(Self { options, gaps: Mutex::default() })
    }
}

impl Sampler for Hypervolume {
    const WANTS_FEEDBACK: bool = true;

    fn sample(&self, objectives: usize, _index: u64, seed: u64) -> Result<Vec<f64>, String> {
        let mut random = Random::new(seed);
        let gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        let explore = random.uniform() < self.options.explore;
        let chosen = if explore { None } else { pick(&gaps, random.uniform()) };
        let weights = match chosen.filter(|g| g.from.len() == objectives) {
            Some(gap) => {
                let t = random.uniform();
                gap.from.iter().zip(&gap.to).map(|(a, b)| a + t * (b - a)).collect()
            }
            None => simplex(objectives, &mut random),
        };
        Ok(if self.options.step > 0.0 { rounded(&weights, (1.0 / self.options.step).round() as u64) } else { weights })
    }

    fn feedback(&self, front: &[FrontPoint]) -> Result<(), String> {
        *self.gaps.lock().unwrap_or_else(PoisonError::into_inner) = gaps(front);
        Ok(())
    }
}

/// Neighbours in weight space with the box between their rewards.
fn gaps(front: &[FrontPoint]) -> Vec<Gap> {
    let distance =
        |a: &FrontPoint, b: &FrontPoint| -> f64 { a.weights.iter().zip(&b.weights).map(|(x, y)| (x - y).abs()).sum() };
    let nearest = |i: usize| {
        let others = (0..front.len()).filter(|j| *j != i);
        others.map(|j| distance(&front[i], &front[j])).fold(f64::INFINITY, f64::min) * (1.0 + 1e-9)
    };
    let mut out = Vec::new();
    for (i, a) in front.iter().enumerate() {
        for (j, b) in front.iter().enumerate().skip(i + 1) {
            if distance(a, b) <= nearest(i).max(nearest(j)) {
                let volume = a.rewards.iter().zip(&b.rewards).map(|(x, y)| (x - y).abs().max(1e-6)).product();
                out.push(Gap { from: a.weights.clone(), to: b.weights.clone(), volume });
            }
        }
    }
    out
}

fn pick(gaps: &[Gap], uniform: f64) -> Option<&Gap> {
    let total: f64 = gaps.iter().map(|g| g.volume).sum();
    let mut left = uniform * total;
    gaps.iter().find(|g| {
        left -= g.volume;
        left <= 0.0
    })
}

fn simplex(objectives: usize, random: &mut Random) -> Vec<f64> {
    let parts: Vec<f64> = (0..objectives).map(|_| -random.uniform().max(f64::MIN_POSITIVE).ln()).collect();
    let total: f64 = parts.iter().sum();
    parts.iter().map(|p| p / total).collect()
}

motrain_plugin::export! { samplers: [Hypervolume] }

#[cfg(test)]
mod tests {
    use super::*;

    fn point(w: f64, rewards: [f64; 2]) -> FrontPoint {
        FrontPoint { weights: vec![w, 1.0 - w], rewards: rewards.to_vec() }
    }

    fn sampler(explore: f64) -> Hypervolume {
        Hypervolume::create(Options { explore, step: 0.1 }, 0).unwrap()
    }

    #[test]
    fn the_widest_gap_gets_the_draws() {
        let sampler = sampler(0.0);
        // A front that is dense below 0.5 and has a hole between 0.5 and 1.
        let front =
            [point(0.0, [0.1, 0.9]), point(0.25, [0.12, 0.88]), point(0.5, [0.15, 0.85]), point(1.0, [0.9, 0.2])];
        sampler.feedback(&front).unwrap();
        let in_hole = (0..500).filter(|&i| sampler.sample(2, i, i).unwrap()[0] >= 0.45).count();
        assert!(in_hole > 480, "{in_hole}");
    }

    #[test]
    fn draws_lie_on_the_grid() {
        for k in [2, 3, 5] {
            for i in 0..200 {
                let w = sampler(1.0).sample(k, i, i * 31).unwrap();
                assert!((w.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                assert!(w.iter().all(|v| (v * 10.0 - (v * 10.0).round()).abs() < 1e-9));
            }
        }
    }

    #[test]
    fn neighbours_are_found_once() {
        let front = [point(0.0, [0.1, 0.9]), point(0.5, [0.5, 0.7]), point(1.0, [0.9, 0.1])];
        let found = gaps(&front);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!((found[0].volume - 0.08).abs() < 1e-12 && (found[1].volume - 0.24).abs() < 1e-12);
    }
}
