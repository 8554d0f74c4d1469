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
        let raw = draw(&alphas, rng)?;
        match steps_of(self.step) {
            Ok(steps) => Weights::quantised(&raw, steps),
            Err(_) => Weights::new(raw),
        }
    }
}

/// Normalised Gamma draws, in logarithms: for a small α, `Gamma(α) = Gamma(α+1)·U^(1/α)` underflows otherwise.
fn draw(alphas: &[f64], rng: &mut Rng) -> Result<Vec<f64>> {
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
    use crate::rng::rng;

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
        let sampler: Dirichlet = parse("x", &serde_json::json!({"alpha": 0.01})).unwrap();
        let at_vertex =
            (0..200).filter(|&i| sampler.sample(2, i, &mut rng(1, "t", i)).unwrap().values().contains(&1.0)).count();
        assert!(at_vertex > 180, "{at_vertex}");
    }

    /// Rounding gives the ends half a cell: 0.05, and 0.1 to each point between.
    #[test]
    fn rounding_draws_the_ends_half_as_often() {
        let (sampler, n) = (Dirichlet::default(), 20_000);
        let mut count = [0; 11];
        for i in 0..n {
            let w = sampler.sample(2, i, &mut rng(2, "t", i)).unwrap();
            count[(w.values()[0] * 10.0).round() as usize] += 1;
        }
        for (tenths, c) in count.iter().enumerate() {
            let (share, expected) = (f64::from(*c) / n as f64, if tenths % 10 == 0 { 0.05 } else { 0.1 });
            assert!((share - expected).abs() < 4.5 * (expected / n as f64).sqrt(), "{tenths}: {share}");
        }
    }

    #[test]
    fn refuses_alpha_of_zero() {
        let error = parse::<Dirichlet>("sampler \"dirichlet\"", &serde_json::json!({"alpha": 0})).err().unwrap();
        assert_eq!(error.to_string(), "sampler \"dirichlet\": option \"alpha\" must be at least 0.000001, not 0");
    }
}
