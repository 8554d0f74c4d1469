//! Options of the stages that sample and score: `rewards`, `best_of_n`, `ric_data`.

use super::shared::{Component, ModelRef, Sampling};
use super::{Makes, Uses};
use crate::data::DataSpec;
use crate::options::{Checked, Options};
use crate::registry::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One reward: an objective, or only watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reward {
    /// The objective's name, as in the weight prefix and in metrics.
    #[schemars(length(min = 1, max = 200), extend("format" = "name"))]
    pub name: String,
    pub source: Component,
    /// Scored and reported, but never trained on.
    #[serde(default)]
    pub watch: bool,
    /// `[low, high]`: the raw scores that become 0 and 1. Without it they are fitted.
    #[serde(default)]
    #[schemars(inner(range(min = -1e9, max = 1e9)))]
    pub scale: Option<[f64; 2]>,
}

/// The rewards of an experiment, with scales fitted on the initial policy's samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewards {
    #[schemars(length(min = 1, max = 32))]
    pub sources: Vec<Reward>,
    /// The policy whose samples the scales are fitted on.
    pub policy: ModelRef,
    pub prompts: DataSpec,
    /// Number of samples for the fit.
    #[serde(default = "fit_samples")]
    #[schemars(range(min = 2, max = 10_000_000))]
    pub samples: usize,
    #[serde(default)]
    pub generate: Sampling,
}

fn fit_samples() -> usize {
    512
}

impl Options for Rewards {
    fn check(&self) -> Checked {
        if self.objectives().is_empty() {
            return Err(("sources", "must hold an objective, not only watched rewards".into()));
        }
        for (i, Reward { name, scale, .. }) in self.sources.iter().enumerate() {
            if self.sources[..i].iter().any(|s| s.name == *name) {
                return Err(("sources", format!("hold two rewards called \"{name}\"; rename one")));
            }
            if let Some([low, high]) = scale.filter(|[low, high]| high - low < 1e-9) {
                return Err((
                    "sources",
                    format!("give \"{name}\" the scale [{low}, {high}]; the first must be below the second"),
                ));
            }
        }
        Ok(())
    }
}

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

    fn paths_mut(&mut self) -> Vec<&mut String> {
        let own = self.sources.iter_mut().filter(|s| s.source.name == "reward_model");
        let models = own.filter_map(|s| match s.source.options.get_mut("model") {
            Some(Value::String(path)) => Some(path),
            _ => None,
        });
        self.policy.path_mut().into_iter().chain(&mut self.prompts.paths).chain(models).collect()
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
    #[schemars(length(min = 1, max = 100))]
    pub rewards: String,
    pub sampler: Component,
    pub conditioner: Component,
    /// Completions a prompt.
    #[serde(default = "eight")]
    #[schemars(range(min = 2, max = 10_000))]
    pub completions: usize,
    /// Weight vectors a prompt.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 10_000))]
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

impl Options for BestOfN {}

impl Uses for BestOfN {
    fn components(&self) -> Vec<(Kind, &Component)> {
        vec![(Kind::Sampler, &self.sampler), (Kind::Conditioner, &self.conditioner)]
    }

    fn models(&self) -> Vec<&ModelRef> {
        vec![&self.policy]
    }

    fn stages(&self) -> Vec<(Makes, &str)> {
        vec![(Makes::Rewards, &self.rewards)]
    }

    fn data(&self) -> Vec<&DataSpec> {
        vec![&self.prompts]
    }

    fn paths_mut(&mut self) -> Vec<&mut String> {
        self.policy.path_mut().into_iter().chain(&mut self.prompts.paths).collect()
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
    #[schemars(length(min = 1, max = 100))]
    pub rewards: String,
    /// Completions a prompt.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10_000))]
    pub completions: usize,
    /// An online round: the id of the offline stage, whose statistics say what high is.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100))]
    pub goals: Option<String>,
    /// Ids of `ric_data` stages whose rows are kept too, filtered like the new ones.
    #[serde(default)]
    #[schemars(length(max = 1000), inner(length(min = 1, max = 100)))]
    pub mix: Vec<String>,
    /// In an online round an answer is kept if any of its scores reaches this quantile of that score.
    #[serde(default = "quantile")]
    #[schemars(range(min = 0), extend("exclusiveMaximum" = 1))]
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

    fn stages(&self) -> Vec<(Makes, &str)> {
        let goals = self.goals.iter().map(|id| (Makes::Statistics, id.as_str()));
        let mix = self.mix.iter().map(|id| (Makes::ScoredSamples, id.as_str()));
        std::iter::once((Makes::Rewards, self.rewards.as_str())).chain(goals).chain(mix).collect()
    }

    fn data(&self) -> Vec<&DataSpec> {
        vec![&self.prompts]
    }

    fn paths_mut(&mut self) -> Vec<&mut String> {
        self.policy.path_mut().into_iter().chain(&mut self.prompts.paths).collect()
    }
}
