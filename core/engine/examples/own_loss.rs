//! A loss of one's own in a run of one's own, in an empty folder: `cargo run -p motrain-engine --example own_loss` from the root of the source
//! tree. The first steps of MO-ODPO on the embedded policy, with length and words as rewards.

use motrain_core::loss::{PairBatch, PairLoss, PairwiseLoss};
use motrain_core::options::{Options, read};
use motrain_core::registry::{Entry, Registry};
use motrain_engine::folder::RunFolder;
use motrain_engine::plan::Plan;
use motrain_engine::run;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use std::path::Path;

/// The exponential loss `e^−m` of the margin `m = β(Δ₊ − Δ₋)`, as in boosting; labels are hard.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Exponential {
    /// What log-ratios are multiplied by.
    #[schemars(range(min = 1e-6, max = 1000))]
    beta: f64,
}

impl Default for Exponential {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

impl Options for Exponential {}

impl PairwiseLoss for Exponential {
    fn evaluate(&self, pairs: &PairBatch) -> motrain_core::Result<PairLoss> {
        let loss: Vec<f64> = (0..pairs.len()).map(|i| (-self.beta * pairs.log_ratio_gap(i)).exp()).collect();
        let d_first: Vec<f64> = loss.iter().map(|loss| -self.beta * loss).collect();
        let d_second = d_first.iter().map(|d| -d).collect();
        Ok(PairLoss { loss, d_first, d_second, ..PairLoss::default() })
    }

    fn beta(&self) -> f64 {
        self.beta
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut registry = Registry::builtin();
    let schema = schemars::schema_for!(Exponential).to_value();
    let build = |options: &_| Ok(Box::new(read::<Exponential>("loss \"exponential\"", options)?) as _);
    registry.losses.add(Entry::dynamic("exponential".into(), "e to the minus margin".into(), schema, build))?;

    let prompts = |part: &str| json!({ "paths": ["assets/hh/prompts.jsonl"], "part": part, "limit": 32 });
    let (policy, short) = ("assets/hh/policy", json!({ "max_new_tokens": 16 }));
    let conditioner = json!({ "name": "weight_prefix" });
    let plan: Plan = serde_json::from_value(json!({
        "name": "own_loss", "seed": 0, "device": "cpu", "dtype": "f32",
        "stages": [
            { "id": "rewards", "kind": "rewards", "policy": policy, "prompts": prompts("train"), "samples": 32, "generate": short,
              "sources": [
                  { "name": "Brevity", "source": { "name": "length", "options": { "target": 10.0 } } },
                  { "name": "Warmth", "source": { "name": "lexicon", "options": { "words": { "sorry": 1.0, "please": 1.0 } } } },
              ] },
            { "id": "trained", "kind": "online_preference", "policy": policy, "prompts": prompts("train"), "rewards": "rewards",
              "sampler": { "name": "dirichlet" }, "conditioner": conditioner, "label": { "name": "weighted_sum" },
              "loss": { "name": "exponential", "options": { "beta": 0.2 } }, "generate": short,
              "train": { "steps": 2, "batch_size": 8 }, "optimizer": { "name": "adamw", "lr": 1e-4 } },
            { "id": "front", "kind": "evaluate", "name": "exponential", "policy": { "stage": "trained" }, "rewards": "rewards",
              "conditioner": conditioner, "prompts": prompts("test"), "generate": short, "step": 0.5 },
        ],
    }))?;
    plan.check(&registry)?;
    let folder = std::env::args().nth(1).unwrap_or_else(|| "runs/own_loss".into());
    for front in run::run(&plan, &registry, &RunFolder::open(Path::new(&folder))?)? {
        for method in &front.fronts.methods {
            println!("{}: hypervolume {:.3}", method.name, method.hypervolume);
        }
    }
    Ok(())
}
