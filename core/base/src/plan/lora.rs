//! Whether an adapter is trained, and which.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

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
