//! From logits to a score: labels by name or index, and what becomes of their logits.

use crate::fields::{Fields, Said};
use crate::options::{Label, Options, Output};
use motrain_plugin::toolbox::{log_sigmoid, sigmoid};
use std::collections::BTreeMap;

/// The labels of a model, as config.json has them.
pub struct Labels {
    pub names: Vec<String>,
    problem: Option<String>,
}

impl Labels {
    pub fn read(f: &mut Fields) -> Said<Self> {
        let count = f.take::<usize>("num_labels")?;
        let names = match f.take::<BTreeMap<String, String>>("id2label")? {
            Some(map) => listed(map)?,
            None => (0..count.unwrap_or(2).min(1_000_000)).map(|i| format!("LABEL_{i}")).collect(),
        };
        if names.is_empty() || count.is_some_and(|n| n != names.len()) {
            return Err(format!("says num_labels = {}, but id2label has {}", count.unwrap_or(0), names.len()));
        }
        let problem = f.take::<String>("problem_type")?;
        match problem.as_deref() {
            None | Some("regression" | "single_label_classification" | "multi_label_classification") => {
                Ok(Self { names, problem })
            }
            Some(other) => Err(format!("says problem_type = \"{other}\", which transformers does not know either")),
        }
    }

    /// How the logits of this model become the score that is asked for.
    pub fn score(&self, options: &Options) -> Said<Score> {
        let label = match (&options.label, self.names.len()) {
            (Some(label), _) => self.find("label", label)?,
            (None, 1) => 0,
            (None, _) => return Err(format!("option \"label\" must say which of {} is the score", self.listed())),
        };
        let minus = match (&options.minus, options.output, self.names.len()) {
            (Some(minus), Output::Difference, _) => Some(self.find("minus", minus)?),
            (Some(_), ..) => return Err("option \"minus\" goes with output \"difference\" only".into()),
            (None, Output::Difference, 2) => Some(1 - label),
            (None, Output::Difference, _) => {
                return Err(format!("option \"minus\" must say which of {} is taken away", self.listed()));
            }
            (None, ..) => None,
        };
        if minus == Some(label) {
            return Err("options \"label\" and \"minus\" are the same label, so that every score is 0".into());
        }
        let chance = matches!(options.output, Output::Probability | Output::LogProbability);
        if chance && self.problem.as_deref() == Some("regression") {
            return Err(
                "option \"output\" must be \"logit\" or \"difference\": the model's problem_type is regression, so \
                        that it gives no probabilities"
                    .into(),
            );
        }
        let apart = self.names.len() == 1 || self.problem.as_deref() == Some("multi_label_classification");
        Ok(Score { label, minus, output: options.output, apart, scale: options.scale })
    }

    fn find(&self, option: &str, label: &Label) -> Said<usize> {
        let found = match label {
            Label::Index(i) => (*i < self.names.len()).then_some(*i),
            Label::Name(name) => self.names.iter().position(|n| n == name).or_else(|| self.alike(name)),
        };
        let asked = match label {
            Label::Index(i) => i.to_string(),
            Label::Name(name) => format!("\"{name}\""),
        };
        found.ok_or_else(|| format!("option \"{option}\": the model has no label {asked}; it has {}", self.listed()))
    }

    /// The only label that differs in case alone.
    fn alike(&self, name: &str) -> Option<usize> {
        let mut alike = (0..self.names.len()).filter(|&i| self.names[i].eq_ignore_ascii_case(name));
        alike.next().filter(|_| alike.next().is_none())
    }

    /// `0 "entailment", 1 "neutral"`
    fn listed(&self) -> String {
        const MOST: usize = 30;
        let mut all: Vec<String> =
            self.names.iter().take(MOST).enumerate().map(|(i, n)| format!("{i} \"{n}\"")).collect();
        if self.names.len() > MOST {
            all.push(format!("… {} in all", self.names.len()));
        }
        all.join(", ")
    }
}

/// Names in the order of their ids, which must be 0, 1, 2, …
fn listed(map: BTreeMap<String, String>) -> Said<Vec<String>> {
    let count = map.len();
    let mut names = vec![None; count];
    for (id, name) in map {
        let place = id.parse::<usize>().ok().and_then(|i| names.get_mut(i));
        *place
            .ok_or_else(|| format!("id2label has the id \"{id}\"; {count} labels have the ids 0 to {}", count - 1))? =
            Some(name);
    }
    names.into_iter().collect::<Option<_>>().ok_or_else(|| "id2label has an id twice".into())
}

/// Turns logits into the score.
#[derive(Debug)]
pub struct Score {
    label: usize,
    minus: Option<usize>,
    output: Output,
    /// Each label has a probability of its own.
    apart: bool,
    scale: f64,
}

impl Score {
    pub fn of(&self, logits: &[f64]) -> f64 {
        let logit = logits[self.label];
        let log_softmax = || {
            let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            logit - most - logits.iter().map(|l| (l - most).exp()).sum::<f64>().ln()
        };
        let value = match (self.output, self.apart) {
            (Output::Logit | Output::Cosine, _) => logit,
            (Output::Difference, _) => logit - self.minus.map_or(0.0, |m| logits[m]),
            (Output::Probability, true) => sigmoid(logit),
            (Output::LogProbability, true) => log_sigmoid(logit),
            (Output::Probability, false) => log_softmax().exp(),
            (Output::LogProbability, false) => log_softmax(),
        };
        value * self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(output: Output, apart: bool) -> f64 {
        let minus = (output == Output::Difference).then_some(2);
        Score { label: 1, minus, output, apart, scale: -2.0 }.of(&[0.5, 2.0, -1.0])
    }

    #[test]
    fn outputs_are_those_of_the_formulas() {
        let softmax = 2f64.exp() / (0.5f64.exp() + 2f64.exp() + (-1f64).exp());
        let sigmoid = 1.0 / (1.0 + (-2f64).exp());
        for (output, apart, expected) in [
            (Output::Logit, false, 2.0),
            (Output::Difference, false, 3.0),
            (Output::Probability, false, softmax),
            (Output::LogProbability, false, softmax.ln()),
            (Output::Probability, true, sigmoid),
            (Output::LogProbability, true, sigmoid.ln()),
        ] {
            assert!((score(output, apart) + 2.0 * expected).abs() < 1e-12, "{output:?} {apart}");
        }
    }

    /// As the pipeline of transformers chooses them.
    #[test]
    fn the_kind_of_problem_says_what_a_probability_is() {
        let probability = |count: usize, problem: &str| {
            let names = ["a", "b", "c"].iter().take(count).map(|n| (*n).to_owned()).collect();
            let labels = Labels { names, problem: Some(problem.to_owned()).filter(|p| !p.is_empty()) };
            let options = serde_json::from_value(serde_json::json!({ "model": "m", "label": "A" })).unwrap();
            labels.score(&options).map(|score| score.of(&vec![0.0; count]))
        };
        assert_eq!([probability(1, ""), probability(2, "")], [Ok(0.5), Ok(0.5)]);
        assert!((probability(3, "single_label_classification").unwrap() - 1.0 / 3.0).abs() < 1e-12);
        assert_eq!(probability(3, "multi_label_classification"), Ok(0.5));
        assert!(probability(3, "regression").unwrap_err().contains("problem_type is regression"));
    }

    #[test]
    fn what_is_far_away_stays_finite() {
        let far = |output| Score { label: 0, minus: None, output, apart: false, scale: 1.0 }.of(&[-900.0, 900.0]);
        assert_eq!((far(Output::LogProbability), far(Output::Probability)), (-1800.0, 0.0));
    }
}
