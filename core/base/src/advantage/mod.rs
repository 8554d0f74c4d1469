//! Advantages of policy gradients, as functions of numbers: by how much each completion did better than was to be expected. They need no
//! tensors: the engine back-propagates `−Σ A·logp` with `A` taken from here.

mod grpo;
mod rloo;
mod value;

use crate::Result;
use crate::registry::Builtin;
use serde_json::Value;
use std::collections::BTreeMap;

/// The scored completions of one prompt, which share its weights.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Their weighted rewards.
    pub rewards: Vec<f64>,
    /// Their rewards minus the KL to the reference (nats times its coefficient): what training raises.
    pub returns: Vec<f64>,
    /// The policy's hidden state at the end of x'; empty where `reads_states` is false.
    pub state: Vec<f64>,
}

/// An advantage: a return minus what does not depend on the completion itself, so that policy gradients keep their direction and vary less.
pub trait Advantage: Send {
    /// Completions that a prompt needs; one with fewer scores is left out.
    fn least(&self) -> usize;

    /// Whether it is given states.
    fn reads_states(&self) -> bool {
        false
    }

    /// The advantage of each completion of a prompt. `batch` holds the rewards of all completions of the step.
    fn advantages(&self, answers: &Answers, batch: &[f64]) -> Result<Vec<f64>>;

    /// Learns from a step, after its advantages are taken. Returns metrics of its own, by name.
    fn learn(&mut self, _step: &[Answers]) -> BTreeMap<String, f64> {
        BTreeMap::new()
    }

    /// All that it has learnt, as a checkpoint keeps it; null for nothing.
    fn state(&self) -> Value {
        Value::Null
    }

    /// Puts a saved state back.
    fn restore(&mut self, _state: &Value) -> Result<()> {
        Ok(())
    }
}

/// What motrain ships; a new advantage is a file and a name here.
pub const BUILTINS: &[Builtin<dyn Advantage>] = &[value::BUILTIN, rloo::BUILTIN, grpo::BUILTIN];

#[cfg(test)]
fn of(name: &str, options: Value, rewards: &[f64], returns: &[f64]) -> Vec<f64> {
    let built = crate::Registry::builtin().advantages.build(name, &options).unwrap();
    let answers = Answers { rewards: rewards.to_vec(), returns: returns.to_vec(), state: vec![] };
    built.advantages(&answers, rewards).unwrap()
}
