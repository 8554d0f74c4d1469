//! Options of the stages that train on given data: `init_model`, `sft`, `reward_model`.

use super::shared::{Component, ModelRef, Optimizer, Training};
use super::{Makes, Uses};
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
    #[schemars(length(min = 1, max = 10_000), inner(length(min = 1, max = 4096)))]
    pub corpus: Vec<String>,
    /// At least the 256 bytes and 4 special tokens.
    #[schemars(range(min = 260, max = 10_000_000))]
    pub vocab_size: usize,
    #[schemars(range(min = 2, max = 100_000))]
    pub hidden_size: i64,
    #[schemars(range(min = 1, max = 1_000_000))]
    pub intermediate_size: i64,
    #[schemars(range(min = 1, max = 10_000))]
    pub layers: i64,
    #[schemars(range(min = 1, max = 10_000))]
    pub heads: i64,
    #[schemars(range(min = 1, max = 10_000))]
    pub kv_heads: i64,
    #[schemars(range(min = 1, max = 10_000_000))]
    pub context: i64,
}

impl Options for InitModel {
    fn check(&self) -> Checked {
        let Self { hidden_size, heads, kv_heads, .. } = self;
        if hidden_size % (2 * heads) != 0 {
            let what =
                format!("is {heads}, but hidden_size {hidden_size} must give each head an even number of dimensions");
            return Err(("heads", what));
        }
        if heads % kv_heads != 0 {
            return Err(("kv_heads", format!("is {kv_heads}, which does not divide the {heads} heads")));
        }
        Ok(())
    }
}

impl Uses for InitModel {
    fn files(&self) -> Vec<&str> {
        self.corpus.iter().map(String::as_str).collect()
    }

    fn paths_mut(&mut self) -> Vec<&mut String> {
        self.corpus.iter_mut().collect()
    }
}

/// Supervised fine-tuning on `{"prompt", "completion"}` rows or conversations, or on what a `best_of_n` or `ric_data` stage kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sft {
    pub model: ModelRef,
    #[serde(default)]
    pub data: Option<DataSpec>,
    /// The id of a `best_of_n` or `ric_data` stage.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100))]
    pub samples: Option<String>,
    /// What the policy learns to be steered by, if the rows have it in their prompts; saved beside it.
    #[serde(default)]
    pub conditioner: Option<Component>,
    /// With `conditioner`, the id of the `rewards` stage that names the objectives.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100))]
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

    fn stages(&self) -> Vec<(Makes, &str)> {
        let samples = self.samples.iter().map(|id| (Makes::Samples, id.as_str()));
        samples.chain(self.rewards.iter().map(|id| (Makes::Rewards, id.as_str()))).collect()
    }

    fn data(&self) -> Vec<&DataSpec> {
        self.data.iter().collect()
    }

    fn paths_mut(&mut self) -> Vec<&mut String> {
        self.model.path_mut().into_iter().chain(self.data.iter_mut().flat_map(|d| &mut d.paths)).collect()
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
    #[schemars(range(max = 10_000))]
    pub layers: usize,
    /// Tokens of prompt and answer together; a longer prompt loses its beginning.
    #[serde(default = "reward_tokens")]
    #[schemars(range(min = 2, max = 10_000_000))]
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

    fn paths_mut(&mut self) -> Vec<&mut String> {
        let data = std::iter::once(&mut self.data).chain(&mut self.heldout);
        self.model.path_mut().into_iter().chain(data.flat_map(|d| &mut d.paths)).collect()
    }
}
