//! `w ~ Dirichlet(α)`, quantised to a step (paper sections 3.2 and 6.1).

use super::WeightSampler;
use crate::options::{Checked, Options, parse};
use crate::registry::{Builtin, schema};
use crate::rng::Rng;
use crate::weights::steps_of;
use crate::{Error, Result, Weights};
use rand_distr::{Distribution, Gamma};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub const BUILTIN: Builtin<dyn WeightSampler> = Builtin {
    name: "dirichlet",
    summary: "w ~ Dirichlet(alpha), rounded to a step by largest remainder",
    schema: schema::<Dirichlet>(),
    build: |owner, options| Ok(Box::new(parse::<Dirichlet>(owner, options)?)),
};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum Alpha {
    All(#[schemars(range(min = 1e-6, max = 1e6))] f64),
    Each(#[schemars(length(min = 1, max = 32), inner(range(min = 1e-6, max = 1e6)))] Vec<f64>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Dirichlet {
    /// Concentration: one number, or one per objective. 1 is uniform before rounding, less favours the extremes, more the centre.
    alpha: Alpha,
    /// Weights are rounded to multiples of this, so that the two ends of an objective are drawn half as often as what lies between; 0
    /// leaves them as drawn.
    #[schemars(range(min = 0, max = 1))]
    step: f64,
}

impl Default for Dirichlet {
    fn default() -> Self {
        Self { alpha: Alpha::All(1.0), step: 0.1 }
    }
}

impl Options for Dirichlet {
    fn check(&self) -> Checked {
        if self.step != 0.0 {
            steps_of(self.step).map_err(|what| ("step", what))?;
        }
        Ok(())
    }
}

impl WeightSampler for Dirichlet {
    fn sample(&self, objectives: usize, _index: u64, rng: &mut Rng) -> Result<Weights> {
        let alphas = match &self.alpha {
            Alpha::All(a) => vec![*a; objectives],
            Alpha::Each(a) if a.len() == objectives => a.clone(),
            Alpha::Each(a) => {
                let what = format!("has {} numbers for {objectives} objectives", a.len());
                return Err(Error::BadOption { owner: "sampler \"dirichlet\"".into(), option: "alpha".into(), what });
            }
        };
        rounded(draw(&alphas, rng)?, self.step)
    }
}

/// The nearest multiples of a step; with a step of 0 the weights as they are.
pub(super) fn rounded(raw: Vec<f64>, step: f64) -> Result<Weights> {
    match steps_of(step) {
        Ok(steps) => Weights::quantised(&raw, steps),
        Err(_) => Weights::new(raw),
    }
}

/// Normalised Gamma draws, in logarithms: for a small α, `Gamma(α) = Gamma(α+1)·U^(1/α)` underflows otherwise.
pub(super) fn draw(alphas: &[f64], rng: &mut Rng) -> Result<Vec<f64>> {
    let mut logs = Vec::with_capacity(alphas.len());
    for &alpha in alphas {
        let gamma =
            Gamma::new(alpha + 1.0, 1.0).map_err(|e| Error::Invalid(format!("Dirichlet alpha {alpha}: {e}")))?;
        let uniform: f64 = rand::Rng::random::<f64>(rng).max(f64::MIN_POSITIVE);
        logs.push(gamma.sample(rng).ln() + uniform.ln() / alpha);
    }
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let raw: Vec<f64> = logs.iter().map(|l| (l - top).exp()).collect();
    let sum: f64 = raw.iter().sum();
    Ok(raw.iter().map(|r| r / sum).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::stats;
    use crate::rng::rng;
    use serde_json::json;

    #[test]
    fn marginals_of_the_uniform_simplex() {
        let n = 20_000;
        let (mut sum, mut square) = (0.0, 0.0);
        for i in 0..n {
            let w = draw(&[1.0; 3], &mut rng(1, "t", i)).unwrap();
            sum += w[0];
            square += w[0] * w[0];
        }
        let mean = sum / n as f64;
        let variance = square / n as f64 - mean * mean;
        assert!((mean - 1.0 / 3.0).abs() < 0.006, "{mean}");
        assert!((variance - 0.0556).abs() < 0.003, "{variance}");
    }

    #[test]
    fn small_alpha_reaches_the_vertices() {
        let sampler: Dirichlet = parse("x", &json!({"alpha": 0.01})).unwrap();
        let at_vertex =
            (0..200).filter(|&i| sampler.sample(2, i, &mut rng(1, "t", i)).unwrap().values().contains(&1.0)).count();
        assert!(at_vertex > 180, "{at_vertex}");
    }

    /// With alpha = 1 a point is drawn as often as the share of the simplex that is nearest to it: of a line, the ends have half a cell; of a
    /// triangle, a point inside has a hexagon, one of an edge half of it and a corner a sixth.
    #[test]
    fn rounding_draws_a_point_as_often_as_its_cell_is_large() {
        for (objectives, step, cells) in [(2, 0.1, [0.0, 0.1, 0.05]), (3, 0.25, [1.0 / 8.0, 1.0 / 16.0, 1.0 / 48.0])] {
            let sampler = Dirichlet { step, ..Dirichlet::default() };
            let grid = Weights::grid(objectives, (1.0 / step) as u32);
            let (n, mut count) = (20_000, vec![0; grid.len()]);
            for i in 0..n {
                let w = sampler.sample(objectives, i, &mut rng(2, "t", i)).unwrap();
                count[grid.iter().position(|p| *p == w).unwrap()] += 1;
            }
            for (point, c) in grid.iter().zip(count) {
                // Weights of 0: none inside (two objectives have no inside but their edge), all but one in a corner.
                let zeros = point.values().iter().filter(|v| **v == 0.0).count();
                let expected = if objectives == 2 { cells[1 + zeros] } else { cells[zeros] };
                let share = f64::from(c) / n as f64;
                assert!(
                    (share - expected).abs() < 4.5 * (expected / n as f64).sqrt(),
                    "{point:?}: {share}, not {expected}"
                );
            }
        }
    }

    /// The moments of `Dirichlet(α)`: `αₖ/A` and `αₖ(A − αₖ)/(A²(A + 1))` with `A = Σα`.
    #[test]
    fn alpha_sets_how_widely_weights_scatter_and_around_what() {
        let n = 20_000;
        for (alpha, moments) in [
            (json!(0.2), [(0.5, 0.25 / 1.4), (0.5, 0.25 / 1.4)].as_slice()),
            (json!(1.0), &[(0.5, 1.0 / 12.0), (0.5, 1.0 / 12.0)]),
            (json!(5.0), &[(0.5, 0.25 / 11.0), (0.5, 0.25 / 11.0)]),
            (json!([1.0, 3.0]), &[(0.25, 3.0 / 80.0), (0.75, 3.0 / 80.0)]),
            (json!([0.5, 0.5, 2.0]), &[(1.0 / 6.0, 5.0 / 144.0), (1.0 / 6.0, 5.0 / 144.0), (2.0 / 3.0, 1.0 / 18.0)]),
        ] {
            let sampler: Dirichlet = parse("x", &json!({ "alpha": alpha, "step": 0.0 })).unwrap();
            let drawn: Vec<Weights> =
                (0..n).map(|i| sampler.sample(moments.len(), i, &mut rng(3, "t", i)).unwrap()).collect();
            for (k, (mean, variance)) in moments.iter().enumerate() {
                let column: Vec<f64> = drawn.iter().map(|w| w.values()[k]).collect();
                let (m, v) = (stats::mean(&column), stats::std(&column).powi(2));
                assert!((m - mean).abs() < 4.5 * (variance / n as f64).sqrt(), "{alpha} {k}: mean {m}, not {mean}");
                assert!((v / variance - 1.0).abs() < 0.06, "{alpha} {k}: variance {v}, not {variance}");
            }
        }
    }

    #[test]
    fn refuses_alpha_of_zero() {
        let error = parse::<Dirichlet>("sampler \"dirichlet\"", &json!({"alpha": 0})).err().unwrap();
        assert_eq!(error.to_string(), "sampler \"dirichlet\": option \"alpha\" must be at least 0.000001, not 0");
    }
}
