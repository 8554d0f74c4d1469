//! Every objective votes with its weight: `p = Σ w_k·1[s₁ᵏ > s₂ᵏ]`. With the sigmoid loss this is the sum of the
//! single-objective losses weighted by w (loss scalarisation). An objective that ties abstains.

use super::{Label, LabelRule};
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Result, Weights};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn LabelRule> = Builtin {
    name: "weighted_vote",
    summary: "each objective votes with its weight (loss scalarisation)",
    schema: schema::<WeightedVote>(),
    build: |owner, options| Ok(Box::new(parse::<WeightedVote>(owner, options)?)),
};

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct WeightedVote {}

impl Options for WeightedVote {}

impl LabelRule for WeightedVote {
    fn label(&self, weights: &Weights, first: &[f64], second: &[f64]) -> Result<Label> {
        let (mut won, mut cast) = (0.0, 0.0);
        for ((w, a), b) in weights.values().iter().zip(first).zip(second) {
            if a != b {
                cast += w;
                won += if a > b { *w } else { 0.0 };
            }
        }
        Ok(if cast <= 0.0 { Label::Tie } else { Label::First(won / cast) })
    }
}
