//! Options of the stages that join and judge finished policies: `soup`, `evaluate`, `compare`.

use super::Uses;
use super::shared::{Component, ModelRef, Sampling};
use crate::data::DataSpec;
use crate::error::{Error, Result};
use crate::options::{Checked, Options};
use crate::registry::Kind;
use crate::weights::{Weights, steps_of};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Policies that began at the same one, a specialist per objective.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Specialists {
    /// The policy that all of them began at.
    pub base: ModelRef,
    /// Models or PEFT adapter folders (LoRA) of `base`, in the order of the objectives.
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
    pub weights: Vec<f64>,
}

impl Options for Soup {
    fn check(&self) -> Checked {
        let (given, parts) = (self.weights.len(), self.of.parts.len());
        if given != parts {
            return Err(("weights", format!("has {given} numbers for {parts} parts")));
        }
        if let Some(odd) = self.weights.iter().find(|w| !w.is_finite()) {
            return Err(("weights", format!("holds {odd}")));
        }
        Ok(())
    }
}

impl Specialists {
    fn models(&self) -> Vec<&ModelRef> {
        std::iter::once(&self.base).chain(&self.parts).collect()
    }
}

impl Uses for Soup {
    fn models(&self) -> Vec<&ModelRef> {
        self.of.models()
    }
}

/// A policy trained for one weight vector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyAt {
    pub weights: Vec<f64>,
    pub policy: ModelRef,
}

/// A policy over a grid of weights on prompts that it never saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// The method's name in tables and figures.
    pub name: String,
    /// One policy for all weights; or else `soup` or `policies`.
    #[serde(default)]
    pub policy: Option<ModelRef>,
    /// Specialists, mixed anew for each weight vector.
    #[serde(default)]
    pub soup: Option<Specialists>,
    /// Policies trained for one weight vector each (MORLHF); they are the grid.
    #[serde(default)]
    pub policies: Option<Vec<PolicyAt>>,
    pub prompts: DataSpec,
    pub rewards: String,
    pub conditioner: Component,
    /// Distance of neighbouring weights; 0.1 gives the paper's 11 points for two objectives.
    #[serde(default = "tenth")]
    pub step: f64,
    /// Explicit weights instead of a grid.
    #[serde(default)]
    pub weights: Option<Vec<Vec<f64>>>,
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
        let own = self.policies.iter().flatten().map(|p| &p.weights);
        for w in self.weights.iter().flatten().chain(own) {
            Weights::new(w.clone()).map_err(|e| ("weights", format!("is wrong: {e}")))?;
        }
        Ok(())
    }
}

impl Evaluate {
    pub fn grid(&self, objectives: usize) -> Result<Vec<Weights>> {
        let own = self.policies.as_ref().map(|all| all.iter().map(|p| p.weights.clone()).collect());
        match self.weights.clone().or(own) {
            Some(list) => {
                if let Some(odd) = list.iter().find(|w| w.len() != objectives) {
                    let what = format!("{odd:?} has {} weights for {objectives} objectives", odd.len());
                    return Err(Error::BadOption { owner: "evaluate".into(), option: "weights".into(), what });
                }
                list.into_iter().map(Weights::new).collect()
            }
            None => Ok(Weights::grid(objectives, steps_of(self.step).map_err(Error::Invalid)?)),
        }
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

    fn stages(&self) -> Vec<&str> {
        vec![&self.rewards]
    }

    fn data(&self) -> Vec<&DataSpec> {
        vec![&self.prompts]
    }
}

/// Win rates of one evaluated method against others, by a judge that is asked in both orders (paper section 5.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// The id of the method's `evaluate` stage.
    pub method: String,
    /// Ids of the others' `evaluate` stages, over the same prompts.
    pub against: Vec<String>,
    /// What is asked, and at which weights.
    pub dimensions: Vec<Dimension>,
}

/// A dimension along which answers at some weights are compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dimension {
    pub name: String,
    /// The evaluated weights whose answers are compared, such as [0.8, 0.2].
    pub weights: Vec<f64>,
    pub judge: Component,
}

impl Options for Compare {
    fn check(&self) -> Checked {
        if self.against.is_empty() {
            return Err(("against", "names no evaluation".into()));
        }
        if self.dimensions.len() != 2 {
            return Err(("dimensions", format!("must be two, as in the paper's rule, not {}", self.dimensions.len())));
        }
        for d in &self.dimensions {
            Weights::new(d.weights.clone()).map_err(|e| ("dimensions", format!("of {}: {e}", d.name)))?;
        }
        Ok(())
    }
}

impl Uses for Compare {
    fn components(&self) -> Vec<(Kind, &Component)> {
        self.dimensions.iter().map(|d| (Kind::Judge, &d.judge)).collect()
    }

    fn stages(&self) -> Vec<&str> {
        std::iter::once(&self.method).chain(&self.against).map(String::as_str).collect()
    }
}
