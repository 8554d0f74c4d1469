//! What processes that train one policy together tell each other. Training on several is accumulation: what micro-batches add up to
//! within one process, ranks add up among each other.

use crate::Result;
use crate::optim::Params;

/// The ranks of a training. Each calls these at the same places of a step, also one that has no examples in it.
pub trait Comm {
    /// Adds up each number over all ranks, in place: counts of examples, and losses.
    fn sum(&self, numbers: &mut [f64]) -> Result<()>;

    /// Adds up the parameters' gradients over all ranks, in place. Where a rank has none, it counts as 0.
    fn sum_gradients(&self, params: &Params) -> Result<()>;
}

/// One process, by itself.
pub struct Local;

impl Comm for Local {
    fn sum(&self, _numbers: &mut [f64]) -> Result<()> {
        Ok(())
    }

    fn sum_gradients(&self, _params: &Params) -> Result<()> {
        Ok(())
    }
}
