//! The seams of motrain and everything that needs no tensors: weights, the kinds of component and their
//! registry, what stages' options share, data files, reward scaling, and the metrics of a front.

#![warn(missing_docs)]

pub mod advantage;
pub mod conditioner;
pub mod config;
pub mod data;
pub mod durable;
pub mod error;
pub mod judge;
pub mod label;
pub mod levels;
pub mod loss;
pub mod metrics;
pub mod normaliser;
pub mod options;
pub mod plan;
pub mod prompt;
pub mod registry;
pub mod reward;
pub mod rng;
pub mod sampler;
pub mod scale;
pub mod schema;
pub mod shown;
pub mod stop;
pub mod weights;

pub use error::{Error, Result};
pub use prompt::{Message, Prompt};
pub use registry::{Kind, Registry};
pub use weights::Weights;
