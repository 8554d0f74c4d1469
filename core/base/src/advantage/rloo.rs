//! Leave-one-out (RLOO, Ahmadian et al. 2024): `Aᵢ = Rᵢ − mean of the others`. The advantages of a prompt sum to 0.

use super::{Advantage, Answers};
use crate::Result;
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn Advantage> = Builtin {
    name: "rloo",
    summary: "against the mean of the prompt's other completions (leave-one-out)",
    schema: schema::<Rloo>(),
    build: |owner, options| Ok(Box::new(parse::<Rloo>(owner, options)?)),
};

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Rloo {}

impl Options for Rloo {}

impl Advantage for Rloo {
    fn least(&self) -> usize {
        2
    }

    fn advantages(&self, answers: &Answers, _batch: &[f64]) -> Result<Vec<f64>> {
        let n = answers.returns.len() as f64;
        let total: f64 = answers.returns.iter().sum();
        Ok(answers.returns.iter().map(|r| r - (total - r) / (n - 1.0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::of;
    use crate::Registry;
    use crate::loss::PairBatch;
    use serde_json::{Value, json};

    fn rloo(returns: &[f64]) -> Vec<f64> {
        of("rloo", Value::Null, returns, returns)
    }

    #[test]
    fn golden_leave_one_out() {
        let advantages = rloo(&[0.9, 0.4, 0.1, 0.6]);
        for (a, golden) in advantages.iter().zip([0.533_333, -0.133_333, -0.533_333, 0.133_333]) {
            assert!((a - golden).abs() < 1e-6, "{advantages:?}");
        }
        assert!(advantages.iter().sum::<f64>().abs() < 1e-12);
    }

    #[test]
    fn two_completions_move_the_policy_along_online_dpos_direction() {
        let pair = PairBatch {
            policy_first: vec![-40.0],
            policy_second: vec![-55.0],
            reference_first: vec![-42.0],
            reference_second: vec![-50.0],
            tokens_first: vec![10],
            tokens_second: vec![12],
            label: vec![1.0],
            weights: vec![0.5, 0.5],
            margins: vec![0.3, 0.1],
            other: None,
        };
        let dpo = Registry::builtin().losses.build("dpo", &json!({ "beta": 0.1 })).unwrap();
        let dpo = dpo.evaluate(&pair).unwrap();
        // The loss is −A·logp, so its derivatives by the two log-probs are −A.
        let rloo: Vec<f64> = rloo(&[0.9, 0.5]).iter().map(|a| -a).collect();
        let (a, b) = ((dpo.d_first[0], dpo.d_second[0]), (rloo[0], rloo[1]));
        assert!((a.0 * b.1 - a.1 * b.0).abs() < 1e-12 && a.0 * b.0 > 0.0, "{a:?} and {b:?} are not parallel");
    }
}
