//! SLiC-HF (Zhao et al. 2023) in its hinge form on log-ratios: `p·max(0, 1 − m) + (1−p)·max(0, 1 + m)` with `m = β(Δ₊ − Δ₋)`.

use super::{PairBatch, PairLoss, PairwiseLoss, per_pair};
use crate::Result;
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn PairwiseLoss> = Builtin {
    name: "slic",
    summary: "hinge loss of the log-ratio gap (SLiC-HF)",
    schema: schema::<Slic>(),
    build: |owner, options| Ok(Box::new(parse::<Slic>(owner, options)?)),
};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Slic {
    /// What the log-ratio gap is multiplied by; the hinge opens at 1/beta.
    #[schemars(range(min = 1e-6, max = 1000))]
    beta: f64,
}

impl Default for Slic {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

impl Options for Slic {}

impl PairwiseLoss for Slic {
    fn evaluate(&self, pairs: &PairBatch) -> Result<PairLoss> {
        per_pair(pairs, |i| {
            let m = self.beta * pairs.log_ratio_gap(i);
            let p = pairs.label[i];
            let loss = p * (1.0 - m).max(0.0) + (1.0 - p) * (1.0 + m).max(0.0);
            let won = if m < 1.0 { -p } else { 0.0 };
            let lost = if m > -1.0 { 1.0 - p } else { 0.0 };
            let d = self.beta * (won + lost);
            (loss, d, -d)
        })
    }

    fn beta(&self) -> f64 {
        self.beta
    }
}
