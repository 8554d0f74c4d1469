//! What each method of Figure 2 really cost: policies and parameters, tokens and seconds, and serving where every query brings its own
//! weights (Table 1).

use super::{Seed, place};
use anyhow::Result;
use motrain_engine::model::parameter_count;
use motrain_engine::names;
use motrain_engine::plan::{ModelRef, Stage};
use motrain_engine::stage::Makes;
use motrain_engine::stage::evaluate::Evaluate;
use motrain_engine::stage::sft::Sft;
use motrain_engine::train::log::{Metrics, read_metrics, read_timings};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

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
}

pub fn all(seed: &Seed) -> Result<Vec<Cost>> {
    let mut out = Vec::new();
    for stage in &seed.plan.stages {
        let evaluation = stage.work.downcast_ref::<Evaluate>();
        let (Some(spec), Some((task, "fig2"))) = (evaluation, place(&stage.id)) else { continue };
        out.push(cost(seed, task, &stage.id, spec)?);
    }
    Ok(out)
}

fn cost(seed: &Seed, task: &str, id: &str, spec: &Evaluate) -> Result<Cost> {
    let folder = |stage: &str| motrain_engine::folder::stage(&seed.run, stage);
    let own = |s: &&Stage| s.id.starts_with(&format!("{id}_")) && s.work.downcast_ref::<Evaluate>().is_none();
    let (mut policies, mut parameters, mut generated, mut trained, mut seconds) = (0, 0, 0.0, 0.0, 0.0);
    for stage in seed.plan.stages.iter().filter(own) {
        // A stage of fine-tuning that goes on with a policy makes no further one.
        let tuned = stage.work.downcast_ref::<Sft>();
        let starts = tuned.is_none_or(|s| matches!(s.model, ModelRef::Path(_)));
        if stage.work.makes().contains(&Makes::Policy) && starts {
            policies += 1;
            parameters += parameter_count(&folder(&stage.id).join(names::MODEL))?;
        }
        let metrics = read_metrics(&seed.run, &stage.id)?;
        generated += sum(&metrics, "tokens/generated");
        trained += sum(&metrics, "tokens/trained");
        seconds += sum(&read_timings(&seed.run, &stage.id)?, "seconds");
        let sampled = speed(&folder(&stage.id));
        generated += sampled["new_tokens"].as_f64().unwrap_or(0.0);
        seconds += sampled["seconds"].as_f64().unwrap_or(0.0);
    }
    let serving = &speed(&folder(id))["serving"];
    let (held, passes_per_token) = (spec.by.0.held() - 1, spec.by.0.networks());
    let one = serving["parameters"].as_u64().unwrap_or(0) / passes_per_token as u64;
    Ok(Cost {
        task: task.into(),
        method: spec.name.clone(),
        policies,
        parameters,
        tokens_generated: generated,
        tokens_trained: trained,
        seconds,
        serving_tokens_per_second: serving["new_tokens"].as_f64().unwrap_or(0.0)
            / serving["seconds"].as_f64().unwrap_or(1.0),
        passes_per_token,
        extra_memory: held as u64 * one * 4,
    })
}

fn sum(steps: &[(usize, Metrics)], key: &str) -> f64 {
    steps.iter().filter_map(|(_, m)| m.get(key)).sum()
}

fn speed(stage: &Path) -> Value {
    let text = std::fs::read_to_string(stage.join(names::SPEED)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}
