//! Rewards and judges that servers give, asked over HTTP.

pub mod http;
mod judge;
mod reward;

use motrain_core::{Registry, Result};

/// Adds them to a registry.
pub fn register(registry: &mut Registry) -> Result<()> {
    registry.rewards.ship(&reward::remote::BUILTIN)?;
    registry.rewards.ship(&reward::chat::BUILTIN)?;
    registry.judges.ship(&judge::chat::BUILTIN)
}
