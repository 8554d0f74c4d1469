//! Always the same weights: a policy for one trade-off.

use super::WeightSampler;
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use crate::rng::Rng;
use crate::{Error, Result, Weights};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn WeightSampler> = Builtin {
    name: "fixed",
    summary: "the same weights for every prompt",
    schema: schema::<Fixed>(),
    build: |owner, options| Ok(Box::new(parse::<Fixed>(owner, options)?)),
};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Fixed {
    /// One weight per objective; they sum to 1.
    weights: Weights,
}

impl Options for Fixed {}

impl WeightSampler for Fixed {
    fn sample(&self, objectives: usize, _index: u64, _rng: &mut Rng) -> Result<Weights> {
        if self.weights.len() != objectives {
            let what = format!("has {} weights for {objectives} objectives", self.weights.len());
            return Err(Error::BadOption { owner: "sampler \"fixed\"".into(), option: "weights".into(), what });
        }
        Ok(self.weights.clone())
    }
}
