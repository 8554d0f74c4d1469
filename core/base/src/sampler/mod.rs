//! Weight samplers: which objective weights a training prompt gets (paper section 3.2).

mod dirichlet;
mod fixed;
mod grid;
mod uniform_grid;

use crate::registry::Builtin;
use crate::rng::Rng;
use crate::{Result, Weights};

/// Draws weights for training prompts.
pub trait WeightSampler: Send + Sync {
    /// Weights over `objectives` objectives for the `index`-th prompt of the run. `rng` is seeded by `index`, so that a
    /// draw does not depend on earlier ones.
    fn sample(&self, objectives: usize, index: u64, rng: &mut Rng) -> Result<Weights>;
}

pub const BUILTINS: &[Builtin<dyn WeightSampler>] =
    &[dirichlet::BUILTIN, grid::BUILTIN, fixed::BUILTIN, uniform_grid::BUILTIN];
