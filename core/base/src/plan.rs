//! The plan: what a script's value is. Plain data, a graph of stages joined by their ids, checked before any work.

use crate::data::DataSpec;
use crate::error::{Error, Result};
use crate::options::{Checked, Options};
use crate::registry::{Kind, Registry};
use crate::rng::sha256_hex;
use crate::weights::{Weights, steps_of};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub name: String,
    pub seed: u64,
    /// "cpu", "cuda" or "cuda:N".
    pub device: String,
    /// Compute type: "auto", "f32" or "bf16"; master weights are always f32.
    pub dtype: String,
    pub stages: Vec<Stage>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    pub id: String,
    #[serde(flatten)]
    pub work: Work,
}

/// What a stage does.
#[expect(clippy::large_enum_variant, reason = "a plan holds a handful")]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    InitModel(InitModel),
    Sft(Sft),
    RewardModel(RewardModel),
    Rewards(Rewards),
    OnlinePreference(OnlinePreference),
    Evaluate(Evaluate),
}

/// A model folder, or the output of an earlier stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ModelRef {
    Stage { stage: String },
    Path(String),
}

/// A registered component and its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Component {
    pub name: String,
    #[serde(default)]
    pub options: Value,
}

/// How completions are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    pub max_new_tokens: usize,
    pub temperature: f64,
    /// Keep the k likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the likeliest tokens that together have this probability; 1 keeps all.
    pub top_p: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { max_new_tokens: 64, temperature: 1.0, top_k: 0, top_p: 1.0 }
    }
}

impl Options for Sampling {
    fn check(&self) -> Checked {
        if self.max_new_tokens == 0 {
            return Err(("max_new_tokens", "must be at least 1".into()));
        }
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(("temperature", format!("must be 0 (greedy) or more, not {}", self.temperature)));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(("top_p", format!("must be above 0 and at most 1, not {}", self.top_p)));
        }
        Ok(())
    }
}

/// How parameters move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Optimizer {
    /// "adafactor" (the paper's) or "adamw".
    pub name: String,
    pub lr: f64,
    /// "constant", "linear" or "cosine", the latter two decaying to 0.
    pub schedule: String,
    /// Steps over which the learning rate rises from 0.
    pub warmup_steps: usize,
    pub weight_decay: f64,
    /// Gradients are scaled down to this norm; 0 switches it off.
    pub max_grad_norm: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
}

impl Default for Optimizer {
    fn default() -> Self {
        Self {
            name: "adamw".into(),
            lr: 1e-5,
            schedule: "constant".into(),
            warmup_steps: 0,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
        }
    }
}

impl Options for Optimizer {
    fn check(&self) -> Checked {
        let known = |option, value: &str, all: &[&str]| {
            if all.contains(&value) {
                Ok(())
            } else {
                Err((option, format!("is \"{value}\"; it can be {}", all.join(", "))))
            }
        };
        known("name", &self.name, &["adafactor", "adamw"])?;
        known("schedule", &self.schedule, &["constant", "linear", "cosine"])?;
        if !(self.lr.is_finite() && self.lr > 0.0) {
            return Err(("lr", format!("must be above 0, not {}", self.lr)));
        }
        Ok(())
    }
}

/// How long and in what portions a stage trains on given data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    pub epochs: f64,
    /// Stop after this many optimiser steps, whatever the epochs say; 0 follows the epochs.
    pub steps: usize,
    /// Rows (prompts, pairs) per optimiser step.
    pub batch_size: usize,
    /// Rows whose gradients are computed at once; the rest of the batch is accumulated.
    pub micro_batch_size: usize,
    pub checkpoint_every: usize,
}

impl Default for Training {
    fn default() -> Self {
        Self { epochs: 1.0, steps: 0, batch_size: 32, micro_batch_size: 8, checkpoint_every: 50 }
    }
}

impl Options for Training {
    fn check(&self) -> Checked {
        if !(self.epochs.is_finite() && self.epochs > 0.0) {
            return Err(("epochs", format!("must be above 0, not {}", self.epochs)));
        }
        let positive = |name, value: usize| {
            if value > 0 { Ok(()) } else { Err((name, "must be at least 1".to_owned())) }
        };
        positive("batch_size", self.batch_size)?;
        positive("micro_batch_size", self.micro_batch_size)?;
        positive("checkpoint_every", self.checkpoint_every)
    }
}

impl Training {
    /// Optimiser steps over `rows` rows: whole batches only.
    pub fn total_steps(&self, rows: usize) -> usize {
        let by_epochs = ((rows as f64 * self.epochs) / self.batch_size as f64).floor().max(1.0) as usize;
        if self.steps > 0 { self.steps } else { by_epochs }
    }
}

/// A new model with random weights and a byte-level BPE tokenizer trained on a corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InitModel {
    /// JSONL files whose text the tokenizer is trained on.
    pub corpus: Vec<String>,
    pub vocab_size: usize,
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub layers: i64,
    pub heads: i64,
    pub kv_heads: i64,
    pub context: i64,
}

impl Options for InitModel {}

/// Supervised fine-tuning on `{"prompt", "completion"}` rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sft {
    pub model: ModelRef,
    pub data: DataSpec,
    #[serde(default)]
    pub train: Training,
    #[serde(default)]
    pub optimizer: Optimizer,
}

impl Options for Sft {}

/// A Bradley–Terry reward model trained from preference pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RewardModel {
    pub model: ModelRef,
    pub data: DataSpec,
    /// Pairs for accuracy and calibration; by default the data's test part.
    #[serde(default)]
    pub heldout: Option<DataSpec>,
    /// Keep only this many of the backbone's first layers; 0 keeps all.
    #[serde(default)]
    pub layers: usize,
    /// Tokens of prompt and answer together; a longer prompt loses its beginning.
    #[serde(default = "reward_tokens")]
    pub max_tokens: usize,
    #[serde(default)]
    pub train: Training,
    #[serde(default)]
    pub optimizer: Optimizer,
}

fn reward_tokens() -> usize {
    512
}

impl Options for RewardModel {}

/// One reward: an objective, or only watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reward {
    /// The objective's name, as in the weight prefix and in metrics.
    pub name: String,
    pub source: Component,
    /// Scored and reported, but never trained on.
    #[serde(default)]
    pub watch: bool,
    /// `[low, high]`: the raw scores that become 0 and 1. Without it they are fitted.
    #[serde(default)]
    pub scale: Option<[f64; 2]>,
}

/// The rewards of an experiment, with scales fitted on the initial policy's samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewards {
    pub sources: Vec<Reward>,
    /// The policy whose samples the scales are fitted on.
    pub policy: ModelRef,
    pub prompts: DataSpec,
    /// Number of samples for the fit.
    #[serde(default = "fit_samples")]
    pub samples: usize,
    #[serde(default)]
    pub generate: Sampling,
}

fn fit_samples() -> usize {
    512
}

impl Options for Rewards {}

impl Rewards {
    /// Names of the objectives, in the order of the weights.
    pub fn objectives(&self) -> Vec<String> {
        self.sources.iter().filter(|s| !s.watch).map(|s| s.name.clone()).collect()
    }
}

/// MO-ODPO (paper Algorithm 1) and its relatives: online pairs under sampled weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnlinePreference {
    pub policy: ModelRef,
    pub prompts: DataSpec,
    /// The id of a `rewards` stage.
    pub rewards: String,
    pub sampler: Component,
    pub conditioner: Component,
    pub label: Component,
    pub loss: Component,
    /// Completions per prompt; of more than two, the best is paired with the worst.
    #[serde(default = "two")]
    pub completions: usize,
    /// One weight vector for a whole batch instead of one per prompt.
    #[serde(default)]
    pub one_weight_per_batch: bool,
    /// Whether the reference sees x' (the default) or the plain prompt.
    #[serde(default = "yes")]
    pub reference_sees_weights: bool,
    /// Stop when the KL (nats per completion, mean of the last 10 steps) is above this; 0 never stops.
    #[serde(default)]
    pub max_kl: f64,
    #[serde(default)]
    pub generate: Sampling,
    #[serde(default)]
    pub train: Training,
    #[serde(default)]
    pub optimizer: Optimizer,
}

fn two() -> usize {
    2
}

fn yes() -> bool {
    true
}

impl Options for OnlinePreference {
    fn check(&self) -> Checked {
        if self.completions < 2 {
            return Err(("completions", format!("must be at least 2, not {}", self.completions)));
        }
        Ok(())
    }
}

/// A policy over a grid of weights on prompts that it never saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// The method's name in tables and figures.
    pub name: String,
    pub policy: ModelRef,
    pub prompts: DataSpec,
    pub rewards: String,
    pub conditioner: Component,
    /// Distance of neighbouring weights; 0.1 gives the paper's 11 points for two objectives.
    #[serde(default = "tenth")]
    pub step: f64,
    /// Explicit weights instead of a grid.
    #[serde(default)]
    pub weights: Option<Vec<Vec<f64>>>,
    #[serde(default)]
    pub generate: Sampling,
}

fn tenth() -> f64 {
    0.1
}

impl Options for Evaluate {
    fn check(&self) -> Checked {
        steps_of(self.step).map_err(|what| ("step", what))?;
        for w in self.weights.iter().flatten() {
            Weights::new(w.clone()).map_err(|e| ("weights", format!("is wrong: {e}")))?;
        }
        Ok(())
    }
}

impl Evaluate {
    pub fn grid(&self, objectives: usize) -> Result<Vec<Weights>> {
        match &self.weights {
            Some(list) => list.iter().cloned().map(Weights::new).collect(),
            None => Ok(Weights::grid(objectives, steps_of(self.step).map_err(Error::Invalid)?)),
        }
    }
}

impl Work {
    /// The stages that this one needs.
    pub fn needs(&self) -> Vec<&str> {
        fn model(m: &ModelRef) -> Option<&str> {
            match m {
                ModelRef::Stage { stage } => Some(stage),
                ModelRef::Path(_) => None,
            }
        }
        match self {
            Work::InitModel(_) => vec![],
            Work::Sft(s) => model(&s.model).into_iter().collect(),
            Work::RewardModel(r) => model(&r.model).into_iter().collect(),
            Work::Rewards(r) => {
                let inner = r.sources.iter().flat_map(|s| stage_refs(&s.source.options));
                model(&r.policy).into_iter().chain(inner).collect()
            }
            Work::OnlinePreference(o) => model(&o.policy).into_iter().chain([o.rewards.as_str()]).collect(),
            Work::Evaluate(e) => model(&e.policy).into_iter().chain([e.rewards.as_str()]).collect(),
        }
    }

    /// Files and folders that the stage reads.
    pub fn inputs(&self) -> Vec<&str> {
        fn path(m: &ModelRef) -> Option<&str> {
            match m {
                ModelRef::Path(path) => Some(path),
                ModelRef::Stage { .. } => None,
            }
        }
        fn files(d: &DataSpec) -> impl Iterator<Item = &str> {
            d.paths.iter().map(String::as_str)
        }
        match self {
            Work::InitModel(i) => i.corpus.iter().map(String::as_str).collect(),
            Work::Sft(s) => path(&s.model).into_iter().chain(files(&s.data)).collect(),
            Work::RewardModel(r) => {
                path(&r.model).into_iter().chain(files(&r.data)).chain(r.heldout.iter().flat_map(files)).collect()
            }
            Work::Rewards(r) => {
                let models = r.sources.iter().filter_map(|s| s.source.options.get("model")?.as_str());
                path(&r.policy).into_iter().chain(files(&r.prompts)).chain(models).collect()
            }
            Work::OnlinePreference(o) => path(&o.policy).into_iter().chain(files(&o.prompts)).collect(),
            Work::Evaluate(e) => path(&e.policy).into_iter().chain(files(&e.prompts)).collect(),
        }
    }
}

/// The ids in `{"stage": id}` values of a component's options.
fn stage_refs(options: &Value) -> Vec<&str> {
    match options {
        Value::Object(map) => match map.get("stage") {
            Some(Value::String(id)) if map.len() == 1 => vec![id],
            _ => map.values().flat_map(stage_refs).collect(),
        },
        Value::Array(list) => list.iter().flat_map(stage_refs).collect(),
        _ => vec![],
    }
}

impl Plan {
    /// Checks that stages refer to earlier ones and that every component exists and takes its options.
    pub fn check(&self, registry: &Registry) -> Result<()> {
        let mut seen: Vec<&Stage> = Vec::new();
        for stage in &self.stages {
            if seen.iter().any(|s| s.id == stage.id) {
                return Err(Error::Invalid(format!("two stages are called \"{}\"; rename one", stage.id)));
            }
            for id in stage.work.needs() {
                if !seen.iter().any(|s| s.id == id) {
                    return Err(Error::Invalid(format!(
                        "stage \"{}\" needs \"{id}\", which is no earlier stage",
                        stage.id
                    )));
                }
            }
            check_components(&stage.work, registry)?;
            seen.push(stage);
        }
        Ok(())
    }

    pub fn stage(&self, id: &str) -> Option<&Stage> {
        self.stages.iter().find(|s| s.id == id)
    }

    /// A hash per stage over its options, its inputs' contents (`fingerprint` of a path), the seed, the compute type and the hashes
    /// of the stages it needs: equal hashes mean that a finished stage can be reused.
    pub fn hashes(&self, fingerprint: impl Fn(&str) -> Result<String>) -> Result<BTreeMap<String, String>> {
        let mut hashes: BTreeMap<String, String> = BTreeMap::new();
        for stage in &self.stages {
            let inputs: Vec<String> = stage.work.inputs().into_iter().map(&fingerprint).collect::<Result<_>>()?;
            let needed: Vec<&String> = stage.work.needs().iter().filter_map(|id| hashes.get(*id)).collect();
            let text = serde_json::json!([stage, self.seed, self.dtype, self.device, inputs, needed]).to_string();
            hashes.insert(stage.id.clone(), sha256_hex(text.as_bytes()));
        }
        Ok(hashes)
    }
}

fn check_components(work: &Work, registry: &Registry) -> Result<()> {
    let check = |kind, c: &Component| registry.check(kind, &c.name, &c.options);
    match work {
        Work::Rewards(r) => {
            if r.objectives().is_empty() {
                return Err(Error::Invalid("rewards: at least one must be an objective (not only watched)".into()));
            }
            for (i, source) in r.sources.iter().enumerate() {
                if r.sources[..i].iter().any(|s| s.name == source.name) {
                    return Err(Error::Invalid(format!("two rewards are called \"{}\"; rename one", source.name)));
                }
                check(Kind::Reward, &source.source)?;
            }
            Ok(())
        }
        Work::OnlinePreference(o) => {
            check(Kind::Sampler, &o.sampler)?;
            check(Kind::Conditioner, &o.conditioner)?;
            check(Kind::Label, &o.label)?;
            check(Kind::Loss, &o.loss)
        }
        Work::Evaluate(e) => check(Kind::Conditioner, &e.conditioner),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plan() -> Plan {
        serde_json::from_value(json!({
            "name": "t", "seed": 1, "device": "cpu", "dtype": "auto",
            "stages": [
                {"id": "rm", "kind": "reward_model", "model": "base", "data": {"paths": ["pairs"]}},
                {"id": "rewards", "kind": "rewards", "policy": "base", "prompts": {"paths": ["p"]},
                 "sources": [{"name": "Short", "source": {"name": "length", "options": {"target": 3}}}]},
                {"id": "eval", "kind": "evaluate", "name": "start", "policy": "base", "prompts": {"paths": ["p"]},
                 "rewards": "rewards", "conditioner": {"name": "none"}}
            ]
        }))
        .unwrap()
    }

    #[test]
    fn checks_references_and_components() {
        let registry = Registry::builtin();
        plan().check(&registry).unwrap();
        let mut wrong = plan();
        wrong.stages.swap(1, 2);
        assert_eq!(
            wrong.check(&registry).unwrap_err().to_string(),
            "stage \"eval\" needs \"rewards\", which is no earlier stage"
        );
    }

    #[test]
    fn a_hash_follows_options_inputs_and_needs() {
        let contents = |path: &str| Ok(format!("contents of {path}"));
        let before = plan().hashes(contents).unwrap();
        assert_eq!(before, plan().hashes(contents).unwrap());
        let mut changed = plan();
        let Work::Rewards(r) = &mut changed.stages[1].work else { panic!() };
        r.samples = 7;
        let after = changed.hashes(contents).unwrap();
        assert_eq!(before["rm"], after["rm"]);
        assert_ne!(before["rewards"], after["rewards"]);
        assert_ne!(before["eval"], after["eval"]);
        let other = plan().hashes(|p| Ok(format!("new {p}"))).unwrap();
        assert_ne!(before["rm"], other["rm"]);
    }
}
