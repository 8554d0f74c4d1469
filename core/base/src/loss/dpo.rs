//! DPO (Rafailov et al. 2023; paper equation 3): `−p·log σ(m) − (1−p)·log σ(−m)` with `m = β(Δ₊ − Δ₋)`.

use super::{PairBatch, PairLoss, PairwiseLoss, neg_log_sigmoid, per_pair, sigmoid};
use crate::Result;
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn PairwiseLoss> = Builtin {
    name: "dpo",
    summary: "logistic loss of the log-ratio gap (the paper's)",
    schema: schema::<Dpo>(),
    build: |owner, options| Ok(Box::new(parse::<Dpo>(owner, options)?)),
};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Dpo {
    /// The KL coefficient.
    #[schemars(range(min = 1e-6, max = 1000))]
    beta: f64,
    /// The probability that a label is wrong (cDPO), from 0 to below 0.5.
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 0.5))]
    label_smoothing: f64,
}

impl Default for Dpo {
    fn default() -> Self {
        Self { beta: 0.01, label_smoothing: 0.0 }
    }
}

impl Options for Dpo {}

impl PairwiseLoss for Dpo {
    fn evaluate(&self, pairs: &PairBatch) -> Result<PairLoss> {
        per_pair(pairs, |i| {
            let m = self.beta * pairs.log_ratio_gap(i);
            let p = pairs.label[i] * (1.0 - 2.0 * self.label_smoothing) + self.label_smoothing;
            let loss = p * neg_log_sigmoid(m) + (1.0 - p) * neg_log_sigmoid(-m);
            let d = self.beta * (sigmoid(m) - p);
            (loss, d, -d)
        })
    }

    fn beta(&self) -> f64 {
        self.beta
    }
}
