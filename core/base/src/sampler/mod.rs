//! Weight samplers: which objective weights a training prompt gets (paper section 3.2).

mod arc_length;
mod dirichlet;
mod fixed;
mod grid;
mod uniform_grid;

use crate::registry::Builtin;
use crate::rng::Rng;
use crate::{Result, Weights};
use serde::{Deserialize, Serialize};

/// Draws weights for training prompts.
pub trait WeightSampler: Send + Sync {
    /// Weights over `objectives` objectives for the `index`-th prompt of the run. `rng` is seeded by `index`, so that a
    /// draw does not depend on earlier ones.
    fn sample(&self, objectives: usize, index: u64, rng: &mut Rng) -> Result<Weights>;

    /// Whether `feedback` is worth an evaluation now and then.
    fn wants_feedback(&self) -> bool {
        false
    }

    /// The front so far, found by an evaluation over a grid of weights.
    fn feedback(&self, _front: &[FrontPoint]) -> Result<()> {
        Ok(())
    }
}

/// Mean scaled rewards of a policy at some weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontPoint {
    /// One per objective.
    pub weights: Weights,
    /// One per objective, over the prompts of an evaluation.
    pub rewards: Vec<f64>,
}

/// What motrain ships; a new sampler is a file and a name here.
pub const BUILTINS: &[Builtin<dyn WeightSampler>] =
    &[dirichlet::BUILTIN, grid::BUILTIN, fixed::BUILTIN, uniform_grid::BUILTIN, arc_length::BUILTIN];
