//! What each method of Table 1 really cost: policies and parameters, tokens and seconds, and serving where every query brings its own
//! weights (Table 1).

use super::{Seed, place};
use anyhow::Result;
use motrain_engine::model::{ADAPTER, Adapter, SOFT_TOKENS, numbers_of, parameter_count};
use motrain_engine::names;
use motrain_engine::plan::{ModelRef, Stage};
use motrain_engine::stage::Makes;
use motrain_engine::stage::evaluate::Evaluate;
use motrain_engine::train::log::{Metrics, read_metrics, read_timings};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
pub struct Cost {
    pub task: String,
    pub method: String,
    pub policies: usize,
    pub parameters: u64,
    pub tokens_generated: f64,
    pub tokens_trained: f64,
    pub seconds: f64,
    /// New tokens a second when every query of a batch brings its own weights; by the median of several times.
    pub serving_tokens_per_second: f64,
    /// Networks that read each token.
    pub passes_per_token: usize,
    /// Bytes beyond one policy that serving any weights holds.
    pub extra_memory: u64,
    /// What is made of prompts and reward models for it to learn from.
    pub data: String,
}

pub fn all(seed: &Seed) -> Result<Vec<Cost>> {
    let mut out = Vec::new();
    for stage in &seed.plan.stages {
        let evaluation = stage.work.downcast_ref::<Evaluate>();
        let (Some(options), Some((task, "fig2" | "fig7"))) = (evaluation, place(&stage.id)) else { continue };
        out.push(cost(seed, task, &stage.id, options)?);
    }
    Ok(out)
}

fn cost(seed: &Seed, task: &str, id: &str, options: &Evaluate) -> Result<Cost> {
    let folder = |stage: &str| motrain_engine::folder::stage(&seed.run, stage);
    // What all methods share is nobody's cost.
    let (needed, shared) = (seed.plan.behind(&[id.into()]), seed.plan.behind(&[options.rewards.to_string()]));
    let own = |s: &&Stage| s.id != id && needed.contains(&s.id) && !shared.contains(&s.id);
    let (mut policies, mut parameters, mut generated, mut trained, mut seconds) = (0, 0, 0.0, 0.0, 0.0);
    let (mut gains, mut data) = (0, BTreeSet::new());
    for stage in seed.plan.stages.iter().filter(own) {
        // A stage that goes on with a policy makes no further one.
        let starts = stage.work.trains().is_none_or(|trains| trains.model.path().is_some());
        if stage.work.makes().contains(&Makes::Policy) && starts {
            policies += 1;
            parameters += trained_parameters(&folder(&stage.id))?;
            gains += parts(&folder(&stage.id))?.unwrap_or(0);
        }
        data.extend(stage.work.made_of_rewards());
        let metrics = read_metrics(&seed.run, &stage.id)?;
        generated += sum(&metrics, "tokens/generated");
        trained += sum(&metrics, "tokens/trained");
        seconds += sum(&read_timings(&seed.run, &stage.id)?, "seconds");
        let sampled = speed(&folder(&stage.id));
        generated += sampled["new_tokens"].as_f64().unwrap_or(0.0);
        seconds += sampled["seconds"].as_f64().unwrap_or(0.0);
    }
    let serving = &speed(&folder(id))["serving"];
    let (held, passes_per_token) = (options.by.0.held() - 1, options.by.0.networks());
    let adapters = adapters(seed, options)?;
    let one = serving["parameters"].as_u64().unwrap_or(0) / passes_per_token as u64;
    Ok(Cost {
        task: task.into(),
        method: options.name.clone(),
        policies,
        parameters,
        tokens_generated: generated,
        tokens_trained: trained,
        seconds,
        serving_tokens_per_second: serving["new_tokens"].as_f64().unwrap_or(0.0)
            / serving["seconds"].as_f64().unwrap_or(1.0),
        passes_per_token,
        extra_memory: (adapters.unwrap_or(held as u64 * one) + gains) * 4,
        data: data.into_iter().collect::<Vec<_>>().join(", "),
    })
}

/// Numbers of the adapters that an evaluation answers with, if it holds their base once.
fn adapters(seed: &Seed, options: &Evaluate) -> Result<Option<u64>> {
    let mut by = options.by.0.boxed();
    let place = |model: &ModelRef| match model {
        ModelRef::Path(path) => PathBuf::from(path),
        ModelRef::Stage { stage, epoch } => motrain_engine::folder::stage(&seed.run, stage).join(names::model(*epoch)),
    };
    let folders: Vec<PathBuf> = by.models().into_iter().map(|(_, model)| place(model)).collect();
    let own: Vec<&PathBuf> = folders.iter().filter(|folder| Adapter::is_one(folder)).collect();
    let counts = own.iter().map(|folder| parameter_count(folder)).collect::<motrain_engine::Result<Vec<_>>>()?;
    Ok((!counts.is_empty()).then(|| counts.iter().sum()))
}

/// Numbers that a stage's training moved: those of its model, or of the adapter of all objectives, which its checkpoints hold.
fn trained_parameters(stage: &Path) -> Result<u64> {
    let Some(parts) = parts(stage)? else { return Ok(parameter_count(&stage.join(names::MODEL))?) };
    let checkpoints = std::fs::read_dir(stage)?.flatten().map(|e| e.path());
    let is_one = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(names::CHECKPOINT));
    match checkpoints.filter(is_one).map(|p| p.join(ADAPTER)).find(|p| p.is_file()) {
        Some(file) => Ok(numbers_of(&file)?),
        None => Ok(parts),
    }
}

/// Numbers of the adapters that gains steer, one for each objective.
fn parts(stage: &Path) -> Result<Option<u64>> {
    let of = |k| stage.join(names::MODEL).join(names::part(k));
    let folders = (0..).map(of).take_while(|folder| folder.is_dir());
    // An adapter may have soft tokens beside it.
    let folders = folders.flat_map(|folder| [folder.join(SOFT_TOKENS), folder]).filter(|folder| folder.is_dir());
    let counts = folders.map(|folder| parameter_count(&folder)).collect::<motrain_engine::Result<Vec<_>>>()?;
    Ok((!counts.is_empty()).then(|| counts.iter().sum()))
}

fn sum(steps: &[(usize, Metrics)], key: &str) -> f64 {
    steps.iter().filter_map(|(_, m)| m.get(key)).sum()
}

fn speed(stage: &Path) -> Value {
    let text = std::fs::read_to_string(stage.join(names::SPEED)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}
