//! MODPO (Zhou et al. 2023): DPO on the pairs of one objective k, with a margin for what the others think of them:
//! `−p·log σ(z) − (1−p)·log σ(−z)` with `z = (β(Δ₊ − Δ₋) − wᵀδ) / w_k`, where δ are the score differences of the other objectives.

use super::{PairBatch, PairLoss, PairwiseLoss, neg_log_sigmoid, sigmoid};
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Error, Result, Weights};
use schemars::JsonSchema;
use serde::Deserialize;

pub const BUILTIN: Builtin<dyn PairwiseLoss> = Builtin {
    name: "modpo",
    summary: "DPO on one objective's pairs, with the other objectives' scores as margin",
    schema: schema::<Modpo>(),
    build: |owner, options| Ok(Box::new(parse::<Modpo>(owner, options)?)),
};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Modpo {
    /// The KL coefficient; that of the log-ratio is this over the objective's weight.
    #[schemars(range(min = 1e-6, max = 1000))]
    beta: f64,
    /// The objective that the pairs are labelled by, counted from 0.
    #[schemars(range(max = 31))]
    objective: usize,
    /// What scaled score differences are multiplied by: margins are to be on the scale of β times a log-ratio.
    #[schemars(range(min = 0, max = 1e6))]
    margin_scale: f64,
}

impl Default for Modpo {
    fn default() -> Self {
        Self { beta: 0.1, objective: 0, margin_scale: 1.0 }
    }
}

impl Options for Modpo {}

impl Modpo {
    /// The weight of the pairs' own objective, which is divided by.
    fn own_weight(&self, weights: &[f64]) -> std::result::Result<f64, String> {
        let k = self.objective;
        match weights.get(k) {
            Some(own) if *own > 0.0 => Ok(*own),
            Some(_) => Err(format!(
                "modpo divides by the weight of the objective that its pairs are labelled by (objective {k}), and the weights {weights:?} \
                 have 0 there; use the pairs of an objective whose weight is not 0, or other weights"
            )),
            None => Err(format!("modpo: objective = {k}, and there are {} objectives, counted from 0", weights.len())),
        }
    }
}

impl PairwiseLoss for Modpo {
    fn evaluate(&self, pairs: &PairBatch) -> Result<PairLoss> {
        let mut out = PairLoss::default();
        let objectives = pairs.weights.len() / pairs.len().max(1);
        for (i, p) in pairs.label.iter().enumerate() {
            let row = i * objectives..(i + 1) * objectives;
            let (weights, margins) = (&pairs.weights[row.clone()], &pairs.margins[row]);
            let own = self.own_weight(weights).map_err(Error::Invalid)?;
            let others = (0..objectives).filter(|k| *k != self.objective).map(|k| weights[k] * margins[k]).sum::<f64>();
            let z = (self.beta * pairs.log_ratio_gap(i) - self.margin_scale * others) / own;
            let d = self.beta / own * (sigmoid(z) - p);
            out.loss.push(p * neg_log_sigmoid(z) + (1.0 - p) * neg_log_sigmoid(-z));
            out.d_first.push(d);
            out.d_second.push(-d);
        }
        Ok(out)
    }

    fn beta(&self) -> f64 {
        self.beta
    }

    fn is_of_one_objective(&self) -> bool {
        true
    }

    fn check_weights(&self, weights: &Weights) -> std::result::Result<(), String> {
        self.own_weight(weights.values()).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;
    use serde_json::json;

    fn pair(weights: [f64; 2], margins: [f64; 2]) -> PairBatch {
        PairBatch {
            policy_first: vec![-40.0],
            reference_first: vec![-42.0],
            policy_second: vec![-55.0],
            reference_second: vec![-50.0],
            tokens_first: vec![10],
            tokens_second: vec![12],
            label: vec![1.0],
            weights: weights.to_vec(),
            margins: margins.to_vec(),
            other: None,
        }
    }

    fn loss(name: &str, options: serde_json::Value, pair: &PairBatch) -> Result<PairLoss> {
        Registry::builtin().losses.build(name, &options).unwrap().evaluate(pair)
    }

    /// β = 0.1, Δ₊ = 2, Δ₋ = −5, scores 0.3 and 0.8 of the other objective: z = (0.7 + 0.25) / 0.5.
    #[test]
    fn golden_values() {
        let found = loss("modpo", json!({}), &pair([0.5, 0.5], [9.0, 0.3 - 0.8])).unwrap();
        assert!((found.loss[0] - (1.0 + (-1.9f64).exp()).ln()).abs() < 1e-12);
        assert!((found.loss[0] - 0.139_386_8).abs() < 1e-7);
        // The own objective's scores say nothing that the label does not.
        assert_eq!(found, loss("modpo", json!({}), &pair([0.5, 0.5], [-9.0, 0.3 - 0.8])).unwrap());
        let second = loss("modpo", json!({ "objective": 1 }), &pair([0.5, 0.5], [0.3 - 0.8, 9.0])).unwrap();
        assert_eq!(found, second);
        let twice = loss("modpo", json!({ "margin_scale": 2.0 }), &pair([0.5, 0.5], [0.0, 0.3 - 0.8])).unwrap();
        assert!((twice.loss[0] - (1.0 + (-2.4f64).exp()).ln()).abs() < 1e-12);
    }

    #[test]
    fn with_all_weight_on_its_objective_it_is_dpo() {
        let pair = pair([1.0, 0.0], [0.2, -0.7]);
        for beta in [0.01, 0.1, 1.0] {
            let (modpo, dpo) =
                (loss("modpo", json!({ "beta": beta }), &pair), loss("dpo", json!({ "beta": beta }), &pair));
            assert_eq!(modpo.unwrap(), dpo.unwrap());
        }
    }

    #[test]
    fn a_weight_of_zero_is_refused_with_the_mend() {
        let said = loss("modpo", json!({}), &pair([0.0, 1.0], [0.0, 0.0])).unwrap_err().to_string();
        assert_eq!(
            said,
            "modpo divides by the weight of the objective that its pairs are labelled by (objective 0), and the weights [0.0, 1.0] have 0 \
             there; use the pairs of an objective whose weight is not 0, or other weights"
        );
        let beyond = loss("modpo", json!({ "objective": 2 }), &pair([0.5, 0.5], [0.0, 0.0])).unwrap_err().to_string();
        assert_eq!(beyond, "modpo: objective = 2, and there are 2 objectives, counted from 0");
    }
}
