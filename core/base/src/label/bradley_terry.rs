//! A soft label: `p = σ((s₁ − s₂)/τ)`. With τ = 1 and the sigmoid loss, the optimum over all policies is the closed form
//! `π* ∝ π₀·exp(s/β)`.

use super::{Label, LabelRule};
use crate::loss::sigmoid;
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Result, Weights};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn LabelRule> = Builtin {
    name: "bradley_terry",
    summary: "a soft label: the Bradley-Terry probability of the weighted scores",
    schema: schema::<BradleyTerry>(),
    build: |owner, options| Ok(Box::new(parse::<BradleyTerry>(owner, options)?)),
};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct BradleyTerry {
    /// τ: the score gap that counts as one unit of log-odds.
    #[schemars(range(min = 1e-6, max = 1e6))]
    temperature: f64,
}

impl Default for BradleyTerry {
    fn default() -> Self {
        Self { temperature: 1.0 }
    }
}

impl Options for BradleyTerry {}

impl LabelRule for BradleyTerry {
    fn label(&self, weights: &Weights, first: &[f64], second: &[f64]) -> Result<Label> {
        Ok(Label::First(sigmoid((weights.dot(first) - weights.dot(second)) / self.temperature)))
    }
}
