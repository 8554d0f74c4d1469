//! IPO (Azar et al. 2023): `(h − 1/(2β))²`, where h is the log-ratio gap of the sequences' sums (`ipo`, as in the paper and TRL's
//! online trainer) or of their per-token means (`ipo_mean`, as in TRL's offline trainer). They are different losses.

use super::{PairBatch, PairLoss, PairwiseLoss, per_pair};
use crate::Result;
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use schemars::JsonSchema;
use serde::Deserialize;

pub const SUM: Builtin<dyn PairwiseLoss> = Builtin {
    name: "ipo",
    summary: "squared distance of the log-ratio gap from 1/(2 beta), on sums over tokens",
    schema: schema::<IpoOptions>(),
    build: |owner, options| Ok(Box::new(Ipo { beta: parse::<IpoOptions>(owner, options)?.beta, per_token: false })),
};

pub const MEAN: Builtin<dyn PairwiseLoss> = Builtin {
    name: "ipo_mean",
    summary: "squared distance of the log-ratio gap from 1/(2 beta), on means per token",
    schema: schema::<IpoOptions>(),
    build: |owner, options| Ok(Box::new(Ipo { beta: parse::<IpoOptions>(owner, options)?.beta, per_token: true })),
};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct IpoOptions {
    /// The regulariser τ of IPO; the gap aims at 1/(2 beta).
    #[schemars(range(min = 1e-6, max = 1000))]
    beta: f64,
}

impl Default for IpoOptions {
    fn default() -> Self {
        Self { beta: 0.1 }
    }
}

impl Options for IpoOptions {}

struct Ipo {
    beta: f64,
    per_token: bool,
}

impl PairwiseLoss for Ipo {
    fn evaluate(&self, pairs: &PairBatch) -> Result<PairLoss> {
        per_pair(pairs, |i| {
            let per = |tokens: u32| {
                if self.per_token { f64::from(tokens.max(1)) } else { 1.0 }
            };
            let (n_first, n_second) = (per(pairs.tokens_first[i]), per(pairs.tokens_second[i]));
            let h = (pairs.policy_first[i] - pairs.reference_first[i]) / n_first
                - (pairs.policy_second[i] - pairs.reference_second[i]) / n_second;
            let aim = 1.0 / (2.0 * self.beta);
            let p = pairs.label[i];
            let loss = p * (h - aim).powi(2) + (1.0 - p) * (-h - aim).powi(2);
            let d = 2.0 * p * (h - aim) + 2.0 * (1.0 - p) * (h + aim);
            (loss, d / n_first, -d / n_second)
        })
    }

    fn beta(&self) -> f64 {
        self.beta
    }
}
