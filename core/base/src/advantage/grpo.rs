//! Group-relative advantages (GRPO, Shao et al. 2024): a prompt's rewards minus their mean, divided by their standard deviation; without the
//! division Dr. GRPO's (Liu et al. 2025). GRPO has its KL in the loss. Here it is part of the return, as for the other advantages: it is
//! centred too and never divided, for where rewards hardly differ their deviation would blow it up.

use super::{Advantage, Answers};
use crate::Result;
use crate::metrics::stats::mean;
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn Advantage> = Builtin {
    name: "grpo",
    summary: "against the mean of the prompt's completions, in units of their standard deviation (GRPO)",
    schema: schema::<Grpo>(),
    build: |owner, options| Ok(Box::new(parse::<Grpo>(owner, options)?)),
};

/// Keeps the division finite, as TRL has it.
const EPSILON: f64 = 1e-4;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Grpo {
    /// Divide by the standard deviation: prompts on which rewards hardly differ then count as much as others. Without, Dr. GRPO.
    scale: bool,
}

impl Default for Grpo {
    fn default() -> Self {
        Self { scale: true }
    }
}

impl Options for Grpo {}

impl Advantage for Grpo {
    fn least(&self) -> usize {
        2
    }

    fn advantages(&self, answers: &Answers, _batch: &[f64]) -> Result<Vec<f64>> {
        let Answers { rewards, returns, .. } = answers;
        let penalties: Vec<f64> = returns.iter().zip(rewards).map(|(all, reward)| all - reward).collect();
        let (reward, penalty) = (mean(rewards), mean(&penalties));
        let divisor = if self.scale { deviation(rewards, reward) + EPSILON } else { 1.0 };
        Ok(rewards.iter().zip(&penalties).map(|(r, p)| (r - reward) / divisor + (p - penalty)).collect())
    }
}

/// The sample's standard deviation (n − 1).
fn deviation(values: &[f64], mean: f64) -> f64 {
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::of;
    use serde_json::json;

    fn near(found: &[f64], golden: &[f64]) {
        let apart = found.iter().zip(golden).map(|(f, g)| (f - g).abs()).fold(0.0, f64::max);
        assert!(apart < 1e-6 && found.len() == golden.len(), "{found:?} is not {golden:?}");
    }

    /// `(r - r.mean()) / (r.std() + 1e-4)` of tests/goldens/advantages.py (torch's `std` has n − 1).
    #[test]
    fn golden_group_advantages() {
        let rewards = [0.9, 0.4, 0.1, 0.6];
        near(&of("grpo", json!({}), &rewards, &rewards), &GOLDEN);
        near(&of("grpo", json!({ "scale": false }), &rewards, &rewards), &[0.4, -0.1, -0.4, 0.1]);
    }

    const GOLDEN: [f64; 4] = [1.187_824, -0.296_956, -1.187_824, 0.296_956];

    #[test]
    fn what_the_rewards_do_not_tell_apart_only_the_kl_moves() {
        for scale in [true, false] {
            let found = of("grpo", json!({ "scale": scale }), &[0.5, 0.5], &[0.5 - 0.01, 0.5 - 0.03]);
            near(&found, &[0.01, -0.01]);
        }
    }
}
