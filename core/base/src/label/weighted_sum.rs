//! The paper's rule: the larger weighted score wins (equations 1–2). Equal scores are a tie; the paper's `>`-else would
//! label them against the first completion.

use super::{Label, LabelRule};
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Result, Weights};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn LabelRule> = Builtin {
    name: "weighted_sum",
    summary: "the completion with the larger weighted score wins (the paper's reward scalarisation)",
    schema: schema::<WeightedSum>(),
    build: |owner, options| Ok(Box::new(parse::<WeightedSum>(owner, options)?)),
};

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WeightedSum {
    /// Weighted scores closer than this are a tie.
    #[schemars(range(min = 0, max = 1e6))]
    tolerance: f64,
}

impl Options for WeightedSum {}

impl LabelRule for WeightedSum {
    fn label(&self, weights: &Weights, first: &[f64], second: &[f64]) -> Result<Label> {
        Ok(Label::larger(weights.dot(first), weights.dot(second), self.tolerance))
    }
}
