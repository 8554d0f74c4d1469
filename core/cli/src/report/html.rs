//! report.html: front, training curves, answers side by side, configuration, in one file without scripts.

use super::{plot, template};
use anyhow::Result;
use minijinja::context;
use minijinja::value::Serde;
use motrain_engine::folder;
use motrain_engine::names;
use motrain_engine::plan::Plan;
use motrain_engine::run::Front;
use motrain_engine::train::log::{Metrics, read_metrics, read_timings};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// Metrics worth a curve, whatever the stage.
const CURVES: [&str; 6] = [
    "objective/kl",
    "objective/scores",
    "loss",
    "rewards/accuracies",
    "completions/mean_length",
    "completions/eos_rate",
];

/// A stage that the front rests on.
#[derive(Serialize)]
struct Trained<'a> {
    id: &'a str,
    /// None of a stage without metrics.
    curves: Option<Vec<String>>,
    /// Component, seconds, and the scores that are missing.
    times: Vec<(String, f64, f64)>,
}

/// Answers to the same prompts at every third weight, side by side.
#[derive(Serialize)]
struct Answers {
    weights: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

pub fn page(run: &Path, plan: &Plan, front: &Front, svg: &str) -> Result<String> {
    let title = front.of.as_ref().map_or_else(|| plan.name.clone(), |rewards| format!("{}: {rewards}", plan.name));
    let behind = plan.behind(&front.evaluations);
    let stages = plan.stages.iter().filter(|s| behind.contains(&s.id)).map(|s| trained(run, &s.id));
    let reference: Vec<String> = front.fronts.reference_point.iter().map(f64::to_string).collect();
    let shown = context! {
        title,
        svg,
        fronts => Serde(&front.fronts),
        reference => reference.join(", "),
        stages => Serde(stages.collect::<Result<Vec<_>>>()?),
        answers => Serde(front.evaluations.last().map(|last| answers(run, last)).transpose()?),
        plan => serde_json::to_string_pretty(plan)?,
        manifest => std::fs::read_to_string(run.join(names::MANIFEST)).unwrap_or_default(),
    };
    template::render("report.html.j2", shown)
}

fn trained<'a>(run: &Path, id: &'a str) -> Result<Trained<'a>> {
    let metrics = read_metrics(run, id)?;
    let missing = total(&metrics, "/unscored");
    let times = total(&read_timings(run, id)?, "/seconds").into_iter().map(|(name, seconds)| {
        let missing = missing.get(&name).copied().unwrap_or(0.0);
        (name, seconds, missing)
    });
    Ok(Trained { id, curves: curves(&metrics)?, times: times.collect() })
}

fn curves(metrics: &[(usize, Metrics)]) -> Result<Option<Vec<String>>> {
    let Some((_, last)) = metrics.last() else { return Ok(None) };
    let per_reward = last.keys().filter(|k| k.ends_with("/mean") || k.starts_with("drift/")).map(String::as_str);
    let names = CURVES.into_iter().filter(|c| last.contains_key(*c)).chain(per_reward);
    let points = |name: &str| {
        metrics.iter().filter_map(|(step, m)| Some((*step as f64, *m.get(name)?))).collect::<Vec<(f64, f64)>>()
    };
    let drawn = names.map(|name| (name, points(name))).filter(|(_, points)| points.len() > 1);
    drawn.map(|(name, points)| plot::curve(name, &points)).collect::<Result<_>>().map(Some)
}

/// Sums over the steps of the metrics `rewards/<name><suffix>` and `components/<name><suffix>`, by name.
fn total(steps: &[(usize, Metrics)], suffix: &str) -> BTreeMap<String, f64> {
    let mut out = BTreeMap::new();
    for (key, value) in steps.iter().flat_map(|(_, m)| m) {
        let name =
            key.strip_prefix("rewards/").or(key.strip_prefix("components/")).and_then(|k| k.strip_suffix(suffix));
        if let Some(name) = name {
            *out.entry(name.to_owned()).or_insert(0.0) += value;
        }
    }
    out
}

fn answers(run: &Path, evaluation: &str) -> Result<Answers> {
    let path = folder::stage(run, evaluation).join(names::SHOWN);
    let samples: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    let mut prompts: Vec<&Value> = Vec::new();
    let mut weights: Vec<&Value> = Vec::new();
    for s in &samples {
        if !prompts.contains(&&s["prompt"]) {
            prompts.push(&s["prompt"]);
        }
        if !weights.contains(&&s["weights"]) {
            weights.push(&s["weights"]);
        }
    }
    let stride = weights.len().div_ceil(4).max(1);
    let mut shown: Vec<&Value> = weights.iter().step_by(stride).copied().collect();
    if let Some(last) = weights.last().filter(|w| !shown.contains(w)) {
        shown.push(last);
    }
    let row = |prompt: &Value| {
        let turns: Vec<&str> = prompt.as_array().into_iter().flatten().filter_map(|m| m["content"].as_str()).collect();
        let answer = |w: &&Value| {
            let found = samples.iter().find(|s| s["prompt"] == *prompt && s["weights"] == **w);
            found.and_then(|s| s["completion"].as_str()).unwrap_or_default().to_owned()
        };
        (turns.join("\n\n"), shown.iter().map(answer).collect())
    };
    let rows = prompts.into_iter().map(row).collect();
    Ok(Answers { weights: shown.iter().map(|w| w.to_string()).collect(), rows })
}
