//! A value head: linear in the policy's hidden state at the end of x', fitted online by normalised least mean squares, so that its step size
//! does not depend on the size of the states. It is a control variate: whatever it says, policy gradients stay unbiased.

use super::{Advantage, Answers};
use crate::metrics::stats::{mean, std};
use crate::options::{Options, parse};
use crate::registry::{Builtin, schema};
use crate::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub const BUILTIN: Builtin<dyn Advantage> = Builtin {
    name: "value",
    summary: "against a value head, linear in the policy's state at the end of x'",
    schema: schema::<Fitted>(),
    build: |owner, options| {
        let Fitted { rate } = parse(owner, options)?;
        Ok(Box::new(ValueHead { rate, head: None }))
    },
};

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Fitted {
    /// The step size, as a share of what would fit a batch's mean error at once.
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    rate: f64,
}

impl Default for Fitted {
    fn default() -> Self {
        Self { rate: 0.5 }
    }
}

impl Options for Fitted {}

struct ValueHead {
    rate: f64,
    /// Nothing before the first step.
    head: Option<Head>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    weights: Vec<f64>,
    bias: f64,
}

impl Head {
    fn value(&self, state: &[f64]) -> f64 {
        self.bias + self.weights.iter().zip(state).map(|(w, s)| w * s).sum::<f64>()
    }

    /// One step on the mean squared error of `(state, return)`.
    fn fit(&mut self, all: &[(&[f64], f64)], rate: f64) {
        let errors: Vec<f64> = all.iter().map(|(s, r)| r - self.value(s)).collect();
        let power: f64 = all.iter().flat_map(|(s, _)| *s).map(|x| x * x).sum::<f64>() + all.len() as f64;
        for ((state, _), error) in all.iter().zip(&errors) {
            self.bias += rate * error / power;
            for (w, x) in self.weights.iter_mut().zip(*state) {
                *w += rate * error * x / power;
            }
        }
    }

    /// What it made of a step before that taught it anything.
    fn told(&self, all: &[(&[f64], f64)]) -> BTreeMap<String, f64> {
        let (returns, errors): (Vec<f64>, Vec<f64>) = all.iter().map(|(s, r)| (*r, r - self.value(s))).unzip();
        let squares: Vec<f64> = errors.iter().map(|e| e * e).collect();
        let mut metrics = BTreeMap::from([("value/loss".into(), mean(&squares))]);
        let spread = std(&returns).powi(2);
        if spread > 1e-9 {
            metrics.insert("value/explained_variance".into(), 1.0 - std(&errors).powi(2) / spread);
        }
        metrics
    }
}

impl Advantage for ValueHead {
    fn least(&self) -> usize {
        1
    }

    fn reads_states(&self) -> bool {
        true
    }

    /// Before the head's first step, against the mean reward of the batch's other completions, so that this step has a baseline too.
    fn advantages(&self, answers: &Answers, batch: &[f64]) -> Result<Vec<f64>> {
        let others = batch.len().saturating_sub(1);
        let expected = |reward: f64| match &self.head {
            Some(head) => head.value(&answers.state),
            None if others == 0 => 0.0,
            None => (batch.iter().sum::<f64>() - reward) / others as f64,
        };
        Ok(answers.returns.iter().zip(&answers.rewards).map(|(r, reward)| r - expected(*reward)).collect())
    }

    fn learn(&mut self, step: &[Answers]) -> BTreeMap<String, f64> {
        let all: Vec<(&[f64], f64)> =
            step.iter().flat_map(|a| a.returns.iter().map(|r| (a.state.as_slice(), *r))).collect();
        let Some((first, _)) = all.first() else { return BTreeMap::new() };
        let metrics = self.head.as_ref().map(|head| head.told(&all)).unwrap_or_default();
        let begin = || Head {
            weights: vec![0.0; first.len()],
            bias: all.iter().map(|(_, r)| r).sum::<f64>() / all.len() as f64,
        };
        self.head.get_or_insert_with(begin).fit(&all, self.rate);
        metrics
    }

    fn state(&self) -> Value {
        json!(self.head)
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        self.head = Option::deserialize(state)
            .map_err(|e| Error::Invalid(format!("the checkpoint holds no value head, but {state} ({e})")))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;

    fn built(rate: f64) -> Box<dyn Advantage> {
        Registry::builtin().advantages.build("value", &json!({ "rate": rate })).unwrap()
    }

    fn answers(state: Vec<f64>, worth: f64) -> Answers {
        Answers { rewards: vec![worth], returns: vec![worth], state }
    }

    /// What the head expects of a state.
    fn expected(head: &dyn Advantage, state: &[f64]) -> f64 {
        -head.advantages(&answers(state.to_vec(), 0.0), &[]).unwrap()[0]
    }

    fn step() -> Vec<Answers> {
        let states = (0..32).map(|i| vec![f64::from(i % 4), f64::from(i % 3) - 1.0]);
        states.map(|s| answers(s.clone(), 0.3 * s[0] - 0.2 * s[1] + 1.0)).collect()
    }

    #[test]
    fn it_learns_what_is_linear() {
        let mut head = built(1.0);
        for _ in 0..2000 {
            head.learn(&step());
        }
        assert!((expected(head.as_ref(), &[2.0, 1.0]) - 1.4).abs() < 1e-3);
        assert!(head.learn(&step())["value/explained_variance"] > 0.999);
    }

    /// As a checkpoint writes it, with digits that no short decimal has.
    #[test]
    fn its_state_comes_back_bit_by_bit() {
        let mut head = built(0.7);
        assert_eq!(head.state(), Value::Null);
        (0..5).for_each(|_| drop(head.learn(&step())));
        let mut again = built(0.7);
        again.restore(&serde_json::from_str(&head.state().to_string()).unwrap()).unwrap();
        (0..5).for_each(|_| assert_eq!(head.learn(&step()), again.learn(&step())));
        let at = |head: &dyn Advantage| expected(head, &[0.1, 0.7]).to_bits();
        assert_eq!(at(head.as_ref()), at(again.as_ref()));
        let refused = again.restore(&json!({ "weights": [1.0] })).unwrap_err().to_string();
        assert_eq!(refused, "the checkpoint holds no value head, but {\"weights\":[1.0]} (missing field `bias`)");
    }
}
