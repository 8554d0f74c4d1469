//! Options of the stages that train on given data: `init_model`, `sft`, `reward_model`.

use super::Uses;
use super::shared::{Component, ModelRef, Optimizer, Training};
use crate::data::DataSpec;
use crate::options::{Checked, Options};
use crate::registry::Kind;
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

impl Uses for InitModel {
    fn files(&self) -> Vec<&str> {
        self.corpus.iter().map(String::as_str).collect()
    }
}

/// Supervised fine-tuning on `{"prompt", "completion"}` rows, or on what a `best_of_n` or `ric_data` stage kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sft {
    pub model: ModelRef,
    #[serde(default)]
    pub data: Option<DataSpec>,
    /// The id of a `best_of_n` or `ric_data` stage.
    #[serde(default)]
    pub samples: Option<String>,
    /// What the policy learns to be steered by, if the rows have it in their prompts; saved beside it.
    #[serde(default)]
    pub conditioner: Option<Component>,
    /// With `conditioner`, the id of the `rewards` stage that names the objectives.
    #[serde(default)]
    pub rewards: Option<String>,
    #[serde(default)]
    pub train: Training,
    #[serde(default)]
    pub optimizer: Optimizer,
}

impl Options for Sft {
    fn check(&self) -> Checked {
        if self.conditioner.is_some() != self.rewards.is_some() {
            return Err(("conditioner", "and \"rewards\" go together".into()));
        }
        match (&self.data, &self.samples) {
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err(("data", "or \"samples\" must be given, and only one of them".into())),
        }
    }
}

impl Uses for Sft {
    fn models(&self) -> Vec<&ModelRef> {
        vec![&self.model]
    }

    fn components(&self) -> Vec<(Kind, &Component)> {
        self.conditioner.iter().map(|c| (Kind::Conditioner, c)).collect()
    }

    fn stages(&self) -> Vec<&str> {
        self.samples.as_deref().into_iter().chain(self.rewards.as_deref()).collect()
    }

    fn data(&self) -> Vec<&DataSpec> {
        self.data.iter().collect()
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

impl Uses for RewardModel {
    fn models(&self) -> Vec<&ModelRef> {
        vec![&self.model]
    }

    fn data(&self) -> Vec<&DataSpec> {
        std::iter::once(&self.data).chain(&self.heldout).collect()
    }
}
