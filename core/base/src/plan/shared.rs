//! What the options of several stages share: models, components, sampling, optimisers, training.

use crate::options::{Checked, Options};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

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

/// A plugin's library, as plan and manifest name it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PluginFile {
    pub path: String,
    pub sha256: String,
    /// `loss acme.robust`, …
    pub components: Vec<String>,
}

/// The script whose functions serve as components: source and configuration, so that a resumed run has the same ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScriptSource {
    pub path: String,
    pub source: String,
    /// Texts of the modules that it imports, by the name that it imports them by.
    #[serde(default)]
    pub modules: BTreeMap<String, String>,
    pub config: Value,
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
