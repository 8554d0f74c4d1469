//! Rewards that servers give: a number of their own, or a language model's word.

pub mod chat;
mod number;
pub mod remote;
mod stated;

/// The scores, where none may be missing.
fn all(scores: Vec<Option<f64>>) -> Result<Vec<f64>, String> {
    scores.into_iter().collect::<Option<_>>().ok_or_else(|| "left out samples".into())
}
