//! What stages leave that make a front: an answer to each prompt at each weight with its scores, some of them to read, and points with metrics.

use crate::decode::Completions;
use crate::files::write_json;
use crate::names;
use crate::reward::{Ensemble, Scores};
use crate::session::{Cx, Session};
use crate::{Error, Result};
use motrain_core::data::{Row, json_lines};
use motrain_core::metrics::report::{Method, Scored, method};
use motrain_core::metrics::stats::mean;
use motrain_core::{Prompt, Weights, stop};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::Path;

/// Prompts whose answers are kept for reading.
const SHOWN: usize = 6;

/// An answer to a plain prompt, as answers.jsonl keeps it.
#[derive(Serialize, Deserialize)]
pub struct Answer {
    pub weights: Weights,
    pub prompt: Prompt,
    pub completion: String,
    /// Whether the policy ended it, rather than the length limit.
    #[serde(default)]
    pub finished: Option<bool>,
    pub scores: Option<Vec<f64>>,
}

/// A front as it is made, weight by weight.
#[derive(Default)]
pub struct Front {
    /// Which answers are a prompt's, the same at all weights.
    spans: Vec<Range<usize>>,
    answered: Vec<(Weights, Scores)>,
    lines: String,
    samples: Vec<Value>,
}

impl Front {
    /// The answers to all prompts at `weights`, and their scores.
    pub fn add(&mut self, weights: &Weights, rows: &[Row], answers: &Completions, scores: Scores) {
        self.spans = (0..rows.len()).map(|prompt| answers.span(prompt)).collect();
        for (prompt, (row, span)) in rows.iter().zip(&self.spans).enumerate() {
            for i in span.clone() {
                let line = json!(Answer {
                    weights: weights.clone(),
                    prompt: row.prompt.clone(),
                    completion: answers[i].text.clone(),
                    finished: Some(answers[i].finished),
                    scores: scores.objectives[i].clone(),
                });
                self.lines += &format!("{line}\n");
                if i == span.start && prompt < SHOWN {
                    self.samples.push(line);
                }
            }
        }
        self.answered.push((weights.clone(), scores));
    }

    /// Writes the stage's files; `name` is the method's.
    pub fn save(self, stage: Cx, name: &str, objectives: &[String]) -> Result<()> {
        let scored = complete(self.answered, &self.spans, objectives, name)?;
        let reference_point = vec![0.0; objectives.len()];
        let (name, seed) = (name.to_owned(), stage.session.stages.seed());
        // Many objectives make hypervolumes slow.
        let found = stop::unless_asked(move || method(&name, &scored, &reference_point, seed))?;
        let folder = stage.folder();
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        std::fs::write(folder.join(names::ANSWERS), self.lines).map_err(|e| Error::io(&folder, e))?;
        write_json(&folder.join(names::SHOWN), &Value::Array(self.samples))?;
        let found = serde_json::to_value(found).map_err(|e| Error::invalid(e.to_string()))?;
        write_json(&folder.join(names::METHOD), &json!({ "objectives": objectives, "method": found }))
    }
}

/// Scores by weight over the prompts that have all their scores at every weight, so that weights stay comparable; means over a prompt's answers.
fn complete(
    answered: Vec<(Weights, Scores)>,
    spans: &[Range<usize>],
    objectives: &[String],
    name: &str,
) -> Result<Vec<Scored>> {
    let has_all = |scores: &Vec<Option<f64>>, span: &Range<usize>| scores[span.clone()].iter().all(Option::is_some);
    let whole = |span: &&Range<usize>| answered.iter().all(|(_, s)| s.raw.values().all(|scores| has_all(scores, span)));
    let (prompts, kept) = (spans.len(), spans.iter().filter(whole).collect::<Vec<_>>());
    if kept.is_empty() {
        return Err(Error::invalid(format!(
            "{name}: no prompt has all its scores: a reward left out an answer to each; one that asks a server says above why"
        )));
    }
    if kept.len() < prompts {
        tracing::warn!("{name}: left out {} of {prompts} prompts with missing scores", prompts - kept.len());
    }
    let one = |(weights, scores): (Weights, Scores)| {
        let means = |score: &dyn Fn(usize) -> Option<f64>| -> Vec<f64> {
            kept.iter().map(|&span| mean(&span.clone().filter_map(score).collect::<Vec<_>>())).collect()
        };
        let objective = |k: usize| means(&|i| Some(scores.objectives[i].as_ref()?[k]));
        let raw = |name: &String| means(&|i| scores.raw[name][i]);
        let watched = scores.raw.keys().filter(|n| !objectives.contains(n)).map(|n| (n.clone(), raw(n)));
        let apart = scores.ensembles.iter().map(|e| {
            let all = e.disagreement();
            (Ensemble::metric(&e.name), means(&|i| all[i]))
        });
        let watched = watched.chain(apart).collect();
        Scored { weights, rewards: (0..objectives.len()).map(objective).collect(), watched }
    };
    Ok(answered.into_iter().map(one).collect())
}

/// The answers of a finished stage at some weights of its grid.
pub fn answers(session: &Session, id: &str, weights: &Weights) -> Result<Vec<Answer>> {
    let path = session.stage_folder(id).join(names::ANSWERS);
    let mut out = Vec::new();
    for (line, row) in json_lines(&path)? {
        let answer: Answer = serde_json::from_value(row)
            .map_err(|e| Error::file(&path, format!("line {line} is no answer of an evaluation: {e}")))?;
        if answer.weights.is_near(weights) {
            out.push(answer);
        }
    }
    if out.is_empty() {
        return Err(Error::invalid(format!(
            "evaluation \"{id}\" was not done at the weights {:?}; add them to it",
            weights.values()
        )));
    }
    Ok(out)
}

/// The result of a finished stage: objectives and method.
pub fn load(stage_folder: &Path) -> Result<(Vec<String>, Method)> {
    let path = stage_folder.join(names::METHOD);
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| Error::file(&path, e.to_string()))?;
    let bad = |e: serde_json::Error| Error::file(&path, e.to_string());
    let objectives = serde_json::from_value(json["objectives"].clone()).map_err(bad)?;
    Ok((objectives, serde_json::from_value(json["method"].clone()).map_err(bad)?))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may panic")]
mod tests {
    use super::*;

    /// Three prompts with two answers each; the second prompt lacks a watched score of one.
    #[test]
    fn scores_of_a_prompt_are_the_means_of_its_answers() {
        let column = |all: [f64; 6]| all.map(|score| Some(vec![score, 1.0 - score])).to_vec();
        let watched = [Some(1.0), Some(3.0), None, Some(5.0), Some(2.0), Some(2.0)].to_vec();
        let scores = Scores {
            objectives: column([0.2, 0.4, 0.9, 0.9, 1.0, 0.0]),
            raw: [("words".to_owned(), watched)].into(),
            ensembles: vec![],
        };
        let weights = Weights::new(vec![0.5, 0.5]).unwrap();
        let names = ["a".to_owned(), "b".to_owned()];
        let found = complete(vec![(weights, scores)], &[0..2, 2..4, 4..6], &names, "m").unwrap();
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-12) && a.len() == b.len();
        assert!(near(&found[0].rewards[0], &[0.3, 0.5]) && near(&found[0].rewards[1], &[0.7, 0.5]));
        assert!(near(&found[0].watched["words"], &[2.0, 2.0]));
    }
}
