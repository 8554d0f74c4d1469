//! `front.json`: what an evaluation found, with intervals.

use super::front;
use super::stats::{bootstrap, covariances, determinant, kendall, mean, quantile, resamples, spearman};
use crate::Weights;
use crate::rng::permutation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const RESAMPLES: usize = 1000;
const SPLITS: u64 = 50;

/// One point of a front: mean rewards at one weight vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// One per objective.
    pub weights: Weights,
    /// Mean scaled reward per objective.
    pub rewards: Vec<f64>,
    /// 95 % bootstrap interval over prompts, per objective.
    pub ci: Vec<[f64; 2]>,
    /// Number of prompts.
    pub n: usize,
    /// Means of rewards that are only watched, by name (raw scores).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub watched: BTreeMap<String, f64>,
}

/// A method's front and its metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// As tables and legends show it.
    pub name: String,
    /// One per weight vector, in the order of the grid.
    pub points: Vec<Point>,
    /// Above the reference point, without what noise adds: one half of the prompts says which points stand where on the front, the other how
    /// far they reach ([`front::hypervolume_of_other_half`]), mean over halves. Of fewer than four prompts, `hypervolume_plain`.
    pub hypervolume: f64,
    /// 95 % bootstrap interval over prompts.
    pub hypervolume_ci: [f64; 2],
    /// Above the reference point, of the mean rewards as they are, as others report it. Absent from the fronts of a motrain before, whose
    /// `hypervolume` is this one.
    #[serde(default)]
    pub hypervolume_plain: Option<f64>,
    /// Mean inner product of weights and rewards.
    pub mip: f64,
    /// Mean over weights of what the best point of all would score more than the weight's own.
    pub steering_regret: f64,
    /// Rank correlation between an objective's weight and its reward, per objective.
    pub spearman: Vec<f64>,
    /// The same as Kendall's τ-b. Absent from the fronts of a motrain before, as the two below.
    #[serde(default)]
    pub kendall: Vec<f64>,
    /// CRD (MI-EPO): the mean over weights of the determinant of the covariances of one weight's scores; lower is more consistent.
    #[serde(default)]
    pub crd: Option<f64>,
    /// Spearman's ρ between the scores of each two objectives, over all prompts and weights: below 0 they conflict.
    #[serde(default)]
    pub agreement: Vec<Vec<f64>>,
    /// The same between an objective's weight and each watched reward that is paired with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spearman_watched: BTreeMap<String, Vec<f64>>,
    /// PGMORL's (`front::sparsity`); lower is denser.
    pub sparsity: f64,
    /// Grows with how unevenly neighbouring weights' points are spaced (a coefficient of variation).
    #[serde(alias = "evenness")]
    pub unevenness: f64,
    /// Indices of the points that no other point of this method dominates.
    pub non_dominated: Vec<usize>,
}

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fronts {
    /// Their names; points and weights follow this order.
    pub objectives: Vec<String>,
    /// What the hypervolume is measured above, one number per objective.
    pub reference_point: Vec<f64>,
    /// One per evaluation.
    pub methods: Vec<Method>,
    /// The hypervolume of the best of all answers that a `ceiling` stage was given, which the others can be read as shares of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<f64>,
}

/// Scores of one weight vector: `rewards[objective][prompt]` scaled, `watched[name][prompt]` raw.
pub struct Scored {
    /// One per objective.
    pub weights: Weights,
    /// `[objective][prompt]`, scaled.
    pub rewards: Vec<Vec<f64>>,
    /// `[prompt]` by name, raw.
    pub watched: BTreeMap<String, Vec<f64>>,
}

/// Computes a method's points, intervals and metrics. Every weight must have been evaluated on the same prompts in
/// the same order; the resamples are shared, so that intervals of several methods are paired.
pub fn method(name: &str, scored: &[Scored], reference_point: &[f64], seed: u64) -> Method {
    let prompts = scored.first().map_or(0, |s| s.rewards.first().map_or(0, Vec::len));
    let resamples = resamples(prompts, RESAMPLES, seed);
    let at = |x: &[f64], r: &[usize]| mean(&r.iter().map(|&i| x[i]).collect::<Vec<_>>());
    let points: Vec<Point> = scored
        .iter()
        .map(|s| Point {
            weights: s.weights.clone(),
            rewards: s.rewards.iter().map(|x| mean(x)).collect(),
            ci: s.rewards.iter().map(|x| bootstrap(&resamples, |r| at(x, r))).collect(),
            n: prompts,
            watched: s.watched.iter().map(|(k, x)| (k.clone(), mean(x))).collect(),
        })
        .collect();
    let rewards: Vec<Vec<f64>> = points.iter().map(|p| p.rewards.clone()).collect();
    let weights: Vec<Vec<f64>> = points.iter().map(|p| p.weights.values().to_vec()).collect();
    let column = |rows: &[Vec<f64>], k: usize| rows.iter().map(|r| r[k]).collect::<Vec<f64>>();
    let objectives = reference_point.len();
    let of = |r: &[usize]| -> Vec<Vec<f64>> {
        scored.iter().map(|s| s.rewards.iter().map(|x| at(x, r)).collect()).collect()
    };
    let plain = front::hypervolume(&rewards, reference_point);
    let hypervolume = if prompts < 4 { plain } else { split(prompts, seed, &of, reference_point) };
    let volumes: Vec<f64> = resamples.iter().map(|r| front::hypervolume(&of(r), reference_point)).collect();
    // Resampling adds noise, and so volume, of its own: its spread counts, not its place.
    let hypervolume_ci = [0.025, 0.975].map(|q| hypervolume + quantile(&volumes, q) - mean(&volumes));
    let watched_names: Vec<String> = points.first().map_or(vec![], |p| p.watched.keys().cloned().collect());
    let spearman_watched = watched_names
        .into_iter()
        .map(|name| {
            let values: Vec<f64> = points.iter().map(|p| p.watched[&name]).collect();
            let rho = (0..objectives).map(|k| spearman(&column(&weights, k), &values)).collect();
            (name, rho)
        })
        .collect();
    Method {
        name: name.into(),
        hypervolume,
        hypervolume_ci,
        hypervolume_plain: Some(plain),
        mip: front::mean_inner_product(&weights, &rewards),
        steering_regret: front::steering_regret(&weights, &rewards),
        spearman: (0..objectives).map(|k| spearman(&column(&weights, k), &column(&rewards, k))).collect(),
        kendall: (0..objectives).map(|k| kendall(&column(&weights, k), &column(&rewards, k))).collect(),
        crd: Some(mean(&scored.iter().map(|s| determinant(covariances(&s.rewards))).collect::<Vec<_>>())),
        agreement: agreement(scored, objectives),
        spearman_watched,
        sparsity: front::sparsity(&rewards),
        unevenness: front::unevenness(&weights, &rewards),
        non_dominated: front::non_dominated(&rewards),
        points,
    }
}

/// The hypervolume by halves of the prompts; `of` gives the points of some.
fn split(prompts: usize, seed: u64, of: &dyn Fn(&[usize]) -> Vec<Vec<f64>>, reference_point: &[f64]) -> f64 {
    let one = |i: u64| {
        let order = permutation(prompts, seed, "halves", i);
        let (a, b) = order.split_at(prompts / 2);
        let (a, b) = (of(a), of(b));
        let volume = |chosen, measured| front::hypervolume_of_other_half(chosen, measured, reference_point);
        (volume(&a, &b) + volume(&b, &a)) / 2.0
    };
    mean(&(0..SPLITS).map(one).collect::<Vec<_>>())
}

fn agreement(scored: &[Scored], objectives: usize) -> Vec<Vec<f64>> {
    let all = |k: usize| scored.iter().flat_map(|s| s.rewards[k].iter().copied()).collect::<Vec<f64>>();
    let scores: Vec<Vec<f64>> = (0..objectives).map(all).collect();
    scores.iter().map(|a| scores.iter().map(|b| spearman(a, b)).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng as _;

    fn scored(w: f64, rewards: [&[f64]; 2]) -> Scored {
        let weights = Weights::new(vec![w, 1.0 - w]).unwrap();
        Scored { weights, rewards: rewards.map(<[f64]>::to_vec).into(), watched: BTreeMap::new() }
    }

    #[test]
    fn consistency_and_conflict() {
        // Variances 2 and 8, covariance −4 and so no area; variances 2 and 2, covariance 0.
        let opposed = scored(0.0, [&[0.0, 2.0], &[8.0, 4.0]]);
        let apart = scored(1.0, [&[3.0, 5.0, 3.0, 5.0, 4.0], &[1.0, 1.0, 3.0, 3.0, 2.0]]);
        let m = method("m", &[opposed, apart], &[0.0, 0.0], 1);
        assert_eq!(m.crd, Some(0.5));
        assert_eq!((m.kendall, m.spearman), (vec![1.0, 1.0], vec![1.0, 1.0]));
        // Ranks 1 2 3.5 6.5 3.5 6.5 5 against 7 6 1.5 1.5 4.5 4.5 3.
        for rho in [m.agreement[0][1], m.agreement[1][0]] {
            assert!((rho + 2.0 / 3.0).abs() < 1e-12, "{:?}", m.agreement);
        }
        let alone = method("m", &[scored(0.5, [&[1.0], &[2.0]])], &[0.0, 0.0], 1);
        assert_eq!(alone.crd, Some(0.0));
    }

    #[test]
    fn a_front_of_before_is_read() {
        let now = method("m", &[scored(0.5, [&[1.0, 2.0], &[2.0, 1.0]])], &[0.0, 0.0], 1);
        let mut before = serde_json::to_value(&now).unwrap();
        ["kendall", "crd", "agreement", "hypervolume_plain"]
            .iter()
            .for_each(|key| drop(before.as_object_mut().unwrap().remove(*key)));
        let read: Method = serde_json::from_value(before).unwrap();
        assert_eq!(read, Method { kendall: vec![], crd: None, agreement: vec![], hypervolume_plain: None, ..now });
    }

    /// Fronts of eleven weights, measured on 64 prompts with a deviation of 0.2: the mean volume over many is the true one, whether the points
    /// are one, three or lie on an arc, and intervals hold it about as often as they say. Of the plain volumes some are a tenth too large.
    #[test]
    fn noise_adds_no_volume() {
        let points: [fn(f64) -> [f64; 2]; 3] = [
            |_| [0.48, 0.48],
            |w| {
                if w < 0.35 {
                    [0.2, 0.9]
                } else if w < 0.65 {
                    [0.5, 0.6]
                } else {
                    [0.9, 0.2]
                }
            },
            |w| [(w * std::f64::consts::FRAC_PI_2).sin(), (w * std::f64::consts::FRAC_PI_2).cos()],
        ];
        let mut excess = Vec::new();
        for (case, place) in points.iter().enumerate() {
            let at = |i: u32| place(f64::from(i) / 10.0).to_vec();
            let truth = front::hypervolume(&(0..=10).map(at).collect::<Vec<_>>(), &[0.0, 0.0]);
            let found: Vec<Method> = (0..40)
                .map(|set| {
                    let mut rng = crate::rng::rng(set, "fronts", case as u64);
                    let mut noise = || 0.2 * rng.sample::<f64, _>(rand_distr::StandardNormal);
                    let scored = |(i, weights): (usize, Weights)| Scored {
                        weights,
                        rewards: at(i as u32).iter().map(|x| (0..64).map(|_| x + noise()).collect()).collect(),
                        watched: BTreeMap::new(),
                    };
                    let all: Vec<Scored> = Weights::grid(2, 10).into_iter().enumerate().map(scored).collect();
                    method("m", &all, &[0.0, 0.0], set)
                })
                .collect();
            let of = |f: fn(&Method) -> f64| mean(&found.iter().map(f).collect::<Vec<_>>());
            assert!(
                (of(|m| m.hypervolume) - truth).abs() < 0.012,
                "case {case}: {}, not {truth}",
                of(|m| m.hypervolume)
            );
            let held = found.iter().filter(|m| m.hypervolume_ci[0] < truth && truth < m.hypervolume_ci[1]).count();
            assert!(held >= 32, "case {case}: {held} of 40 intervals hold {truth}");
            assert!(found.iter().all(|m| m.hypervolume_ci[0] < m.hypervolume && m.hypervolume < m.hypervolume_ci[1]));
            excess.push(of(|m| m.hypervolume_plain.unwrap()) / truth - 1.0);
        }
        assert!(excess[0] > 0.1 && excess[1] > 0.06 && excess[2].abs() < 0.02, "{excess:?}");
    }

    #[test]
    fn a_steered_front() {
        let scored: Vec<Scored> = Weights::grid(2, 4)
            .into_iter()
            .map(|w| {
                let norm = w.values().iter().map(|v| v * v).sum::<f64>().sqrt();
                let rewards = w
                    .values()
                    .iter()
                    .map(|v| v / norm)
                    .map(|v| (0..50).map(|i| v + f64::from(i % 5) * 0.01).collect())
                    .collect();
                Scored { weights: w, rewards, watched: BTreeMap::new() }
            })
            .collect();
        let m = method("m", &scored, &[0.0, 0.0], 1);
        assert!(m.spearman.iter().all(|rho| (rho - 1.0).abs() < 1e-12), "{:?}", m.spearman);
        assert!(m.steering_regret.abs() < 1e-12);
        assert!(m.hypervolume_ci[0] < m.hypervolume && m.hypervolume < m.hypervolume_ci[1]);
        // Deviation 0.01 * sqrt(2) over 50 prompts: 1.96 standard errors on each side.
        let [low, high] = m.points[1].ci[0];
        let width = 2.0 * 1.96 * 0.01 * 2f64.sqrt() / 50f64.sqrt();
        assert!(((high - low) / width - 1.0).abs() < 0.15, "{low} {high}");
        assert_eq!(m.points[0].n, 50);
    }
}
