//! Linear maps of raw rewards to about [0, 1], fitted once on the initial policy's samples and then frozen (paper section 4.3).

use crate::metrics::stats::{mean, quantile, std};
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `scaled = (raw − low) / (high − low)`, with where it comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// The raw score that becomes 0.
    pub low: f64,
    /// The raw score that becomes 1.
    pub high: f64,
    /// Samples that the map was fitted on; 0 for a map given by hand.
    pub samples: usize,
    /// What the samples were: model, data, quantiles.
    pub provenance: String,
}

/// What of the samples becomes 0 and 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Their 1 % and 99 % quantiles.
    #[default]
    Quantiles,
    /// Their mean, and a standard deviation above it: z-scores, as Rewards-in-Context and MI-EPO have them.
    ZScore,
}

impl Fit {
    /// As provenance says it.
    pub fn words(self) -> &'static str {
        match self {
            Fit::Quantiles => "1 % and 99 % quantiles",
            Fit::ZScore => "mean and standard deviation",
        }
    }

    fn ends(self, raw: &[f64]) -> (f64, f64) {
        match self {
            Fit::Quantiles => (quantile(raw, 0.01), quantile(raw, 0.99)),
            Fit::ZScore => (mean(raw), mean(raw) + std(raw)),
        }
    }
}

impl Scale {
    /// Fits what `fit` says to 0 and 1.
    pub fn fit(reward: &str, raw: &[f64], fit: Fit, provenance: &str) -> Result<Self> {
        let (low, high) = fit.ends(raw);
        let useless = match raw {
            [] => Some("left out all samples of the initial policy".to_owned()),
            _ if high - low <= 1e-9 => Some(format!("gives {low} to all {} samples of the initial policy", raw.len())),
            _ => None,
        };
        if let Some(what) = useless {
            let mend = "mend the reward, or set its scale by hand: scale = [low, high]";
            let what = format!("{what}, so that no scale can be fitted; {mend}");
            return Err(Error::RewardSource { reward: reward.into(), what });
        }
        Ok(Self { low, high, samples: raw.len(), provenance: provenance.into() })
    }

    /// A map given by hand.
    pub fn given(low: f64, high: f64) -> Self {
        Self { low, high, samples: 0, provenance: "given".into() }
    }

    /// The scaled score; it may leave [0, 1].
    pub fn apply(&self, raw: f64) -> f64 {
        (raw - self.low) / (self.high - self.low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_and_refuses_constants() {
        let raw: Vec<f64> = (0..=100).map(f64::from).collect();
        let scale = Scale::fit("r", &raw, Fit::Quantiles, "test").unwrap();
        assert_eq!((scale.low, scale.high), (1.0, 99.0));
        assert_eq!(scale.apply(50.0), 0.5);
        let z = Scale::fit("r", &[1.0, 2.0, 3.0, 6.0], Fit::ZScore, "test").unwrap();
        assert_eq!(z.apply(3.0), 0.0);
        assert!((z.apply(6.0) - 1.603_567_451).abs() < 1e-9);
        let refused = |raw: &[f64], fit| Scale::fit("r", raw, fit, "test").unwrap_err().to_string();
        assert!(refused(&[2.0; 9], Fit::ZScore).contains("gives 2 to all 9 samples of the initial policy, so that no"));
        for fit in [Fit::Quantiles, Fit::ZScore] {
            assert!(refused(&[], fit).contains("left out all samples of the initial policy, so that no scale can be"));
        }
    }
}
