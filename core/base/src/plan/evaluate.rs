//! Options of the stages that join and judge finished policies: `soup`, `evaluate`, `compare`.

use super::shared::{Component, ModelRef, Sampling};
use super::{Makes, Uses};
use crate::data::DataSpec;
use crate::error::{Error, Result};
use crate::options::{Checked, Options};
use crate::registry::Kind;
use crate::weights::{Weights, grid_of, steps_of};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Policies that began at the same one, a specialist per objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Specialists {
    /// The policy that all of them began at.
    pub base: ModelRef,
    /// Models or PEFT adapter folders (LoRA) of `base`, in the order of the objectives.
    #[schemars(length(min = 1, max = 32))]
    pub parts: Vec<ModelRef>,
    #[serde(default)]
    pub adapters: Adapters,
}

/// How LoRA adapters are mixed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Adapters {
    /// The weights that they add: Σ wₖ·BₖAₖ.
    #[default]
    Delta,
    /// Their factors, as Rewarded Soups' code does: (Σ wₖBₖ)(Σ wₖAₖ).
    Factor,
}

/// One policy from specialists: `θ₀ + Σ wₖ·(θₖ − θ₀)` (Rewarded Soups).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Soup {
    pub of: Specialists,
    /// One per part; any numbers, so that sums other than 1 extrapolate.
    #[schemars(length(min = 1, max = 32), inner(range(min = -100, max = 100)))]
    pub weights: Vec<f64>,
}

impl Options for Soup {
    fn check(&self) -> Checked {
        let (given, parts) = (self.weights.len(), self.of.parts.len());
        if given != parts {
            return Err(("weights", format!("has {given} numbers for {parts} parts")));
        }
        Ok(())
    }
}

impl Specialists {
    fn models(&self) -> Vec<&ModelRef> {
        std::iter::once(&self.base).chain(&self.parts).collect()
    }

    fn paths_mut(&mut self) -> Vec<&mut String> {
        std::iter::once(&mut self.base).chain(&mut self.parts).filter_map(ModelRef::path_mut).collect()
    }
}

impl Uses for Soup {
    fn models(&self) -> Vec<&ModelRef> {
        self.of.models()
    }

    fn paths_mut(&mut self) -> Vec<&mut String> {
        self.of.paths_mut()
    }
}

/// A policy trained for one weight vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyAt {
    pub weights: Weights,
    pub policy: ModelRef,
}

/// A policy over a grid of weights on prompts that it never saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// The method's name in tables and figures.
    #[schemars(length(min = 1, max = 200), extend("format" = "name"))]
    pub name: String,
    /// One policy for all weights; or else `soup` or `policies`.
    #[serde(default)]
    pub policy: Option<ModelRef>,
    /// Specialists, mixed anew for each weight vector.
    #[serde(default)]
    pub soup: Option<Specialists>,
    /// Policies trained for one weight vector each (MORLHF); they are the grid.
    #[serde(default)]
    #[schemars(length(min = 1, max = 10_000))]
    pub policies: Option<Vec<PolicyAt>>,
    pub prompts: DataSpec,
    /// The id of a `rewards` stage.
    #[schemars(length(min = 1, max = 100))]
    pub rewards: String,
    pub conditioner: Component,
    /// Distance of neighbouring weights; 0.1 gives the paper's 11 points for two objectives.
    #[serde(default = "tenth")]
    #[schemars(range(min = 1e-5, max = 1))]
    pub step: f64,
    /// Explicit weights instead of a grid.
    #[serde(default)]
    #[schemars(length(min = 1, max = 100_000))]
    pub weights: Option<Vec<Weights>>,
    #[serde(default)]
    pub generate: Sampling,
}

fn tenth() -> f64 {
    0.1
}

impl Options for Evaluate {
    fn check(&self) -> Checked {
        let given = [self.policy.is_some(), self.soup.is_some(), self.policies.is_some()];
        if given.iter().filter(|g| **g).count() != 1 {
            return Err(("policy", "or \"soup\" or \"policies\" must be given, and only one of them".into()));
        }
        steps_of(self.step).map_err(|what| ("step", what))?;
        if self.weights.is_some() && self.policies.is_some() {
            return Err(("weights", "do not go with \"policies\", which have their own".into()));
        }
        for (option, given) in [("weights", self.weights.clone()), ("policies", self.own_weights())] {
            let given = given.unwrap_or_default();
            if let Some(i) = (1..given.len()).find(|&i| given[..i].contains(&given[i])) {
                return Err((option, format!("have the weights {:?} twice", given[i].values())));
            }
        }
        Ok(())
    }
}

impl Evaluate {
    pub fn grid(&self, objectives: usize) -> Result<Vec<Weights>> {
        let bad = |option: &str, what: String| {
            Err(Error::BadOption { owner: "evaluate".into(), option: option.into(), what })
        };
        let option = if self.policies.is_some() { "policies" } else { "weights" };
        match self.weights.clone().or(self.own_weights()) {
            Some(list) => match list.iter().find(|w| w.len() != objectives) {
                Some(odd) => {
                    bad(option, format!("{:?} has {} weights for {objectives} objectives", odd.values(), odd.len()))
                }
                None => Ok(list),
            },
            None => grid_of(objectives, self.step).or_else(|what| bad("step", what)),
        }
    }

    fn own_weights(&self) -> Option<Vec<Weights>> {
        self.policies.as_ref().map(|all| all.iter().map(|p| p.weights.clone()).collect())
    }
}

impl Uses for Evaluate {
    fn components(&self) -> Vec<(Kind, &Component)> {
        vec![(Kind::Conditioner, &self.conditioner)]
    }

    fn models(&self) -> Vec<&ModelRef> {
        let mixed = self.soup.iter().flat_map(Specialists::models);
        self.policy.iter().chain(mixed).chain(self.policies.iter().flatten().map(|p| &p.policy)).collect()
    }

    fn stages(&self) -> Vec<(Makes, &str)> {
        vec![(Makes::Rewards, &self.rewards)]
    }

    fn data(&self) -> Vec<&DataSpec> {
        vec![&self.prompts]
    }

    fn paths_mut(&mut self) -> Vec<&mut String> {
        let mixed = self.soup.iter_mut().flat_map(Specialists::paths_mut);
        let own = self.policies.iter_mut().flatten().map(|p| &mut p.policy);
        let models = self.policy.iter_mut().chain(own).filter_map(ModelRef::path_mut);
        models.chain(mixed).chain(&mut self.prompts.paths).collect()
    }
}

/// Win rates of one evaluated method against others, by a judge that is asked in both orders (paper section 5.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// The id of the method's `evaluate` stage.
    #[schemars(length(min = 1, max = 100))]
    pub method: String,
    /// Ids of the others' `evaluate` stages, over the same prompts.
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 100)))]
    pub against: Vec<String>,
    /// What is asked, and at which weights: two, as in the paper's rule.
    #[schemars(length(equal = 2))]
    pub dimensions: Vec<Dimension>,
}

/// A dimension along which answers at some weights are compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dimension {
    #[schemars(length(min = 1, max = 200), extend("format" = "name"))]
    pub name: String,
    /// The evaluated weights whose answers are compared, such as [0.8, 0.2].
    pub weights: Weights,
    pub judge: Component,
}

impl Options for Compare {
    fn check(&self) -> Checked {
        let all: Vec<&String> = std::iter::once(&self.method).chain(&self.against).collect();
        match (1..all.len()).find(|&i| all[..i].contains(&all[i])) {
            Some(i) => Err(("against", format!("has \"{}\" compared with itself, or twice", all[i]))),
            None => Ok(()),
        }
    }
}

impl Uses for Compare {
    fn components(&self) -> Vec<(Kind, &Component)> {
        self.dimensions.iter().map(|d| (Kind::Judge, &d.judge)).collect()
    }

    fn stages(&self) -> Vec<(Makes, &str)> {
        std::iter::once(&self.method).chain(&self.against).map(|id| (Makes::Front, id.as_str())).collect()
    }
}
