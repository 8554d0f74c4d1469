//! What the options of several stages share: models, components, sampling, optimisers, training. Plans and stages are the engine's.

mod lora;
mod training;

pub use lora::{Gains, Lora, LoraChoice, Targets, lora};
pub use training::Training;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A model folder, or the output of an earlier stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ModelRef {
    /// What a stage of the plan makes.
    Stage {
        /// The stage's id.
        #[schemars(length(min = 1, max = 100))]
        stage: String,
        /// What it was after so many epochs, one of those that its `train.keep` has; without it, what it is in the end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(max = 1_000_000), extend("exclusiveMinimum" = 0))]
        epoch: Option<f64>,
    },
    /// A Hugging Face folder.
    Path(#[schemars(length(min = 1, max = 4096))] String),
}

impl ModelRef {
    /// The path of a model that no stage makes.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Path(path) => Some(path),
            Self::Stage { .. } => None,
        }
    }

    /// The same, to be changed.
    pub fn path_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Path(path) => Some(path),
            Self::Stage { .. } => None,
        }
    }
}

/// As it is told: a path, or the stage that makes it.
impl std::fmt::Display for ModelRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Stage { stage, epoch: None } => write!(f, "stage \"{stage}\""),
            Self::Stage { stage, epoch: Some(epoch) } => write!(f, "stage \"{stage}\" after {epoch} epochs"),
        }
    }
}

/// The id of an earlier stage; a script gives the stage's handle, or the id itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Handle")]
pub struct StageId(pub String);

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Handle {
    Stage {
        #[schemars(length(min = 1, max = 100))]
        stage: String,
    },
    Id(#[schemars(length(min = 1, max = 100))] String),
}

impl From<Handle> for StageId {
    fn from(handle: Handle) -> Self {
        match handle {
            Handle::Stage { stage } | Handle::Id(stage) => Self(stage),
        }
    }
}

impl std::ops::Deref for StageId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for StageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A registered component and its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// As the registry knows it.
    #[schemars(length(min = 1, max = 200))]
    pub name: String,
    /// They have the component's own schema to fit.
    #[serde(default)]
    #[schemars(extend("x-any" = true))]
    pub options: Value,
}

/// A component as it may be given where a name alone will do.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Named {
    /// The name alone: every option has its default.
    Name(#[schemars(length(min = 1, max = 200))] String),
    /// Name and options.
    Whole(Component),
}

impl From<Named> for Component {
    /// No options are no others than empty ones.
    fn from(named: Named) -> Self {
        let (name, options) = match named {
            Named::Name(name) => (name, Value::Null),
            Named::Whole(Component { name, options }) => (name, options),
        };
        Self { name, options: if options.is_null() { Value::Object(Default::default()) } else { options } }
    }
}

/// Reads a component that may be given by its name alone.
pub fn named<'de, D: Deserializer<'de>>(from: D) -> Result<Component, D::Error> {
    Named::deserialize(from).map(Component::from)
}

/// A plugin's library, as plan and manifest name it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginFile {
    /// Where it lay when it was loaded.
    pub path: String,
    /// Of its bytes, in hexadecimal.
    pub sha256: String,
    /// `loss acme.robust`, …
    pub components: Vec<String>,
    /// SHA-256 of the libraries beside it that it needs, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needs: BTreeMap<String, String>,
    /// The options that name a model folder (`"format": "path"` in the schema), by component.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub folders: BTreeMap<String, Vec<String>>,
}

/// The script whose functions serve as components: source and configuration, so that a resumed run has the same ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScriptSource {
    /// Where it lay.
    pub path: String,
    /// Its text.
    pub source: String,
    /// Texts of the modules that it imports, by the name that it imports them by.
    #[serde(default)]
    pub modules: BTreeMap<String, String>,
    /// What `cfg` was.
    pub config: Value,
}

/// How completions are drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationConfig {
    /// Tokens after which an answer is cut.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_new_tokens: usize,
    /// 0 is greedy; between 0 and 0.001 logits overflow.
    #[schemars(range(min = 0, max = 100), extend("anyOf" = [{"maximum": 0}, {"minimum": 0.001}]))]
    pub temperature: f64,
    /// Keep the k likeliest tokens; 0 keeps all.
    #[schemars(range(max = 10_000_000))]
    pub top_k: usize,
    /// Keep the likeliest tokens that together have this probability; 1 keeps all.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub top_p: f64,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self { max_new_tokens: 64, temperature: 1.0, top_k: 0, top_p: 1.0 }
    }
}

/// How parameters move.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Optimizer {
    /// AdamW, or Adafactor.
    pub name: OptimizerName,
    /// The highest learning rate.
    #[schemars(range(max = 10), extend("exclusiveMinimum" = 0))]
    pub lr: f64,
    /// What becomes of the learning rate after its warm-up.
    pub schedule: Schedule,
    /// Steps over which the learning rate rises from 0.
    #[schemars(range(max = 1_000_000_000))]
    pub warmup_steps: usize,
    /// Decoupled from the gradient, times the learning rate.
    #[schemars(range(min = 0, max = 10))]
    pub weight_decay: f64,
    /// Gradients are scaled down to this norm; 0 switches it off.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub max_grad_norm: f64,
    /// AdamW's decay of the mean gradient.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub beta1: f64,
    /// AdamW's decay of the mean squared gradient.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub beta2: f64,
    /// AdamW's addend to the root of the mean square.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub epsilon: f64,
}

/// Which rule moves the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerName {
    /// The paper's.
    Adafactor,
    /// Loshchilov and Hutter 2019.
    Adamw,
}

/// The course of the learning rate after its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// As it is.
    Constant,
    /// Down to 0 along a line.
    Linear,
    /// Down to 0 along half a cosine.
    Cosine,
}

impl Default for Optimizer {
    fn default() -> Self {
        Self {
            name: OptimizerName::Adamw,
            lr: 1e-5,
            schedule: Schedule::Constant,
            warmup_steps: 0,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
        }
    }
}
