//! Options of the stages that train on what the current policy answers: `online_preference`, `reinforce`.

use super::shared::{Component, ModelRef, Optimizer, Sampling, Training};
use super::{Makes, Uses};
use crate::data::DataSpec;
use crate::options::{Checked, Options};
use crate::registry::Kind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What all online methods have: a policy that answers prompts under sampled weights, is scored, and moves away from a frozen copy of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Online {
    pub policy: ModelRef,
    pub prompts: DataSpec,
    /// The id of a `rewards` stage.
    #[schemars(length(min = 1, max = 100))]
    pub rewards: String,
    pub sampler: Component,
    pub conditioner: Component,
    /// Completions per prompt, all under the same weights.
    #[serde(default = "two")]
    #[schemars(range(min = 1, max = 10_000))]
    pub completions: usize,
    /// One weight vector for a whole batch instead of one per prompt.
    #[serde(default)]
    pub one_weight_per_batch: bool,
    /// What a completion that was cut at `max_new_tokens` loses of each scaled score, and so of their weighted sum, before it is trained on
    /// (TRL's `missing_eos_penalty`); 0 takes nothing.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub missing_eos_penalty: f64,
    /// Stop when the KL (nats per completion, over all that were drawn in the last 10 steps) is above this; 0 never stops.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub max_kl: f64,
    /// Steps between evaluations that a weight sampler with feedback is told of; 0 never.
    #[serde(default = "feedback_every")]
    #[schemars(range(max = 1_000_000_000))]
    pub feedback_every: usize,
    /// Training prompts of such an evaluation.
    #[serde(default = "feedback_prompts")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub feedback_prompts: usize,
    /// Whether the reference sees x' (the default) or the plain prompt.
    #[serde(default = "yes")]
    pub reference_sees_weights: bool,
    /// How completions are drawn. Log-probs follow the temperature; `top_k` and `top_p` must keep all.
    #[serde(default)]
    pub generate: Sampling,
    #[serde(default)]
    pub train: Training,
    #[serde(default)]
    pub optimizer: Optimizer,
}

impl Online {
    fn check(&self) -> Checked {
        let Sampling { temperature, top_k, top_p, .. } = self.generate;
        if temperature == 0.0 {
            let what = "has temperature = 0, which draws always the same completion; training needs one above 0";
            return Err(("generate", what.into()));
        }
        if top_k > 0 || top_p < 1.0 {
            let what = format!(
                "cuts away unlikely tokens (top_k = {top_k}, top_p = {top_p}), but the log-probs that training moves are of all tokens; \
                 set top_k = 0 and top_p = 1, and cut where the policy is evaluated (evaluation_generate of a task)"
            );
            return Err(("generate", what));
        }
        Ok(())
    }
}

fn feedback_every() -> usize {
    25
}

fn feedback_prompts() -> usize {
    16
}

fn two() -> usize {
    2
}

fn yes() -> bool {
    true
}

impl Uses for Online {
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

/// MO-ODPO (paper Algorithm 1) and its relatives: online pairs under sampled weights. Of more than two completions, the pair that the label
/// rule is surest of is trained on: the best against the worst where its labels are hard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OnlinePreference {
    #[serde(flatten)]
    pub online: Online,
    pub label: Component,
    pub loss: Component,
}

impl Options for OnlinePreference {
    fn check(&self) -> Checked {
        if self.online.completions < 2 {
            return Err(("completions", format!("must be at least 2, not {}", self.online.completions)));
        }
        self.online.check()
    }
}

impl Uses for OnlinePreference {
    fn components(&self) -> Vec<(Kind, &Component)> {
        [self.online.components(), vec![(Kind::Label, &self.label), (Kind::Loss, &self.loss)]].concat()
    }

    fn models(&self) -> Vec<&ModelRef> {
        self.online.models()
    }

    fn stages(&self) -> Vec<(Makes, &str)> {
        self.online.stages()
    }

    fn data(&self) -> Vec<&DataSpec> {
        self.online.data()
    }

    fn paths_mut(&mut self) -> Vec<&mut String> {
        self.online.paths_mut()
    }
}

/// REINFORCE on the weighted sum of rewards minus a KL penalty: P-MORL with sampled weights in the prompt, MORLHF and specialists with
/// fixed weights and no conditioner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reinforce {
    #[serde(flatten)]
    pub online: Online,
    /// The control variate: "value" is a linear head on the policy's state at the end of x'; "rloo" the mean of a prompt's other
    /// completions.
    #[serde(default)]
    pub baseline: Baseline,
    /// Step size of the value head, as a share of what would fit a batch's mean error at once.
    #[serde(default = "value_rate")]
    #[schemars(range(max = 1), extend("exclusiveMinimum" = 0))]
    pub value_rate: f64,
    /// Weight of the KL to the initial policy (nats, summed over a completion) in the reward: what β is to `online_preference`.
    #[serde(default = "kl")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub kl: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Baseline {
    #[default]
    Value,
    Rloo,
}

fn value_rate() -> f64 {
    0.5
}

fn kl() -> f64 {
    0.01
}

impl Options for Reinforce {
    fn check(&self) -> Checked {
        let least = if self.baseline == Baseline::Rloo { 2 } else { 1 };
        if self.online.completions < least {
            return Err(("completions", format!("must be at least {least}, not {}", self.online.completions)));
        }
        self.online.check()
    }
}

impl Uses for Reinforce {
    fn components(&self) -> Vec<(Kind, &Component)> {
        self.online.components()
    }

    fn models(&self) -> Vec<&ModelRef> {
        self.online.models()
    }

    fn stages(&self) -> Vec<(Makes, &str)> {
        self.online.stages()
    }

    fn data(&self) -> Vec<&DataSpec> {
        self.online.data()
    }

    fn paths_mut(&mut self) -> Vec<&mut String> {
        self.online.paths_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::parse;
    use serde_json::{Value, json};

    fn refused(changes: Value) -> String {
        let mut options = json!({
            "policy": "p", "prompts": { "paths": ["x.jsonl"] }, "rewards": "r", "sampler": { "name": "fixed" },
            "conditioner": { "name": "none" }, "label": { "name": "weighted_sum" }, "loss": { "name": "dpo" },
        });
        for (name, value) in changes.as_object().into_iter().flatten() {
            options[name] = value.clone();
        }
        let said = |e: crate::Error| e.to_string();
        let preference = parse::<OnlinePreference>("online_preference", &options).err().map(said).unwrap_or_default();
        options.as_object_mut().unwrap().retain(|name, _| name != "label" && name != "loss");
        let reinforce = parse::<Reinforce>("reinforce", &options).err().map(said).unwrap_or_default();
        assert_eq!(reinforce, preference.replace("online_preference", "reinforce"));
        preference
    }

    #[test]
    fn training_draws_from_the_whole_distribution() {
        assert_eq!(refused(json!({ "generate": { "temperature": 0.7 } })), "");
        let cut = refused(json!({ "generate": { "top_p": 0.9 } }));
        assert_eq!(
            cut,
            "online_preference: option \"generate\" cuts away unlikely tokens (top_k = 0, top_p = 0.9), but the log-probs that training \
             moves are of all tokens; set top_k = 0 and top_p = 1, and cut where the policy is evaluated (evaluation_generate of a task)"
        );
        assert_eq!(
            refused(json!({ "generate": { "top_k": 40 } })),
            cut.replace("top_k = 0, top_p = 0.9", "top_k = 40, top_p = 1")
        );
        assert!(
            refused(json!({ "generate": { "temperature": 0.0 } }))
                .contains("has temperature = 0, which draws always the same")
        );
        assert!(refused(json!({ "missing_eos_penalty": -1.0 })).contains("\"missing_eos_penalty\" must be"));
    }
}
