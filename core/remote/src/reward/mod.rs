//! Rewards that servers give: a number of their own, or a language model's word.

pub mod chat;
mod number;
pub mod remote;
mod stated;
