//! The completion's length.

use super::{RewardSource, Sample};
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub const BUILTIN: Builtin<dyn RewardSource> = Builtin {
    name: "length",
    summary: "the completion's length, or its closeness to a target",
    schema: schema::<Length>(),
    build: |owner, options| Ok(Box::new(parse::<Length>(owner, options)?)),
};

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Words,
    Characters,
}

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Length {
    /// "words" or "characters".
    unit: Unit,
    /// With a target the score is minus the distance from it; without, the length itself.
    #[schemars(range(min = 0, max = 1e9))]
    target: Option<f64>,
}

impl Default for Length {
    fn default() -> Self {
        Self { unit: Unit::Words, target: None }
    }
}

impl Options for Length {}

impl RewardSource for Length {
    fn score(&self, batch: &[Sample]) -> Result<Vec<f64>, String> {
        let length = |s: &Sample| match self.unit {
            Unit::Words => s.completion.split_whitespace().count() as f64,
            Unit::Characters => s.completion.chars().count() as f64,
        };
        Ok(batch.iter().map(|s| self.target.map_or(length(s), |t| -(length(s) - t).abs())).collect())
    }
}
