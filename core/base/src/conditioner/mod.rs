//! Conditioners: how objective weights enter the prompt (paper section 3.3). Training, evaluation and generation
//! all go through the same one, so that a policy never meets a prefix that it was not trained on.

mod instructions;
mod none;
pub mod rewards_in_context;
mod template;
mod weight_prefix;

use crate::registry::Builtin;
use crate::{Prompt, Result, Weights};

/// Writes weights into a prompt.
pub trait Conditioner: Send + Sync {
    /// `x'`: the prompt as the policy sees it. `objectives` and `weights` have the same length.
    fn render(&self, objectives: &[String], weights: &Weights, prompt: &Prompt) -> Result<Prompt>;

    /// The inverse of `render`: the weights and the plain prompt, or `None` where the text has no weights.
    fn parse(&self, objectives: &[String], conditioned: &Prompt) -> Option<(Weights, Prompt)>;
}

/// What motrain ships; a new conditioner is a file and a name here.
pub const BUILTINS: &[Builtin<dyn Conditioner>] =
    &[weight_prefix::BUILTIN, none::BUILTIN, template::BUILTIN, instructions::BUILTIN, rewards_in_context::BUILTIN];

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

/// A weight with a fixed number of decimals, never `-0.0`.
fn decimal(weight: f64, decimals: usize) -> String {
    format!("{:.decimals$}", weight + 0.0)
}
