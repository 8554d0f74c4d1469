//! Options of the stages that sample and score: `rewards`, `best_of_n`, `ric_data`.

use super::Uses;
use super::shared::{Component, ModelRef, Sampling};
use crate::data::DataSpec;
use crate::options::{Checked, Options};
use crate::registry::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One reward: an objective, or only watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reward {
    /// The objective's name, as in the weight prefix and in metrics.
    pub name: String,
    pub source: Component,
    /// Scored and reported, but never trained on.
    #[serde(default)]
    pub watch: bool,
    /// `[low, high]`: the raw scores that become 0 and 1. Without it they are fitted.
    #[serde(default)]
    pub scale: Option<[f64; 2]>,
}

/// The rewards of an experiment, with scales fitted on the initial policy's samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewards {
    pub sources: Vec<Reward>,
    /// The policy whose samples the scales are fitted on.
    pub policy: ModelRef,
    pub prompts: DataSpec,
    /// Number of samples for the fit.
    #[serde(default = "fit_samples")]
    pub samples: usize,
    #[serde(default)]
    pub generate: Sampling,
}

fn fit_samples() -> usize {
    512
}

impl Options for Rewards {}

impl Uses for Rewards {
    fn components(&self) -> Vec<(Kind, &Component)> {
        self.sources.iter().map(|s| (Kind::Reward, &s.source)).collect()
    }

    fn models(&self) -> Vec<&ModelRef> {
        vec![&self.policy]
    }

    fn data(&self) -> Vec<&DataSpec> {
        vec![&self.prompts]
    }

    fn files(&self) -> Vec<&str> {
        let own = self.sources.iter().filter(|s| s.source.name == "reward_model");
        own.filter_map(|s| s.source.options.get("model")?.as_str()).collect()
    }
}

impl Rewards {
    /// Names of the objectives, in the order of the weights.
    pub fn objectives(&self) -> Vec<String> {
        self.sources.iter().filter(|s| !s.watch).map(|s| s.name.clone()).collect()
    }
}

/// Samples several completions of each plain prompt and keeps, for each of some drawn weights, the best by weighted score, as a
/// demonstration under the conditioned prompt: teaches a policy to read weights (as DPA and RiC do) before it is trained online.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BestOfN {
    pub policy: ModelRef,
    pub prompts: DataSpec,
    /// The id of a `rewards` stage.
    pub rewards: String,
    pub sampler: Component,
    pub conditioner: Component,
    /// Completions a prompt.
    #[serde(default = "eight")]
    pub completions: usize,
    /// Weight vectors a prompt.
    #[serde(default = "two")]
    pub weights: usize,
    #[serde(default)]
    pub generate: Sampling,
}

fn eight() -> usize {
    8
}

fn two() -> usize {
    2
}

impl Options for BestOfN {
    fn check(&self) -> Checked {
        if self.completions < 2 {
            return Err(("completions", format!("must be at least 2, not {}", self.completions)));
        }
        if self.weights == 0 {
            return Err(("weights", "must be at least 1".into()));
        }
        Ok(())
    }
}

impl Uses for BestOfN {
    fn components(&self) -> Vec<(Kind, &Component)> {
        vec![(Kind::Sampler, &self.sampler), (Kind::Conditioner, &self.conditioner)]
    }

    fn models(&self) -> Vec<&ModelRef> {
        vec![&self.policy]
    }

    fn stages(&self) -> Vec<&str> {
        vec![&self.rewards]
    }

    fn data(&self) -> Vec<&DataSpec> {
        vec![&self.prompts]
    }
}

/// Rewards-in-Context: answers of a policy, under the scores that they got. Without `goals`, the offline stage: answers to plain prompts, of
/// which all are kept, and the statistics of their scores. With `goals`, an online round: answers to prompts that ask for high
/// scores, of which the good ones are kept, beside good ones of earlier rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RicData {
    pub policy: ModelRef,
    pub prompts: DataSpec,
    /// The id of a `rewards` stage.
    pub rewards: String,
    /// Completions a prompt.
    #[serde(default = "one")]
    pub completions: usize,
    /// An online round: the id of the offline stage, whose statistics say what high is.
    #[serde(default)]
    pub goals: Option<String>,
    /// Ids of `ric_data` stages whose rows are kept too, filtered like the new ones.
    #[serde(default)]
    pub mix: Vec<String>,
    /// In an online round an answer is kept if any of its scores reaches this quantile of that score.
    #[serde(default = "quantile")]
    pub quantile: f64,
    #[serde(default)]
    pub generate: Sampling,
}

fn one() -> usize {
    1
}

fn quantile() -> f64 {
    0.7
}

impl Options for RicData {
    fn check(&self) -> Checked {
        if self.completions == 0 {
            return Err(("completions", "must be at least 1".into()));
        }
        if !(0.0..1.0).contains(&self.quantile) {
            return Err(("quantile", format!("must be from 0 to below 1, not {}", self.quantile)));
        }
        if self.goals.is_none() && !self.mix.is_empty() {
            return Err(("mix", "goes with an online round; give \"goals\" too".into()));
        }
        Ok(())
    }
}

impl Uses for RicData {
    fn models(&self) -> Vec<&ModelRef> {
        vec![&self.policy]
    }

    fn stages(&self) -> Vec<&str> {
        let others = self.goals.iter().chain(&self.mix).map(String::as_str);
        std::iter::once(self.rewards.as_str()).chain(others).collect()
    }

    fn data(&self) -> Vec<&DataSpec> {
        vec![&self.prompts]
    }
}
