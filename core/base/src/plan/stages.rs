//! The stages' options, one struct a kind of stage.

use super::shared::{Component, ModelRef, Optimizer, Sampling, Training};
use crate::data::DataSpec;
use crate::error::{Error, Result};
use crate::options::{Checked, Options};
use crate::weights::{Weights, steps_of};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// Supervised fine-tuning on `{"prompt", "completion"}` rows, or on what a `best_of_n` stage kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sft {
    pub model: ModelRef,
    #[serde(default)]
    pub data: Option<DataSpec>,
    /// The id of a `best_of_n` stage.
    #[serde(default)]
    pub samples: Option<String>,
    #[serde(default)]
    pub train: Training,
    #[serde(default)]
    pub optimizer: Optimizer,
}

impl Options for Sft {
    fn check(&self) -> Checked {
        match (&self.data, &self.samples) {
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err(("data", "or \"samples\" must be given, and only one of them".into())),
        }
    }
}

/// Samples several completions of each plain prompt and keeps, for each of some drawn weights, the best by weighted score, as a
/// demonstration under the conditioned prompt: teaches a policy to read weights (as DPA and RiC do) before it is trained online.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BestOfN {
    pub policy: ModelRef,
    pub prompts: DataSpec,
    /// The id of a `rewards` stage.
    pub rewards: String,
    pub sampler: Component,
    pub conditioner: Component,
    /// Completions a prompt.
    #[serde(default = "eight")]
    pub completions: usize,
    /// Weight vectors a prompt.
    #[serde(default = "two")]
    pub weights: usize,
    #[serde(default)]
    pub generate: Sampling,
}

fn eight() -> usize {
    8
}

impl Options for BestOfN {
    fn check(&self) -> Checked {
        if self.completions < 2 {
            return Err(("completions", format!("must be at least 2, not {}", self.completions)));
        }
        if self.weights == 0 {
            return Err(("weights", "must be at least 1".into()));
        }
        Ok(())
    }
}

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
    /// Steps between evaluations that a weight sampler with feedback is told of; 0 never.
    #[serde(default = "feedback_every")]
    pub feedback_every: usize,
    /// Training prompts of such an evaluation.
    #[serde(default = "feedback_prompts")]
    pub feedback_prompts: usize,
    #[serde(default)]
    pub generate: Sampling,
    #[serde(default)]
    pub train: Training,
    #[serde(default)]
    pub optimizer: Optimizer,
}

fn feedback_every() -> usize {
    25
}

fn feedback_prompts() -> usize {
    16
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
            Some(list) => {
                if let Some(odd) = list.iter().find(|w| w.len() != objectives) {
                    let what = format!("{odd:?} has {} weights for {objectives} objectives", odd.len());
                    return Err(Error::BadOption { owner: "evaluate".into(), option: "weights".into(), what });
                }
                list.iter().cloned().map(Weights::new).collect()
            }
            None => Ok(Weights::grid(objectives, steps_of(self.step).map_err(Error::Invalid)?)),
        }
    }
}
