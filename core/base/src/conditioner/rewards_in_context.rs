//! Rewards-in-Context (Yang et al. 2024): the prompt names the scores that the answer should get. Weights become target scores by a map
//! between the lowest and the highest score that training saw.

use super::{Conditioner, on_last_user};
use crate::options::{Checked, Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Error, Prompt, Result, Weights};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Yang et al. 2024, Rewards-in-Context (arXiv 2402.10207).
pub const BUILTIN: Builtin<dyn Conditioner> = Builtin {
    name: "rewards_in_context",
    summary: "target scores instead of weights: <rm1_score> 1.3 <rm2_score> -0.8 (Rewards-in-Context)",
    schema: schema::<RewardsInContext>(),
    build: |owner, options| Ok(Box::new(parse::<RewardsInContext>(owner, options)?)),
};

/// Scores of the offline stage's answers, per objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Statistics {
    /// Mean by which scores are normalised, one per objective.
    #[schemars(length(min = 1, max = 32), inner(range(min = -1e12, max = 1e12)))]
    pub mean: Vec<f64>,
    /// Standard deviation, as `mean`.
    #[schemars(length(min = 1, max = 32), inner(range(min = 1e-9, max = 1e12)))]
    pub std: Vec<f64>,
    /// Lowest normalised score, one per objective.
    #[schemars(length(min = 1, max = 32), inner(range(min = -1e12, max = 1e12)))]
    pub low: Vec<f64>,
    /// Highest normalised score, as `low`.
    #[schemars(length(min = 1, max = 32), inner(range(min = -1e12, max = 1e12)))]
    pub high: Vec<f64>,
}

impl Statistics {
    /// z-normalised scores, as they stand in prompts.
    pub fn normalise(&self, scores: &[f64]) -> Vec<f64> {
        (0..scores.len()).map(|k| (scores[k] - self.mean[k]) / self.std[k]).collect()
    }

    /// Scores of these normalised ones.
    pub fn scores(&self, normalised: &[f64]) -> Vec<f64> {
        (0..normalised.len()).map(|k| self.mean[k] + normalised[k] * self.std[k]).collect()
    }

    /// The statistics of columns of scores, one per objective.
    pub fn of(columns: &[Vec<f64>]) -> Self {
        use crate::metrics::stats::{mean, std};
        let (means, stds): (Vec<f64>, Vec<f64>) = columns.iter().map(|c| (mean(c), std(c).max(1e-9))).unzip();
        let edge = |pick: fn(f64, f64) -> f64, from: f64| {
            let of = |k: usize| columns[k].iter().map(|x| (x - means[k]) / stds[k]).fold(from, pick);
            (0..columns.len()).map(of).collect()
        };
        let (low, high) = (edge(f64::min, f64::INFINITY), edge(f64::max, f64::NEG_INFINITY));
        Self { mean: means, std: stds, low, high }
    }
}

/// Statistics, or the `ric_data` stage that fits them.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "option \"statistics\" must be a ric_data stage, or { mean, std, low, high }")]
enum Fitted {
    Stage {
        #[schemars(length(min = 1, max = 100))]
        stage: String,
    },
    Here(Statistics),
}

/// How weights become target scores.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Map {
    /// The largest weight gets the highest score, others a share of K·w.
    Linf,
    /// A share of w/‖w‖₂ (the authors' choice for evaluation).
    #[default]
    L2,
    /// A share of w.
    Linear,
}

impl Map {
    /// The share of the way from the lowest to the highest score, per objective.
    fn shares(self, w: &[f64]) -> Vec<f64> {
        let norm = w.iter().map(|x| x * x).sum::<f64>().sqrt();
        let largest = (0..w.len()).fold(0, |m, i| if w[i] > w[m] { i } else { m });
        let share = |(i, x): (usize, &f64)| match self {
            Self::Linf if i == largest => 1.0,
            Self::Linf => (x * w.len() as f64).min(1.0),
            Self::L2 => x / norm,
            Self::Linear => *x,
        };
        w.iter().enumerate().map(share).collect()
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RewardsInContext {
    /// "linf", "l2" or "linear".
    #[serde(default)]
    map: Map,
    /// Mean, standard deviation and range of the scores: a `ric_data` stage, or { mean = [..], std = [..], low = [..], high = [..] }.
    statistics: Fitted,
}

impl Options for RewardsInContext {
    fn check(&self) -> Checked {
        let Fitted::Here(s) = &self.statistics else { return Ok(()) };
        let all = [&s.std, &s.low, &s.high];
        if all.iter().any(|x| x.len() != s.mean.len()) {
            return Err(("statistics", "needs mean, std, low and high with a number per objective".into()));
        }
        if s.low.iter().zip(&s.high).any(|(l, h)| l >= h) {
            return Err(("statistics", "has a low that is not below its high".into()));
        }
        Ok(())
    }
}

impl RewardsInContext {
    fn fitted(&self, objectives: usize) -> Result<&Statistics> {
        let bad = |what: String| Error::BadOption {
            owner: "conditioner \"rewards_in_context\"".into(),
            option: "statistics".into(),
            what,
        };
        match &self.statistics {
            Fitted::Here(s) if s.mean.len() == objectives => Ok(s),
            Fitted::Here(s) => Err(bad(format!("is for {} objectives, not {objectives}", s.mean.len()))),
            Fitted::Stage { stage } => Err(bad(format!(
                "of stage \"{stage}\" is not fitted; it must be an offline ric_data stage that has run"
            ))),
        }
    }
}

/// Prompts that name scores by these statistics.
pub fn of(statistics: Statistics) -> Box<dyn Conditioner> {
    Box::new(RewardsInContext { map: Map::default(), statistics: Fitted::Here(statistics) })
}

/// A prompt under normalised scores, with one decimal each and never `-0.0`.
fn with_scores(prompt: &Prompt, scores: &[f64]) -> Result<Prompt> {
    let one = |(k, s): (usize, &f64)| format!(" <rm{}_score> {:.1}", k + 1, (s * 10.0).round() / 10.0 + 0.0);
    let told: String = scores.iter().enumerate().map(one).collect();
    on_last_user(prompt, |text| Some(format!("{text}{told}")))
        .ok_or_else(|| Error::Invalid("a prompt without a user turn cannot be conditioned on scores".into()))
}

/// Scores drawn for an online round: uniform between the lowest and the highest, then all but the smallest set to the highest.
pub fn goals(statistics: &Statistics, uniform: &[f64]) -> Vec<f64> {
    let at = |k: usize| statistics.low[k] + uniform[k] * (statistics.high[k] - statistics.low[k]);
    let drawn: Vec<f64> = (0..uniform.len()).map(at).collect();
    let smallest = (0..drawn.len()).fold(0, |m, i| if drawn[i] < drawn[m] { i } else { m });
    (0..drawn.len()).map(|k| if k == smallest { drawn[k] } else { statistics.high[k] }).collect()
}

impl Conditioner for RewardsInContext {
    fn render(&self, objectives: &[String], weights: &Weights, prompt: &Prompt) -> Result<Prompt> {
        let s = self.fitted(objectives.len())?;
        let shares = self.map.shares(weights.values());
        let targets: Vec<f64> = (0..shares.len()).map(|k| s.low[k] + shares[k] * (s.high[k] - s.low[k])).collect();
        with_scores(prompt, &targets)
    }

    /// Targets are rounded, so weights come back to the nearest tenth.
    fn parse(&self, objectives: &[String], conditioned: &Prompt) -> Option<(Weights, Prompt)> {
        let s = self.fitted(objectives.len()).ok()?;
        let mut shares = Vec::new();
        let plain = on_last_user(conditioned, |text| {
            let mut rest = text;
            for k in (0..objectives.len()).rev() {
                let (before, number) = rest.rsplit_once(&format!(" <rm{}_score> ", k + 1))?;
                shares.push((number.parse::<f64>().ok()? - s.low[k]) / (s.high[k] - s.low[k]));
                rest = before;
            }
            Some(rest.to_owned())
        })?;
        shares.reverse();
        let largest = (0..shares.len()).fold(0, |m, i| if shares[i] > shares[m] { i } else { m });
        if let Map::Linf = self.map {
            let k = shares.len() as f64;
            let others: f64 = shares.iter().sum::<f64>() - shares[largest];
            shares[largest] = k - others;
        }
        let positive: Vec<f64> = shares.iter().map(|x| x.max(0.0)).collect();
        let sum: f64 = positive.iter().sum();
        let values: Vec<f64> = positive.iter().map(|x| x / sum).collect();
        Some((Weights::quantised(&values, 10).ok()?, plain))
    }

    fn with_scores(&self, objectives: &[String], scores: &[f64], prompt: &Prompt) -> Result<Option<Prompt>> {
        with_scores(prompt, &self.fitted(objectives.len())?.normalise(scores)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn conditioner(map: &str, objectives: usize) -> RewardsInContext {
        let same = |x: f64| vec![x; objectives];
        let statistics = json!({ "mean": same(0.0), "std": same(1.0), "low": same(-4.0), "high": same(4.0) });
        parse("x", &json!({ "map": map, "statistics": statistics })).unwrap()
    }

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("o{i}")).collect()
    }

    #[test]
    fn golden_maps() {
        let golden: [(&[f64], [&[f64]; 3]); 5] = [
            (&[1.0, 0.0], [&[4.0, -4.0], &[4.0, -4.0], &[4.0, -4.0]]),
            (&[0.8, 0.2], [&[4.0, -0.8], &[3.8, -2.1], &[2.4, -2.4]]),
            (&[0.5, 0.5], [&[4.0, 4.0], &[1.7, 1.7], &[0.0, 0.0]]),
            (&[0.3, 0.7], [&[0.8, 4.0], &[-0.8, 3.4], &[-1.6, 1.6]]),
            (&[0.2, 0.3, 0.5], [&[0.8, 3.2, 4.0], &[-1.4, -0.1, 2.5], &[-2.4, -1.6, 0.0]]),
        ];
        for (w, by_map) in golden {
            for (map, targets) in ["linf", "l2", "linear"].into_iter().zip(by_map) {
                let ric = conditioner(map, w.len());
                let weights = Weights::new(w.to_vec()).unwrap();
                let conditioned = ric.render(&names(w.len()), &weights, &Prompt::user("Why?")).unwrap();
                let said: String =
                    targets.iter().enumerate().map(|(k, t)| format!(" <rm{}_score> {t:.1}", k + 1)).collect();
                assert_eq!(conditioned.last_user(), format!("Why?{said}"), "{map}");
                assert_eq!(ric.parse(&names(w.len()), &conditioned), Some((weights, Prompt::user("Why?"))), "{map}");
            }
        }
    }

    #[test]
    fn zero_has_no_sign() {
        assert_eq!(
            with_scores(&Prompt::user("x"), &[-0.04, 0.04]).unwrap().last_user(),
            "x <rm1_score> 0.0 <rm2_score> 0.0"
        );
    }

    #[test]
    fn goals_ask_for_all_but_one_at_its_highest() {
        let statistics = Statistics::of(&[vec![0.0, 1.0], vec![0.0, 1.0]]);
        let goals = goals(&statistics, &[0.9, 0.25]);
        assert_eq!(goals[0], statistics.high[0]);
        assert!(goals[1] > statistics.low[1] && goals[1] < statistics.high[1]);
    }

    #[test]
    fn statistics_must_be_fitted() {
        let ric: RewardsInContext = parse("x", &json!({ "statistics": { "stage": "offline" } })).unwrap();
        let error = ric.render(&names(2), &Weights::new(vec![0.5, 0.5]).unwrap(), &Prompt::user("x")).unwrap_err();
        assert!(error.to_string().contains("of stage \"offline\" is not fitted"), "{error}");
    }
}
