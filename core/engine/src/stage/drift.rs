//! A guard against drift of the reward models: what it costs a policy that second opinions on an objective disagree about its own answers.

use super::rewards::Rewards;
use crate::reward::Ensemble;
use crate::stage::Stage;
use crate::train::log::Metrics;
use motrain_core::metrics::stats::mean;
use motrain_core::options::Checked;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Steps whose mean is held against a limit.
const WINDOW: usize = 10;

/// What disagreement about an objective's score costs; `of` of a reward in `rewards` makes it a second opinion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Drift {
    /// λ of uncertainty-weighted optimisation: an objective with second opinions is trained on as the mean of their scaled scores and its own, less λ
    /// times their variance. 0 trains on the objective's own score.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub penalty: f64,
    /// Stop when the standard deviation of those scores (mean over the completions of the last 10 steps) is above this for an objective; 0 never stops.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub stop: f64,
}

impl Drift {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// There must be second opinions among the rewards of the stage called `rewards`.
    pub fn check_among(&self, rewards: &str, earlier: &[Stage]) -> Checked {
        let rewards = earlier.iter().find(|s| s.id == rewards).and_then(|s| s.work.downcast_ref::<Rewards>());
        match rewards.filter(|_| !self.is_none()) {
            Some(rewards) if rewards.doubted().is_empty() => {
                let objective = rewards.objectives().into_iter().next().unwrap_or_default();
                let what = format!(
                    "is about second opinions, and no reward is one; add some, such as reward(\"{objective} 2\", …, #{{ of: \"{objective}\" }}), or \
                     leave it out"
                );
                Err(("drift", what))
            }
            _ => Ok(()),
        }
    }

    /// Takes up a step's disagreement about some objectives. What it says of the first that is above `stop`.
    pub fn above<'a>(
        &self,
        objectives: impl Iterator<Item = &'a String>,
        metrics: &Metrics,
        seen: &mut BTreeMap<String, Vec<f64>>,
    ) -> Option<String> {
        let mut said = None;
        for objective in objectives.filter(|_| self.stop > 0.0) {
            let Some(value) = metrics.get(&Ensemble::metric(objective)) else { continue };
            let recent =
                recent(seen.entry(objective.clone()).or_default(), *value).filter(|recent| *recent > self.stop);
            said = said.or(recent.map(|recent| self.words(objective, recent)));
        }
        said
    }

    fn words(&self, objective: &str, recent: f64) -> String {
        format!(
            "the rewards of \"{objective}\" disagree by {recent:.3} on the policy's answers (mean of {WINDOW} steps), above drift.stop = {}: what its own reward \
             still says is in doubt. The policy is kept as it is; for one that avoids what is in doubt set drift.penalty, lower the learning rate, or train \
             the rewards on such answers",
            self.stop
        )
    }
}

/// Takes up a step's number. The mean of the last ones, once there are enough.
pub fn recent(last: &mut Vec<f64>, value: f64) -> Option<f64> {
    last.push(value);
    let excess = last.len().saturating_sub(WINDOW);
    last.drain(..excess);
    (last.len() == WINDOW).then(|| mean(last))
}
