//! What the options of several stages share: models, components, sampling, optimisers, training. Plans and stages are the engine's.

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
            Self::Stage { stage } => write!(f, "stage \"{stage}\""),
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

/// A low-rank adapter (Hu et al. 2021) that alone is trained: `y = Wx + s·B(Ax)`, s = alpha/r, or alpha/√r (rsLoRA). Names as PEFT's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// The rank of each matrix's change.
    #[schemars(range(min = 1, max = 65_536))]
    pub r: i64,
    /// What the change is multiplied by, times r (or √r).
    #[schemars(range(max = 1_000_000), extend("exclusiveMinimum" = 0))]
    pub alpha: f64,
    /// The share of a matrix's inputs that its change does not see in a training step.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
    pub dropout: f64,
    /// Which matrices: `"all-linear"`, ends of their names in the checkpoint (`["q_proj", "v_proj"]`), or a pattern of whole names.
    pub targets: Targets,
    /// Divide alpha by √r (Kalajdzievski 2023).
    pub rslora: bool,
    /// Save the whole model, with the change in it, instead of a PEFT folder.
    pub merge: bool,
}

/// Matrices by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Targets {
    /// `"all-linear"`, or a pattern of whole names.
    All(#[schemars(length(min = 1, max = 4096))] String),
    /// Ends of names.
    Ends(#[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 4096)))] Vec<String>),
}

impl Default for Lora {
    fn default() -> Self {
        Self {
            r: 16,
            alpha: 32.0,
            dropout: 0.0,
            targets: Targets::All("all-linear".into()),
            rslora: false,
            merge: false,
        }
    }
}

/// `false` for full training, `true` for an adapter with defaults, or an adapter's options.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LoraChoice {
    /// Whether an adapter is trained.
    Whether(bool),
    /// An adapter.
    With(Lora),
}

/// Reads whether, and how, an adapter is trained.
pub fn lora<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Lora>, D::Error> {
    Ok(match LoraChoice::deserialize(from)? {
        LoraChoice::Whether(on) => on.then(Lora::default),
        LoraChoice::With(lora) => Some(lora),
    })
}

/// How long and in what portions a stage trains on given data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    /// Passes over the data.
    #[schemars(range(max = 1_000_000), extend("exclusiveMinimum" = 0))]
    pub epochs: f64,
    /// Stop after this many optimiser steps, whatever the epochs say; 0 follows the epochs.
    #[schemars(range(max = 1_000_000_000))]
    pub steps: usize,
    /// Rows (prompts, pairs) per optimiser step.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub batch_size: usize,
    /// Rows whose gradients are computed at once; the rest of the batch is accumulated. More than a batch is a whole batch.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub micro_batch_size: usize,
    /// Tokens of such a portion at most, padding included: rows of similar length share one as long as rows times the longest of them is no
    /// more. A row that is longer by itself is a portion alone. 0 sets no bound.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(max = 1_000_000_000))]
    pub micro_batch_tokens: usize,
    /// Steps between checkpoints.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub checkpoint_every: usize,
    /// Keep the layers' inputs only, and compute each layer again for its gradient: less memory, for one forward pass more.
    #[serde(skip_serializing_if = "is_false")]
    pub gradient_checkpointing: bool,
}

fn is_zero(x: &usize) -> bool {
    *x == 0
}

fn is_false(x: &bool) -> bool {
    !x
}

impl Default for Training {
    fn default() -> Self {
        Self {
            epochs: 1.0,
            steps: 0,
            batch_size: 32,
            micro_batch_size: 8,
            micro_batch_tokens: 0,
            checkpoint_every: 50,
            gradient_checkpointing: false,
        }
    }
}

impl Training {
    /// Optimiser steps over `rows` rows: whole batches only.
    pub fn total_steps(&self, rows: usize) -> usize {
        let by_epochs = ((rows as f64 * self.epochs) / self.batch_size as f64).floor().max(1.0) as usize;
        if self.steps > 0 { self.steps } else { by_epochs }
    }

    /// Rows in portions whose gradients are computed at once, in their order: as many as both bounds allow, and at least one. `tokens` are those
    /// of a row.
    pub fn micro_batches<'a, T>(&self, rows: &'a [T], tokens: impl Fn(&T) -> usize) -> Vec<&'a [T]> {
        let most = if self.micro_batch_tokens == 0 { usize::MAX } else { self.micro_batch_tokens };
        let (mut out, mut start, mut widest) = (Vec::new(), 0, 0);
        for (i, row) in rows.iter().enumerate() {
            let (count, wide) = (i - start + 1, widest.max(tokens(row)));
            let fits = count <= self.micro_batch_size && count.saturating_mul(wide) <= most;
            widest = if fits || i == start { wide } else { tokens(row) };
            if !fits && i > start {
                out.push(&rows[start..i]);
                start = i;
            }
        }
        out.extend((start < rows.len()).then_some(&rows[start..]));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_micro_batch_is_bounded_by_rows_and_by_padded_tokens() {
        let split = |rows: &[usize], micro_batch_size: usize, micro_batch_tokens: usize| {
            let train = Training { micro_batch_size, micro_batch_tokens, ..Training::default() };
            train.micro_batches(rows, |tokens| *tokens).iter().map(|part| part.to_vec()).collect::<Vec<_>>()
        };
        let rows = [2, 3, 3, 4, 9, 30];
        assert_eq!(split(&rows, 4, 0), [vec![2, 3, 3, 4], vec![9, 30]]);
        // 3 rows of 3, 1 of 4 beside 9 would be 18; 30 is alone whatever the bound.
        assert_eq!(split(&rows, 4, 12), [vec![2, 3, 3], vec![4], vec![9], vec![30]]);
        assert_eq!(split(&rows, 2, 18), [vec![2, 3], vec![3, 4], vec![9], vec![30]]);
        assert_eq!(split(&rows, 100, 180), [rows.to_vec()]);
        // The longest need not be the last.
        assert_eq!(split(&[9, 2, 2], 100, 18), [vec![9, 2], vec![2]]);
        assert_eq!(split(&[], 4, 12), Vec::<Vec<usize>>::new());
    }
}
