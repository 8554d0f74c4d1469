//! Weight samplers.

use super::{Function, function, optional};
use crate::call::Instance;
use crate::room::Room;
use motrain_abi as abi;
use motrain_core::Weights;
use motrain_core::error::Result;
use motrain_core::rng::Rng;
use motrain_core::sampler::{FrontPoint, WeightSampler};
use rand::RngCore;

pub struct PluginSampler {
    instance: Instance,
    sample: Function<abi::SampleWeights>,
    feedback: abi::Feedback,
}

impl PluginSampler {
    pub fn new(instance: Instance) -> Result<Self> {
        let sample = function!(instance, abi::SamplerFns, sample);
        let feedback = optional!(instance, abi::SamplerFns, feedback);
        Ok(Self { instance, sample, feedback })
    }
}

impl WeightSampler for PluginSampler {
    fn sample(&self, objectives: usize, index: u64, rng: &mut Rng) -> Result<Weights> {
        let mut weights = Room::new(objectives);
        let seed = rng.next_u64();
        let out = weights.as_mut_ptr();
        // SAFETY: there is room for one weight per objective.
        self.instance.call_named("sample", |instance, error| unsafe {
            (self.sample)(instance, objectives, index, seed, out, error)
        })?;
        let weights = weights.take().map_err(|what| self.instance.failed(what))?;
        Weights::new(weights).map_err(|e| self.instance.failed(e.to_string()))
    }

    fn wants_feedback(&self) -> bool {
        self.feedback.is_some()
    }

    fn feedback(&self, front: &[FrontPoint]) -> Result<()> {
        let (Some(feedback), Some(first)) = (self.feedback, front.first()) else { return Ok(()) };
        let weights: Vec<f64> = front.iter().flat_map(|p| p.weights.values().to_vec()).collect();
        let rewards: Vec<f64> = front.iter().flat_map(|p| p.rewards.clone()).collect();
        let objectives = first.weights.len();
        // SAFETY: both arrays have `points × objectives` numbers.
        self.instance.call_named("feedback", |instance, error| unsafe {
            feedback(instance, objectives, front.len(), weights.as_ptr(), rewards.as_ptr(), error)
        })?;
        Ok(())
    }
}
