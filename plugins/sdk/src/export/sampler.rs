//! Weight samplers.

use super::{Error, component, this};
use crate::call::{array, guarded, write};
use crate::{FrontPoint, Sampler};
use motrain_abi as abi;
use std::ffi::c_void;

pub fn samplers<S: Sampler>() -> abi::Component {
    unsafe extern "C" fn sample<S: Sampler>(
        instance: *mut c_void,
        objectives: usize,
        index: u64,
        seed: u64,
        weights: *mut f64,
        error: Error,
    ) -> abi::Status {
        // SAFETY: motrain passes room for `objectives` weights.
        unsafe {
            guarded(error, || {
                let made = this::<S>(instance).sample(objectives, index, seed)?;
                if made.len() != objectives {
                    return Err(format!("gave {} weights for {objectives} objectives", made.len()));
                }
                write(weights, &made);
                Ok(abi::STATUS_OK)
            })
        }
    }
    unsafe extern "C" fn feedback<S: Sampler>(
        instance: *mut c_void,
        objectives: usize,
        points: usize,
        weights: *const f64,
        rewards: *const f64,
        error: Error,
    ) -> abi::Status {
        // SAFETY: motrain passes `points × objectives` numbers twice.
        unsafe {
            guarded(error, || {
                let weights = array(weights, points * objectives).chunks(objectives.max(1));
                let rewards = array(rewards, points * objectives).chunks(objectives.max(1));
                let front: Vec<FrontPoint> = weights
                    .zip(rewards)
                    .map(|(w, r)| FrontPoint { weights: w.to_vec(), rewards: r.to_vec() })
                    .collect();
                this::<S>(instance).feedback(&front)?;
                Ok(abi::STATUS_OK)
            })
        }
    }
    let functions = abi::SamplerFns {
        struct_size: size_of::<abi::SamplerFns>(),
        sample: Some(sample::<S>),
        feedback: S::WANTS_FEEDBACK.then_some(feedback::<S>),
    };
    component::<S, _>(abi::KIND_SAMPLER, 0, functions)
}
