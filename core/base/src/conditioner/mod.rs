//! Conditioners: how objective weights enter the prompt (paper section 3.3). Training, evaluation and generation
//! all go through the same one, so that a policy never meets a prefix that it was not trained on.

mod attributes;
mod bins;
mod direction;
mod instructions;
mod levels;
mod none;
pub mod rewards_in_context;
mod template;
mod weight_prefix;

use crate::registry::Builtin;
use crate::{Error, Prompt, Result, Weights};

/// Writes weights into a prompt.
pub trait Conditioner: Send + Sync {
    /// `x'`: the prompt as the policy sees it. `objectives` and `weights` have the same length.
    fn render(&self, objectives: &[String], weights: &Weights, prompt: &Prompt) -> Result<Prompt>;

    /// The inverse of `render`: the weights and the plain prompt, or `None` where the text has no weights.
    fn parse(&self, objectives: &[String], conditioned: &Prompt) -> Option<(Weights, Prompt)>;

    /// What scores are weighed by where the best answer at `weights` is looked for: the weights, unless the text says another direction.
    fn direction(&self, _objectives: &[String], weights: &Weights) -> Result<Vec<f64>> {
        Ok(weights.values().to_vec())
    }

    /// The prompt that asks for an answer of these scores (scaled, one per objective); `None` where the text can only say weights.
    fn with_scores(&self, _objectives: &[String], _scores: &[f64], _prompt: &Prompt) -> Result<Option<Prompt>> {
        Ok(None)
    }
}

/// What motrain ships; a new conditioner is a file and a name here.
pub const BUILTINS: &[Builtin<dyn Conditioner>] = &[
    weight_prefix::BUILTIN,
    none::BUILTIN,
    template::BUILTIN,
    instructions::BUILTIN,
    bins::BUILTIN,
    direction::BUILTIN,
    levels::BUILTIN,
    attributes::BUILTIN,
    rewards_in_context::BUILTIN,
];

/// Applies `change` to the first user turn, where the conversation begins.
fn on_first_user(prompt: &Prompt, change: impl FnOnce(&str) -> Option<String>) -> Option<Prompt> {
    let mut changed = prompt.clone();
    let first = changed.messages.iter_mut().find(|m| m.role == "user")?;
    first.content = change(&first.content)?;
    Some(changed)
}

/// Applies `change` to the last user turn, where the conversation ends.
fn on_last_user(prompt: &Prompt, change: impl FnOnce(&str) -> Option<String>) -> Option<Prompt> {
    let mut changed = prompt.clone();
    let last = changed.messages.iter_mut().rev().find(|m| m.role == "user")?;
    last.content = change(&last.content)?;
    Some(changed)
}

/// What no weights can be written into.
fn no_user_turn() -> Error {
    Error::Invalid("a prompt without a user turn cannot be conditioned on weights".into())
}

/// Which of `count` words, evenly from weight 0 to weight 1, is the nearest to a weight.
fn nearest(weight: f64, count: usize) -> usize {
    (weight * (count - 1) as f64).round() as usize
}

/// What coarse words say need not add up to 1.
fn normalised(values: Vec<f64>) -> Option<Weights> {
    let sum: f64 = values.iter().sum();
    Weights::new(values.iter().map(|v| v / sum).collect()).ok()
}

/// A text that a list holds twice.
fn twice(list: &[String]) -> Option<&String> {
    (1..list.len()).find(|&i| list[..i].contains(&list[i])).map(|i| &list[i])
}

/// A weight with a fixed number of decimals, never `-0.0`.
fn decimal(weight: f64, decimals: usize) -> String {
    format!("{:.decimals$}", weight + 0.0)
}
