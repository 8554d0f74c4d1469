//! A steerable policy over a grid of weights on held-out prompts: mean rewards, intervals and metrics, and samples to read.

use super::{load_prompts, rewards};
use crate::model::write_json;
use crate::rollout::rollout;
use crate::session::Stage;
use crate::{Error, Result};
use motrain_core::data::Row;
use motrain_core::metrics::report::{Method, Scored, method};
use motrain_core::plan::Evaluate;
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
    let bar = stage.progress(grid.len());
    let (mut scored, mut samples) = (Vec::new(), Vec::new());
    for (at, weights) in grid.iter().enumerate() {
        let prompts = rows
            .iter()
            .map(|row| text.encode_prompt(&conditioner.render(&objectives, weights, &row.prompt)?))
            .collect::<Result<Vec<_>>>()?;
        let seeds: Vec<Vec<u64>> =
            (0..rows.len()).map(|i| vec![stage.seed("rollout", (at * rows.len() + i) as u64)]).collect();
        let drawn = rollout(&net, &text, &prompts, &seeds, &spec.generate)?;
        let answers: Vec<&str> = drawn.iter().map(|c| c[0].text.as_str()).collect();
        let references: Vec<&Row> = rows.iter().collect();
        let scores = set.score(&references, &answers)?;
        let column = |k: usize| scores.objectives.iter().map(|s| s[k]).collect::<Vec<f64>>();
        let watched = set.watched().into_iter().map(|name| (name.clone(), scores.raw[&name].clone())).collect();
        for i in 0..rows.len().min(SHOWN) {
            samples.push(json!({
                "prompt": rows[i].prompt.messages,
                "weights": weights,
                "completion": answers[i],
                "scores": scores.objectives[i],
            }));
        }
        scored.push(Scored { weights: weights.clone(), rewards: (0..objectives.len()).map(column).collect(), watched });
        bar.set_position(at as u64 + 1);
        bar.set_message(format!("weights {:?}", weights.values()));
        stage.check_stop(at)?;
    }
    bar.finish();
    let reference_point = vec![0.0; objectives.len()];
    let found = method(&spec.name, &scored, &reference_point, session.plan.seed);
    std::fs::create_dir_all(stage.folder()).map_err(|e| Error::io(&stage.folder(), e))?;
    write_json(&stage.folder().join("samples.json"), &Value::Array(samples))?;
    let found = serde_json::to_value(found).map_err(|e| Error::invalid(e.to_string()))?;
    write_json(&stage.folder().join("method.json"), &json!({ "objectives": objectives, "method": found }))
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
