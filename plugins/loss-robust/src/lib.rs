//! DPO for labels that are wrong with a known probability ε, as a motrain plugin.
//!
//! - cDPO (Mitchell 2023) mixes the two directions: the label p becomes `p(1−2ε) + ε`.
//! - rDPO (Chowdhury et al. 2024) undoes the noise without bias: it becomes `(p−ε) / (1−2ε)`, which may leave [0, 1].
//!
//! Both are then `−q·log σ(m) − (1−q)·log σ(−m)` with `m = β(Δ₊ − Δ₋)`.

use motrain_plugin::toolbox::log_sigmoid;
use motrain_plugin::{Component, Loss, Pair, PairLoss};

motrain_plugin::options! {
    /// Options of both losses.
    pub struct Options {
        /// The KL coefficient.
        beta: f64 = 0.1,
        /// The probability that a label is wrong, from 0 to below 0.5.
        noise: f64 = 0.1,
    }
}

fn checked(options: Options) -> Result<Options, String> {
    if options.beta.is_nan() || options.beta <= 0.0 {
        return Err(format!("option \"beta\" must be above 0, not {}", options.beta));
    }
    if !(0.0..0.5).contains(&options.noise) {
        return Err(format!("option \"noise\" must be from 0 to below 0.5, not {}", options.noise));
    }
    Ok(options)
}

/// The loss with the label replaced by `q`.
fn logistic(pair: &Pair, beta: f64, q: f64) -> PairLoss {
    let m = beta * pair.log_ratio_gap();
    let d = beta * (log_sigmoid(m).exp() - q);
    PairLoss { loss: -q * log_sigmoid(m) - (1.0 - q) * log_sigmoid(-m), d_first: d, d_second: -d }
}

struct Conservative(Options);

impl Component for Conservative {
    const NAME: &'static str = "motrain.cdpo";
    const SUMMARY: &'static str = "DPO with smoothed labels (cDPO)";
    type Options = Options;
    fn create(options: Options, _seed: u64) -> Result<Self, String> {
        checked(options).map(Self)
    }
}

impl Loss for Conservative {
    fn evaluate(&self, pair: &Pair) -> PairLoss {
        logistic(pair, self.0.beta, pair.label * (1.0 - 2.0 * self.0.noise) + self.0.noise)
    }
    fn beta(&self) -> f64 {
        self.0.beta
    }
}

struct Robust(Options);

impl Component for Robust {
    const NAME: &'static str = "motrain.rdpo";
    const SUMMARY: &'static str = "DPO corrected for label noise (rDPO)";
    type Options = Options;
    fn create(options: Options, _seed: u64) -> Result<Self, String> {
        checked(options).map(Self)
    }
}

impl Loss for Robust {
    fn evaluate(&self, pair: &Pair) -> PairLoss {
        logistic(pair, self.0.beta, (pair.label - self.0.noise) / (1.0 - 2.0 * self.0.noise))
    }
    fn beta(&self) -> f64 {
        self.0.beta
    }
}

motrain_plugin::export! { losses: [Conservative, Robust] }

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(label: f64) -> Pair<'static> {
        Pair {
            policy_first: -40.0,
            policy_second: -55.0,
            reference_first: -42.0,
            reference_second: -50.0,
            tokens_first: 10,
            tokens_second: 12,
            label,
            weights: &[],
            margins: &[],
        }
    }

    fn options(noise: f64) -> Options {
        Options { beta: 0.1, noise }
    }

    #[test]
    fn golden_values() {
        // m = 0.7: −log σ(0.7) = 0.4031860, −log σ(−0.7) = 1.1031860.
        let dpo = Conservative(options(0.0)).evaluate(&pair(1.0));
        assert!((dpo.loss - 0.403_186_0).abs() < 1e-7);
        let cdpo = Conservative(options(0.1)).evaluate(&pair(1.0));
        assert!((cdpo.loss - (0.9 * 0.403_186_0 + 0.1 * 1.103_186_0)).abs() < 1e-6);
        let rdpo = Robust(options(0.1)).evaluate(&pair(1.0));
        assert!((rdpo.loss - (0.9 * 0.403_186_0 - 0.1 * 1.103_186_0) / 0.8).abs() < 1e-6);
    }

    #[test]
    fn robust_is_unbiased() {
        // Labels flipped with probability ε: the expectation of rDPO is DPO on the true label.
        let noise = 0.2;
        let robust = Robust(options(noise));
        let expected = (1.0 - noise) * robust.evaluate(&pair(1.0)).loss + noise * robust.evaluate(&pair(0.0)).loss;
        assert!((expected - Robust(options(0.0)).evaluate(&pair(1.0)).loss).abs() < 1e-12);
    }
}
