//! From a classifier's logits to a score: labels by name or index, and what becomes of their logits. The options have the names of the
//! encoder plugin's.

use crate::model::{Head, Labels};
use motrain_core::options::Checked;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;

/// How a score is read, flattened into the options of `reward_model`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ReadingOptions {
    /// The label whose value is the score: a name of config.json's id2label, or its index. Only a model with one label needs none, and one
    /// with a gate, whose score is then the gated sum of its objectives.
    #[serde(default)]
    pub label: Option<Label>,
    /// The label that output "difference" takes away; of two labels the other one.
    #[serde(default)]
    pub minus: Option<Label>,
    /// In the place of `label`: the score is the sum of these labels' values, by name (or index as text), times their weights, for example
    /// #{ helpfulness: 0.65, verbosity: -0.2 }.
    #[serde(default)]
    #[schemars(extend("minProperties" = 1, "maxProperties" = 100_000, "additionalProperties" = json!({
        "type": "number", "minimum": -1e6, "maximum": 1e6
    })))]
    pub weights: Option<BTreeMap<String, f64>>,
    /// What becomes of a label's logit. "probability" is the softmax over the labels, or the sigmoid of one label or of problem_type
    /// "multi_label_classification"; "log_probability" its logarithm; "difference" the logit less that of `minus`.
    #[serde(default)]
    pub output: Output,
    /// What the score is multiplied by: -1 turns a cost, which is better when lower, into a reward.
    #[serde(default = "one")]
    #[schemars(range(min = -1e6, max = 1e6))]
    pub scale: f64,
}

fn one() -> f64 {
    1.0
}

/// A label by its index or its name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Label {
    /// Counted from 0.
    Index(#[schemars(range(min = 0, max = 100_000))] usize),
    /// As id2label has it.
    Name(#[schemars(length(min = 1, max = 1000))] String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    #[default]
    Logit,
    Probability,
    LogProbability,
    Difference,
}

impl Output {
    fn is_chance(self) -> bool {
        matches!(self, Self::Probability | Self::LogProbability)
    }
}

impl ReadingOptions {
    /// What goes together, whatever the model.
    pub fn check(&self) -> Checked {
        if self.weights.is_some() && self.label.is_some() {
            return Err(("weights", "and label exclude each other; weigh the label too".into()));
        }
        if self.weights.is_some() && self.output == Output::Difference {
            return Err(("weights", "go with logits and probabilities; a difference is a weight of -1".into()));
        }
        if self.minus.is_some() && self.output != Output::Difference {
            return Err(("minus", "goes with output: \"difference\" only".into()));
        }
        if self.scale == 0.0 {
            return Err(("scale", "must not be 0: every score would be 0".into()));
        }
        Ok(())
    }
}

/// Turns the numbers that a model gives for a completion into its score.
#[derive(Debug)]
pub struct Reading {
    /// Values and their weights.
    terms: Vec<(usize, f64)>,
    output: Output,
    /// Each label has a probability of its own.
    apart: bool,
}

impl Reading {
    /// How a model is read, or which option does not fit it.
    pub fn of(options: &ReadingOptions, head: Head, labels: &Labels) -> Result<Self, String> {
        let problem = labels.problem.as_deref();
        if options.output.is_chance() {
            gives_probabilities(head, problem)?;
        }
        let labels = Names(&labels.names);
        let count = labels.0.len();
        let mut terms = match (&options.weights, &options.label) {
            (Some(weights), _) => labels.weighed(weights)?,
            (None, Some(label)) => vec![(labels.find("label", label)?, 1.0)],
            // Behind its objectives lies their gated sum.
            (None, None) if matches!(head, Head::Gated(_)) => vec![(count, 1.0)],
            (None, None) if count == 1 => vec![(0, 1.0)],
            (None, None) => {
                return Err(format!(
                    "has {count} labels ({}): option \"label\" must say which is the score, or \"weights\" how they add up",
                    labels.listed()
                ));
            }
        };
        if options.output == Output::Difference {
            let minus = match (&options.minus, count) {
                (Some(minus), _) => labels.find("minus", minus)?,
                (None, 2) if options.label.is_some() => 1 - terms[0].0,
                (None, 1) => return Err("has one label; option \"output\": \"difference\" is of two".into()),
                (None, _) => {
                    let listed = labels.listed();
                    return Err(format!(
                        "has {count} labels ({listed}): options \"label\" and \"minus\" must say of which the difference is"
                    ));
                }
            };
            if minus == terms[0].0 {
                return Err("options \"label\" and \"minus\" are the same label, so that every score would be 0".into());
            }
            terms.push((minus, -1.0));
        }
        terms.iter_mut().for_each(|(_, weight)| *weight *= options.scale);
        let apart = count == 1 || problem == Some("multi_label_classification");
        Ok(Self { terms, output: options.output, apart })
    }

    /// Whether higher numbers of the model are lower scores.
    pub fn turns_around(&self) -> bool {
        self.terms.iter().all(|(_, weight)| *weight < 0.0)
    }

    pub fn score(&self, values: &[f64]) -> f64 {
        let value = |&(i, weight): &(usize, f64)| weight * self.value(values, i);
        self.terms.iter().map(value).sum()
    }

    fn value(&self, values: &[f64], i: usize) -> f64 {
        if !self.output.is_chance() {
            return values[i];
        }
        // σ(x) is the softmax over x and 0.
        let all = if self.apart { vec![values[i], 0.0] } else { values.to_vec() };
        let most = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log = values[i] - most - all.iter().map(|x| (x - most).exp()).sum::<f64>().ln();
        if self.output == Output::Probability { log.exp() } else { log }
    }
}

fn gives_probabilities(head: Head, problem: Option<&str>) -> Result<(), String> {
    let why = match problem {
        _ if head != Head::Score => "its head gives scores that are no logits of labels",
        Some("regression") => "its problem_type is regression",
        _ => return Ok(()),
    };
    Err(format!("gives no probabilities, since {why}: option \"output\" must be \"logit\" or \"difference\""))
}

/// The labels of a model.
struct Names<'a>(&'a [String]);

impl Names<'_> {
    fn find(&self, option: &str, label: &Label) -> Result<usize, String> {
        let found = match label {
            Label::Index(i) => (*i < self.0.len()).then_some(*i),
            Label::Name(name) => self.named(name),
        };
        let asked = match label {
            Label::Index(i) => i.to_string(),
            Label::Name(name) => format!("\"{name}\""),
        };
        found.ok_or_else(|| self.lacks(option, &asked))
    }

    /// The label of that name, or the only one that differs from it in case alone.
    fn named(&self, name: &str) -> Option<usize> {
        let mut alike = (0..self.0.len()).filter(|&i| self.0[i].eq_ignore_ascii_case(name));
        let exactly = self.0.iter().position(|n| n == name);
        exactly.or_else(|| alike.next().filter(|_| alike.next().is_none()))
    }

    fn weighed(&self, weights: &BTreeMap<String, f64>) -> Result<Vec<(usize, f64)>, String> {
        let mut terms: Vec<(usize, f64)> = Vec::new();
        for (name, weight) in weights {
            let index = || name.parse().ok().filter(|i| *i < self.0.len());
            let found = self.named(name).or_else(index);
            let label = found.ok_or_else(|| self.lacks("weights", &format!("\"{name}\"")))?;
            if terms.iter().any(|(other, _)| *other == label) {
                return Err(format!("option \"weights\" names the label \"{}\" twice", self.0[label]));
            }
            terms.push((label, *weight));
        }
        Ok(terms)
    }

    fn lacks(&self, option: &str, asked: &str) -> String {
        format!("has no label {asked}, which option \"{option}\" names; it has {}", self.listed())
    }

    /// `0 "entailment", 1 "neutral"`
    fn listed(&self) -> String {
        const MOST: usize = 30;
        let one = |(i, name): (usize, &String)| format!("{i} \"{name}\"");
        let mut all: Vec<String> = self.0.iter().take(MOST).enumerate().map(one).collect();
        if self.0.len() > MOST {
            all.push(format!("… {} in all", self.0.len()));
        }
        all.join(", ")
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::model::Config;
    use serde_json::Value;

    /// A classifier with three labels, with changes to its config.json.
    fn config(changes: Value) -> Config {
        let mut said = json!({
            "architectures": ["LlamaForSequenceClassification"], "hidden_size": 8, "intermediate_size": 12, "max_position_embeddings": 16,
            "model_type": "llama", "num_attention_heads": 2, "num_hidden_layers": 2, "vocab_size": 11,
            "id2label": { "0": "safe", "1": "Toxic", "2": "rude" },
        });
        said.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        Config::parse(&said.to_string()).unwrap().0
    }

    fn read(options: Value, changes: Value) -> Result<Reading, String> {
        let options: ReadingOptions = serde_json::from_value(options).unwrap();
        options.check().map_err(|(option, what)| format!("option \"{option}\" {what}"))?;
        let config = config(changes);
        Reading::of(&options, config.head, &config.labelled())
    }

    const LOGITS: [f64; 3] = [0.5, 2.0, -1.0];

    #[test]
    fn outputs_are_those_of_the_formulas() {
        let softmax = |x: f64| x.exp() / LOGITS.iter().map(|l| l.exp()).sum::<f64>();
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let many = json!({ "problem_type": "multi_label_classification" });
        let one = json!({ "id2label": { "0": "reward" } });
        let table = [
            (json!({ "label": "toxic" }), json!({}), 2.0),
            (json!({ "label": 1, "scale": -2 }), json!({}), -4.0),
            (json!({ "label": 1, "minus": "rude", "output": "difference" }), json!({}), 3.0),
            (json!({ "label": 1, "output": "probability" }), json!({}), softmax(2.0)),
            (json!({ "label": 1, "output": "log_probability" }), json!({}), softmax(2.0).ln()),
            (json!({ "label": 1, "output": "probability" }), many.clone(), sigmoid(2.0)),
            (json!({ "label": 1, "output": "log_probability" }), many, sigmoid(2.0).ln()),
            (json!({ "weights": { "safe": 2, "2": 0.5 } }), json!({}), 0.5),
            (
                json!({ "weights": { "safe": 1, "rude": -1 }, "output": "probability", "scale": 3 }),
                json!({}),
                3.0 * (softmax(0.5) - softmax(-1.0)),
            ),
            (json!({}), one.clone(), 0.5),
            (json!({ "output": "probability" }), one, sigmoid(0.5)),
            (json!({ "label": "b", "output": "difference" }), json!({ "id2label": { "0": "a", "1": "b" } }), 1.5),
        ];
        for (options, changes, expected) in table {
            let reading = read(options.clone(), changes.clone()).unwrap();
            let labels = config(changes).labels.len();
            assert!((reading.score(&LOGITS[..labels]) - expected).abs() < 1e-12, "{options}");
        }
    }

    #[test]
    fn what_is_far_away_stays_finite() {
        let far = |output: &str, problem: &str| {
            let options = json!({ "label": 0, "output": output });
            read(options, json!({ "problem_type": problem })).unwrap().score(&[-900.0, 900.0, 0.0])
        };
        assert_eq!(far("log_probability", "single_label_classification"), -1800.0);
        assert_eq!(far("log_probability", "multi_label_classification"), -900.0);
        assert_eq!(far("probability", "single_label_classification"), 0.0);
    }

    #[test]
    fn what_does_not_fit_the_model_is_named() {
        let gated = json!({
            "architectures": ["LlamaForRewardModelWithGating"], "num_objectives": 2, "id2label": { "0": "LABEL_0" },
        });
        let cost = json!({ "architectures": ["LlamaForScore"], "score_type": "cost" });
        let one = json!({ "id2label": { "0": "reward" } });
        let table = [
            (json!({}), json!({})),
            (json!({}), json!({ "id2label": null })),
            (json!({ "label": "kind" }), json!({})),
            (json!({ "label": 3 }), json!({})),
            (json!({ "label": 0, "minus": 7, "output": "difference" }), json!({})),
            (json!({ "label": 0, "output": "difference" }), json!({})),
            (json!({ "output": "difference" }), one),
            (json!({ "label": 0, "minus": "SAFE", "output": "difference" }), json!({})),
            (json!({ "label": 0, "minus": 1 }), json!({})),
            (json!({ "label": 0, "weights": { "safe": 1 } }), json!({})),
            (json!({ "weights": { "kind": 1 } }), json!({})),
            (json!({ "weights": { "safe": 1, "0": 1 } }), json!({})),
            (json!({ "weights": { "safe": 1 }, "output": "difference" }), json!({})),
            (json!({ "label": 0, "scale": 0 }), json!({})),
            (json!({ "label": 0, "output": "probability" }), json!({ "problem_type": "regression" })),
            (json!({ "label": 2 }), gated.clone()),
            (json!({ "output": "difference" }), gated.clone()),
            (json!({ "output": "probability" }), gated),
            (json!({ "output": "log_probability" }), cost),
        ];
        let said: Vec<String> = table
            .iter()
            .map(|(options, changes)| {
                format!("{options} of {changes}\n  {}", read(options.clone(), changes.clone()).unwrap_err())
            })
            .collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    /// A gated model without `label` gives the gated sum, which lies behind its objectives.
    #[test]
    fn a_gated_model_gives_its_gated_sum_or_an_objective() {
        let gated = json!({ "architectures": ["LlamaForRewardModelWithGating"], "num_objectives": 2 });
        let score = |options: Value| read(options, gated.clone()).unwrap().score(&[1.0, 2.0, 5.0]);
        assert_eq!(score(json!({})), 5.0);
        assert_eq!(score(json!({ "label": "objective_1" })), 2.0);
        assert_eq!(score(json!({ "weights": { "objective_0": 0.5, "1": 1.0 } })), 2.5);
    }
}
