//! Advantages for policy gradients: how much better than expected a completion did.

/// Leave-one-out baseline (RLOO, Ahmadian et al. 2024): `Aᵢ = Rᵢ − mean of the others`. The rewards are of completions of one prompt under
/// the same weights; at least two. The advantages sum to 0.
pub fn leave_one_out(rewards: &[f64]) -> Vec<f64> {
    let n = rewards.len() as f64;
    let total: f64 = rewards.iter().sum();
    rewards.iter().map(|r| r - (total - r) / (n - 1.0)).collect()
}

/// A value head: linear in a policy's hidden state, fitted online by normalised least mean squares, so that its step size does not
/// depend on the size of the states. It is a control variate: whatever it says, policy gradients stay unbiased.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ValueHead {
    weights: Vec<f64>,
    bias: f64,
}

impl ValueHead {
    pub fn is_fitted(&self) -> bool {
        !self.weights.is_empty()
    }

    pub fn value(&self, state: &[f64]) -> f64 {
        self.bias + self.weights.iter().zip(state).map(|(w, s)| w * s).sum::<f64>()
    }

    /// One step on the mean squared error over a batch; the first batch also sets the bias to its mean.
    pub fn fit(&mut self, states: &[Vec<f64>], returns: &[f64], rate: f64) {
        let Some(width) = states.first().map(Vec::len) else { return };
        if self.weights.is_empty() {
            self.weights = vec![0.0; width];
            self.bias = returns.iter().sum::<f64>() / returns.len() as f64;
        }
        let errors: Vec<f64> = states.iter().zip(returns).map(|(s, r)| r - self.value(s)).collect();
        let power: f64 = states.iter().flatten().map(|x| x * x).sum::<f64>() + states.len() as f64;
        for (state, error) in states.iter().zip(&errors) {
            self.bias += rate * error / power;
            for (w, x) in self.weights.iter_mut().zip(state) {
                *w += rate * error * x / power;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;
    use crate::loss::PairBatch;

    #[test]
    fn golden_leave_one_out() {
        let advantages = leave_one_out(&[0.9, 0.4, 0.1, 0.6]);
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
        };
        let dpo = Registry::builtin().losses.build("dpo", &serde_json::json!({ "beta": 0.1 })).unwrap();
        let dpo = dpo.evaluate(&pair).unwrap();
        // The loss is −A·logp, so its derivatives by the two log-probs are −A.
        let rloo: Vec<f64> = leave_one_out(&[0.9, 0.5]).iter().map(|a| -a).collect();
        let (a, b) = ((dpo.d_first[0], dpo.d_second[0]), (rloo[0], rloo[1]));
        assert!((a.0 * b.1 - a.1 * b.0).abs() < 1e-12 && a.0 * b.0 > 0.0, "{a:?} and {b:?} are not parallel");
    }

    #[test]
    fn the_value_head_learns_what_is_linear() {
        let states: Vec<Vec<f64>> = (0..32).map(|i| vec![f64::from(i % 4), f64::from(i % 3) - 1.0]).collect();
        let returns: Vec<f64> = states.iter().map(|s| 0.3 * s[0] - 0.2 * s[1] + 1.0).collect();
        let mut head = ValueHead::default();
        for _ in 0..2000 {
            head.fit(&states, &returns, 1.0);
        }
        assert!((head.value(&[2.0, 1.0]) - 1.4).abs() < 1e-3, "{head:?}");
    }
}
