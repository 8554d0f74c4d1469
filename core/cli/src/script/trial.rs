//! One call of each function of the script in its place in the plan, so that what cannot work is found before any work.

use anyhow::{Context, Result};
use motrain_core::judge::Duel;
use motrain_core::loss::PairBatch;
use motrain_core::registry::{Kind, Registry};
use motrain_core::reward::Sample;
use motrain_core::rng::rng;
use motrain_core::{Prompt, Weights};
use motrain_engine::plan::{Component, Plan, Stage, objectives as objectives_of};
use serde_json::Value;

/// Calls each of `functions` that a stage uses.
pub fn functions(plan: &Plan, registry: &Registry, functions: &[(Kind, String)]) -> Result<()> {
    for stage in &plan.stages {
        let objectives = objectives(plan, stage);
        for (kind, component) in stage.components() {
            if functions.iter().any(|(k, name)| *k == kind && *name == component.name) {
                call(registry, kind, &component, &objectives)
                    .with_context(|| format!("stage \"{}\": a trial call of its script function failed", stage.id))?;
            }
        }
    }
    Ok(())
}

/// The objectives that a stage works with: its own, or those of the rewards that it refers to.
fn objectives(plan: &Plan, stage: &Stage) -> Vec<String> {
    let own = stage.work.objectives();
    own.or_else(|| objectives_of(&plan.stages, &stage.rewards()?)).unwrap_or_default()
}

fn call(registry: &Registry, kind: Kind, component: &Component, objectives: &[String]) -> motrain_core::Result<()> {
    let (name, options) = (component.name.as_str(), &component.options);
    let count = objectives.len();
    let weights = Weights::new(vec![1.0 / count.max(1) as f64; count.max(1)])?;
    let prompt = Prompt::user("How do I bake bread?");
    let scores = |from: f64| (0..count).map(|k| from + 0.1 * k as f64).collect::<Vec<f64>>();
    let failed = |what| motrain_core::Error::Component { owner: format!("{} \"{name}\"", kind.name()), what };
    match kind {
        Kind::Sampler => registry.samplers.build(name, options)?.sample(count, 0, &mut rng(0, "trial", 0)).map(drop),
        Kind::Conditioner => {
            registry.conditioners.build(name, options)?.render(objectives, &weights, &prompt).map(drop)
        }
        Kind::Label => registry.labels.build(name, options)?.label(&weights, &scores(0.4), &scores(0.2)).map(drop),
        Kind::Loss => registry.losses.build(name, options)?.evaluate(&pair(&weights)).map(drop),
        Kind::Reward => {
            let completion = "Mix flour and water, and wait.";
            let sample = Sample { prompt: &prompt, completion, finished: true, row: &Value::Null };
            let scored = registry.rewards.build(name, options)?.score_where_possible(&[sample]);
            scored.map(drop).map_err(failed)
        }
        Kind::Judge => {
            let (first, second) = ("Mix flour and water, and wait.", "No idea.");
            let judged = registry.judges.build(name, options)?.judge(&[Duel { prompt: &prompt, first, second }]);
            judged.map(drop).map_err(failed)
        }
        Kind::Advantage | Kind::Normaliser => Ok(()),
    }
}

fn pair(weights: &Weights) -> PairBatch {
    PairBatch {
        policy_first: vec![-10.0],
        policy_second: vec![-12.0],
        reference_first: vec![-11.0],
        reference_second: vec![-11.5],
        tokens_first: vec![8],
        tokens_second: vec![9],
        label: vec![1.0],
        weights: weights.values().to_vec(),
        margins: vec![0.1; weights.values().len()],
        other: None,
    }
}
