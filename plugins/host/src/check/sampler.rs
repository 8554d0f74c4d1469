//! Weight samplers.

use super::{SEED, Trials, same};
use motrain_core::Weights;
use motrain_core::rng::rng;
use motrain_core::sampler::{FrontPoint, WeightSampler};

fn draws(sampler: &dyn WeightSampler, objectives: usize) -> Result<Vec<Vec<f64>>, String> {
    (0..200)
        .map(|i| {
            Ok(sampler.sample(objectives, i, &mut rng(SEED, "check", i)).map_err(|e| e.to_string())?.values().to_vec())
        })
        .collect()
}

pub fn sampler(t: &mut Trials, sampler: &dyn WeightSampler, again: &dyn WeightSampler) {
    for (what, k) in [("two objectives", 2), ("three objectives", 3), ("five objectives", 5)] {
        t.run(what, || draws(sampler, k).map(|_| "200 draws on the simplex".into()));
    }
    t.run("repeatable", || draws(sampler, 2).and_then(|a| draws(again, 2).and_then(|b| same(a, b))));
    if sampler.wants_feedback() {
        let front: Vec<FrontPoint> = Weights::grid(2, 4)
            .into_iter()
            .map(|weights| FrontPoint { rewards: weights.values().iter().map(|w| w * w).collect(), weights })
            .collect();
        let told = |s: &dyn WeightSampler| s.feedback(&front).map_err(|e| e.to_string());
        t.run("after feedback", || {
            told(sampler).and_then(|()| told(again))?;
            same(draws(sampler, 2)?, draws(again, 2)?)
        });
    }
}
