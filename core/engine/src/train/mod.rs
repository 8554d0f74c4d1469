//! Training: what every stage that moves parameters shares, whatever its loss is.

pub mod checkpoint;
mod comm;
mod drawn;
pub mod events;
pub mod log;
pub mod logprob;
mod pairs;
mod trainer;

pub use comm::{Comm, Local};
pub use drawn::{Drawn, LogProbs, Moved, surrogate};
pub use pairs::{Elsewhere, PairStep, TokenPair};
pub use trainer::Trainer;
