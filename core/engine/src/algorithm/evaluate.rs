//! A steerable policy over a grid of weights on held-out prompts: mean rewards, intervals and metrics, and samples to read.

use super::{load_prompts, rewards};
use crate::model::{Net, write_json};
use crate::reward::{RewardSet, Scores};
use crate::rollout::rollout;
use crate::session::Stage;
use crate::text::Text;
use crate::{Error, Result};
use motrain_core::Weights;
use motrain_core::conditioner::Conditioner;
use motrain_core::data::Row;
use motrain_core::metrics::report::{Method, Scored, method};
use motrain_core::plan::{Evaluate, Sampling};
use serde_json::{Value, json};
use tch::no_grad;

/// Prompts whose answers are kept for reading.
const SHOWN: usize = 6;

pub fn run(stage: Stage, spec: &Evaluate) -> Result<()> {
    let session = stage.session;
    let set = rewards::load(session, &spec.rewards)?;
    let objectives = set.objectives();
    let conditioner = session.registry.conditioners.build(&spec.conditioner.name, &spec.conditioner.options)?;
    let (policy, text) = stage.load(&spec.policy)?;
    let rows = load_prompts(&spec.prompts, &text, spec.generate.max_new_tokens, policy.config.context)?;
    let grid = spec.grid(objectives.len())?;
    let net = no_grad(|| policy.net(session.kind))?;
    let asked = Asked { net: &net, text: &text, rows: &rows, conditioner: conditioner.as_ref(), set: &set };
    let bar = stage.progress(grid.len());
    let (mut answered, mut samples) = (Vec::new(), Vec::new());
    for (at, weights) in grid.iter().enumerate() {
        let seed = |i: usize| stage.seed("rollout", (at * rows.len() + i) as u64);
        let (answers, scores) = asked.answer(weights, &spec.generate, seed)?;
        for (i, answer) in answers.iter().enumerate().take(SHOWN) {
            samples.push(json!({
                "prompt": rows[i].prompt.messages,
                "weights": weights,
                "completion": answer,
                "scores": scores.objectives[i],
            }));
        }
        answered.push((weights.clone(), scores));
        bar.set_position(at as u64 + 1);
        bar.set_message(format!("weights {:?}", weights.values()));
        stage.check_stop(at)?;
    }
    bar.finish();
    let scored = complete(answered, &objectives, rows.len(), &spec.name)?;
    let reference_point = vec![0.0; objectives.len()];
    let found = method(&spec.name, &scored, &reference_point, session.plan.seed);
    std::fs::create_dir_all(stage.folder()).map_err(|e| Error::io(&stage.folder(), e))?;
    write_json(&stage.folder().join("samples.json"), &Value::Array(samples))?;
    let found = serde_json::to_value(found).map_err(|e| Error::invalid(e.to_string()))?;
    write_json(&stage.folder().join("method.json"), &json!({ "objectives": objectives, "method": found }))
}

/// A policy, the prompts that it is asked, and what scores its answers.
pub struct Asked<'a> {
    pub net: &'a Net,
    pub text: &'a Text,
    pub rows: &'a [Row],
    pub conditioner: &'a dyn Conditioner,
    pub set: &'a RewardSet,
}

impl Asked<'_> {
    /// One answer to each prompt at `weights`, and its scores; `seed` by prompt.
    pub fn answer(
        &self,
        weights: &Weights,
        sampling: &Sampling,
        seed: impl Fn(usize) -> u64,
    ) -> Result<(Vec<String>, Scores)> {
        let objectives = self.set.objectives();
        let render =
            |row: &Row| self.text.encode_prompt(&self.conditioner.render(&objectives, weights, &row.prompt)?);
        let prompts = self.rows.iter().map(render).collect::<Result<Vec<_>>>()?;
        let seeds: Vec<Vec<u64>> = (0..self.rows.len()).map(|i| vec![seed(i)]).collect();
        let drawn = rollout(self.net, self.text, &prompts, &seeds, sampling)?;
        let answers: Vec<String> = drawn.into_iter().flatten().map(|c| c.text).collect();
        let references: Vec<&Row> = self.rows.iter().collect();
        let texts: Vec<&str> = answers.iter().map(String::as_str).collect();
        let scores = self.set.score(&references, &texts)?;
        Ok((answers, scores))
    }
}

/// Scores by weight over the prompts that have all their scores at every weight, so that weights stay comparable.
fn complete(
    answered: Vec<(Weights, Scores)>,
    objectives: &[String],
    prompts: usize,
    name: &str,
) -> Result<Vec<Scored>> {
    let whole = |i: &usize| answered.iter().all(|(_, s)| s.raw.values().all(|scores| scores[*i].is_some()));
    let kept: Vec<usize> = (0..prompts).filter(whole).collect();
    if kept.is_empty() {
        return Err(Error::invalid(format!(
            "{name}: no prompt has all its scores; see the warnings of the rewards above"
        )));
    }
    if kept.len() < prompts {
        tracing::warn!("{name}: left out {} of {prompts} prompts with missing scores", prompts - kept.len());
    }
    let one = |(weights, scores): (Weights, Scores)| {
        let objective =
            |k: usize| kept.iter().filter_map(|&i| scores.objectives[i].as_ref().map(|s| s[k])).collect::<Vec<f64>>();
        let raw = |name: &String| kept.iter().filter_map(|&i| scores.raw[name][i]).collect::<Vec<f64>>();
        let watched = scores.raw.keys().filter(|n| !objectives.contains(n)).map(|n| (n.clone(), raw(n))).collect();
        Scored { weights, rewards: (0..objectives.len()).map(objective).collect(), watched }
    };
    Ok(answered.into_iter().map(one).collect())
}

/// The result of a finished evaluation: objectives and method.
pub fn load(stage_folder: &std::path::Path) -> Result<(Vec<String>, Method)> {
    let path = stage_folder.join("method.json");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
    let json: Value = serde_json::from_str(&text).map_err(|e| Error::file(&path, e.to_string()))?;
    let bad = |e: serde_json::Error| Error::file(&path, e.to_string());
    let objectives = serde_json::from_value(json["objectives"].clone()).map_err(bad)?;
    Ok((objectives, serde_json::from_value(json["method"].clone()).map_err(bad)?))
}
