//! Everything that needs libtorch: models, rollouts, log-probs, optimisers, plans and stages, checkpoints and the run itself.

#![deny(clippy::print_stdout)]
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects, reason = "tensors' operators panic; use f_add, f_mul, …"))]

pub mod decode;
pub mod device;
pub mod environment;
pub mod error;
mod fields;
pub mod files;
pub mod finite;
pub mod folder;
pub mod generation;
pub mod gguf;
pub mod import;
mod inputs;
pub mod memory;
pub mod model;
#[cfg(test)]
mod mutants;
pub mod names;
pub mod optim;
mod others;
pub mod plan;
mod publish;
pub mod reward;
pub mod run;
pub mod runs;
pub mod session;
mod settle;
pub mod stage;
pub mod steer;
mod time_left;
pub mod tokenizer;
pub mod train;

pub use error::{Error, Result, obey};

/// The target of the spans that say where the time goes: parts of a run, coarse to fine.
pub const PROFILE: &str = "motrain::profile";
